"""Compiled data, kept beside its sources as Python keeps its own compiled modules, and made anew when they change."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


def cached(name: str, sources: Iterable[Path], build: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What ``build`` returns (JSON-ready), from ``__pycache__`` where no source has changed since.

    An installation that cannot be written to goes without, and builds each time.
    """
    stamp = [[path.name, (status := path.stat()).st_mtime_ns, status.st_size] for path in sources]
    kept = Path(__file__).parent / "__pycache__" / f"{name}.{sys.implementation.cache_tag}.json"
    try:
        entry = json.loads(kept.read_bytes())
        if entry["stamp"] == stamp:
            return dict(entry["data"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not there, or written by another version: made anew below
    data = build()
    _write(kept, json.dumps({"stamp": stamp, "data": data}))
    return data


def _write(path: Path, text: str) -> None:
    """Whole or not at all, since another process may be reading."""
    from omni_config.atomic import write_bytes

    try:
        path.parent.mkdir(exist_ok=True)
        write_bytes(path, text.encode())
    except OSError:
        return
