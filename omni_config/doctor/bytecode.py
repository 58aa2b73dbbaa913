"""Whether the processes of a run find their libraries compiled: without, each takes 11 s of CPU more to import them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

#: Container images often set it; Python then compiles whatever it imports, and keeps nothing of that.
PREVENTED = "PYTHONDONTWRITEBYTECODE"
FOLDER = "PYTHONPYCACHEPREFIX"
_LIBRARIES = ("torch", "diffusers", "cache_dit", "transformers")


def with_bytecode(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment in which Python keeps what it compiles, for the next process.

    Where the libraries' folders cannot be written to, and have no bytecode, it is kept in a folder of the user's.
    """
    result = {name: value for name, value in environment.items() if name != PREVENTED}
    if FOLDER not in result and (folder := own_folder(result)) is not None:
        result[FOLDER] = str(folder)
    return result


def own_folder(environment: Mapping[str, str]) -> Path | None:
    """The folder of the user's in which bytecode is kept; None where that of the libraries will do."""
    if all(map(_has_place, _library_folders())):
        return None
    cache = environment.get("XDG_CACHE_HOME") or str(Path(environment.get("HOME") or "~").expanduser() / ".cache")
    return Path(cache, "omni-config", "bytecode")


def _library_folders() -> Iterator[Path]:
    for name in _LIBRARIES:
        spec = find_spec(name)
        if spec is not None and spec.origin is not None:
            yield Path(spec.origin).parent


def _has_place(folder: Path) -> bool:
    """Whether a package has bytecode of this Python, or can get it."""
    cache = folder / "__pycache__"
    written = (cache / f"__init__.{sys.implementation.cache_tag}.pyc").exists()
    return written or os.access(cache if cache.exists() else folder, os.W_OK)
