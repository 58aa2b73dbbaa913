"""Requests that schemathesis makes up from the server's own OpenAPI page; tests/fuzz/fuzz_serve.py makes up more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from waiting import running

PROGRAM = str(Path(__file__).parents[1] / "fuzz" / "fuzz_serve.py")


@pytest.mark.parametrize("model", ["tiny", "Qwen/Qwen-Image-Edit", "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"])
def test_no_request_makes_the_server_fail(model: str, tmp_path: Path) -> None:
    with running(tmp_path, f"model: {model}\nserver: true\n") as url:
        done = subprocess.run([sys.executable, PROGRAM, url, "2"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
