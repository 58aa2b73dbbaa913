#!/bin/sh
# The tests of the web page drive a Chromium. Where there is none, apt brings one, if it may.
set -eu
for name in chromium chromium-browser google-chrome chrome; do
    command -v "$name" >/dev/null && exit 0
done
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    timeout 240 sh -c "apt-get -qq update && apt-get -qq install -y --no-install-recommends chromium" >/dev/null 2>&1 ||
        echo "no Chromium to be had: the tests of the web page are skipped" >&2
else
    echo "no Chromium on PATH: the tests of the web page are skipped; next: install one" >&2
fi
