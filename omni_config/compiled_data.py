"""Compiled data, kept beside its sources as Python keeps its own compiled modules, and made anew when they change."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

#: The key of the data whose values are long texts, of which a check reads few.
TEXTS = "texts"


class Texts:
    """Texts by name, each read from the file when it is asked for."""

    def __init__(self, path: Path, start: int, places: Mapping[str, tuple[int, int]]) -> None:
        """``places`` are offsets in bytes behind ``start``."""
        self._file = path.open("rb")  # stays open, so that a file that takes its place changes nothing
        self._start = start
        self._places = places

    def __getitem__(self, name: str) -> str:
        begin, end = self._places[name]
        self._file.seek(self._start + begin)
        return self._file.read(end - begin).decode()


def cached(name: str, sources: Iterable[Path], build: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What ``build`` returns (JSON-ready), from ``__pycache__`` where no source has changed since.

    Under ``texts`` it may have a mapping of names to texts; each is read when it is asked for. An installation that
    cannot be written to goes without, and builds each time.
    """
    stamp = [[path.name, (status := path.stat()).st_mtime_ns, status.st_size] for path in sources]
    kept = Path(__file__).parent / "__pycache__" / f"{name}.{sys.implementation.cache_tag}.json"
    try:
        with kept.open("rb") as file:
            first = file.readline()
        entry = json.loads(first)
        if entry["stamp"] == stamp:
            data = dict(entry["data"])
            return data | {TEXTS: Texts(kept, len(first), entry[TEXTS])} if entry[TEXTS] else data
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not there, or written by another version: made anew below
    data = build()
    _write(kept, stamp, data)
    return data


def _write(path: Path, stamp: list[Any], data: dict[str, Any]) -> None:
    """Whole or not at all, since another process may be reading. The first line is JSON, the texts are behind it."""
    from omni_config.atomic import write_bytes

    places, blob = {}, b""
    for name, text in data.get(TEXTS, {}).items():
        encoded = text.encode()
        places[name] = (len(blob), len(blob) + len(encoded))
        blob += encoded
    rest = {key: value for key, value in data.items() if key != TEXTS}
    try:
        path.parent.mkdir(exist_ok=True)
        write_bytes(path, json.dumps({"stamp": stamp, "data": rest, TEXTS: places}).encode() + b"\n" + blob)
    except OSError:
        return
