"""Commands of omni, each in a process of its own with one thread a rank, as a user would start them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def omni(*words: str, **variables: str) -> None:
    """Run a command; what it says on stderr is shown where it fails.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | variables
    command = [sys.executable, "-m", "omni_config", *words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.stderr.write(done.stderr)
    done.check_returncode()


def launch(config: dict[str, Any], file: Path, **variables: str) -> Path:
    """Launch a config, written into ``file``; the report of the run.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    file.write_text(json.dumps(config), encoding="utf-8")
    omni("launch", str(file), "--json", **variables)
    return Path(config["output"], "report.json")
