#!/bin/sh
# The tests of the web pages drive a Chromium. Where there is none, this brings one with apt; it must be run as root.
set -eu
for name in chromium chromium-browser google-chrome chrome; do
    command -v "$name" >/dev/null && exit 0
done
if [ "$(id -u)" != 0 ]; then
    echo "no Chromium on PATH; next: sudo $0" >&2
    exit 1
fi
timeout 240 sh -c "apt-get -qq update && apt-get -qq install -y --no-install-recommends chromium" >/dev/null
