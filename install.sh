#!/bin/sh
# Makes .venv and installs omni-config in it. torch is a CPU build on a machine without a GPU; a GPU build that the
# Python at hand already has is used as it is.
set -eu
unset PYTHONDONTWRITEBYTECODE # or each process would compile what it imports again
python="${PYTHON:-python3}"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "omni-config needs Python 3.11 or newer, and $python is $("$python" -V). Next: make PYTHON=python3.12 $*" >&2
    exit 1
}
cpu_index=https://download.pytorch.org/whl/cpu

if "$python" -c 'import sys, torch; sys.exit(not (torch.version.cuda or torch.version.hip))' 2>/dev/null; then
    "$python" -m venv --system-site-packages .venv
    grep -v '^torch==' constraints.txt > .venv/constraints.txt
else
    "$python" -m venv .venv
    cp constraints.txt .venv/constraints.txt
    # PyTorch keeps its CPU wheels in an index of its own. Where that cannot be reached, pip's own settings decide.
    if ! command -v nvidia-smi >/dev/null && ! command -v rocm-smi >/dev/null &&
        "$python" -c "import urllib.request as r; r.urlopen('$cpu_index/torch/', timeout=3)" 2>/dev/null; then
        .venv/bin/pip install --quiet --no-compile -c .venv/constraints.txt --index-url "$cpu_index" torch
    fi
fi
# Python compiles what is imported, when it is; all of it would take longer than the download.
.venv/bin/pip install --quiet --no-compile -c .venv/constraints.txt -e '.[runtime,quantization,serve,plot,dev]'
