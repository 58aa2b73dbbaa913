"""``omni check --watch``: check again what has changed, until it is interrupted."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omni_config.checking.choices import Choices
from omni_config.checking.document import CheckResult
from omni_config.output.report import Report
from omni_config.output.run_check import Options, Run
from omni_config.reading.discover import CannotCheck
from omni_config.reading.project import forget, project_of

SECONDS = 0.4  # between two looks


def watch(names: Sequence[str], options: Options, choices: Choices) -> int:
    """Check, and again whenever a file, or the table of the repository, is another one."""
    kept: dict[str, tuple[Any, list[CheckResult]]] = {}

    def check(name: str) -> list[CheckResult]:
        stamp = _stamp(name)
        if name not in kept or kept[name][0] != stamp:
            kept[name] = stamp, choices.check(name)
        return kept[name][1]

    run, before = Run(names, options, choices, check), None
    try:
        while True:
            forget()
            try:
                now: Any = [(name, _stamp(name)) for name, _ in run.files(Report())]
            except CannotCheck as error:
                now = str(error)
            if now != before:
                before = now
                if sys.stdout.isatty():
                    print("\033[2J\033[H", end="")
                run()
                print("Watching; interrupt to end.", flush=True)
            time.sleep(SECONDS)
    except KeyboardInterrupt:
        return 0


def _stamp(name: str) -> Any:
    try:
        status = Path(name).stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino, project_of(name)
