"""Which files a command line means: files, folders, globs, and ``-`` for standard input."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

SUFFIXES = (".yaml", ".yml")
PYTHON = (".py", ".ipynb")
SCRIPTS = (".sh", ".bash", ".slurm", ".sbatch", ".dockerfile", ".json", *PYTHON)  # may start an engine
_NAMES = ("Dockerfile", "Containerfile")  # and with more behind it
_HIDDEN = (".github", ".gitlab", ".buildkite", ".circleci")  # that hold steps of CI
_HERE = os.path.join(".", "")  # noqa: PTH118
STDIN = "-"


class CannotCheck(Exception):
    """What a check was asked for cannot be done; the message says why."""


def discover(names: Iterable[str]) -> Iterator[tuple[str, bool]]:
    """Each file once, with whether it was named itself (rather than found in a folder or by a glob).

    Folders are read recursively without following links to folders, and without hidden ones but for those of CI; a name
    that is not there is passed on, so that reading it says so.
    """
    seen: set[str] = set()
    for name in names:
        for path, named in _expand(name):
            if (key := os.path.normpath(path)) not in seen:
                seen.add(key)
                yield path, named


def _expand(name: str) -> Iterator[tuple[str, bool]]:
    path = Path(name)
    if name == STDIN or path.is_file():
        yield name, True
    elif path.is_dir() and path.suffix not in SUFFIXES:
        for folder, folders, files in os.walk(path):
            folders[:] = sorted(inner for inner in folders if not inner.startswith(".") or inner in _HIDDEN)
            read = (file for file in sorted(files) if file.endswith((*SUFFIXES, *SCRIPTS)) or file.startswith(_NAMES))
            # Of each file: a Path takes ten times as long.
            yield from ((os.path.join(folder, file).removeprefix(_HERE), False) for file in read)  # noqa: PTH118
    elif glob.has_magic(name) and not path.exists():
        found = [file for file in sorted(glob.glob(name, recursive=True)) if Path(file).is_file()]
        yield from ((file, False) for file in found) if found else [(name, True)]
    else:
        yield name, True
