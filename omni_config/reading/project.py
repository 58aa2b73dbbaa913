"""What a repository says of its checks: ``omni.toml``, or ``[tool.omni]`` in ``pyproject.toml``, nearest to a file."""

from __future__ import annotations

import fnmatch
import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from omni_config.reading.discover import CannotCheck

#: Keys of the table, with what their values are.
KEYS = {
    "select": "list",
    "ignore": "list",
    "exclude": "list",
    "per-file-ignores": "table",
    "engines": "list",
    "gpu": "text",
}
#: What a ``pyproject.toml`` with our table has in it, however that is written.
_MAY_SAY = r"""\btool["'\s]*(?:[\]=]|\.[\s"']*omni["'\s]*[\].=])"""


@dataclass(frozen=True)
class Project:
    """The table; ``file`` says it, and patterns are relative to the folder that it stands in."""

    file: Path | None = None
    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    ignores: tuple[tuple[str, tuple[str, ...]], ...] = ()
    engines: tuple[str, ...] = ()
    gpu: str = ""

    def excludes(self, name: str) -> bool:
        """Whether a file, or a folder that it is in, is excluded."""
        return bool(self.exclude) and any(_matches(self._path(name), pattern) for pattern in self.exclude)

    def ignored_in(self, name: str) -> tuple[str, ...]:
        """What is ignored in this file beside what is ignored everywhere."""
        if not self.ignores:
            return ()
        path = self._path(name)
        return tuple(code for pattern, codes in self.ignores if _matches(path, pattern) for code in codes)

    def _path(self, name: str) -> str:
        assert self.file is not None
        return relative(name, self.file.parent)


def project_of(name: str) -> Project:
    """The nearest table above a file, or above the working folder for a text that is in none.

    Raises:
        CannotCheck: it cannot be used.
    """
    # Asked of each file: a Path takes ten times as long.
    return _above(os.path.dirname(os.path.abspath(name)))  # noqa: PTH100, PTH120


def relative(name: str | Path, folder: Path) -> str:
    """A path from a folder, with slashes and without following links."""
    return os.path.relpath(name, folder).replace(os.sep, "/")


@cache
def _above(folder: str) -> Project:
    for path in (Path(folder, "omni.toml"), Path(folder, "pyproject.toml")):
        if path.is_file() and (found := _read(path)) is not None:
            return found
    above = os.path.dirname(folder)  # noqa: PTH120
    return Project() if above == folder else _above(above)


def forget() -> None:
    """Read the tables again where they are next asked for."""
    _above.cache_clear()


def _read(path: Path) -> Project | None:
    """The table of a file; None for a ``pyproject.toml`` that has none."""
    inner = path.name == "pyproject.toml"
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        if inner:  # which may be anyone's
            return None
        raise CannotCheck(f"{path}: {error}") from None
    if inner and not re.search(_MAY_SAY, text):  # reading TOML takes longer than most checks
        return None
    import tomllib

    try:
        table: Any = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        if inner:
            return None
        raise CannotCheck(f"{path}: {error}") from None
    if inner:
        table = table.get("tool", {}).get("omni")
    return None if table is None else _project(path, table)


def _project(path: Path, table: Any) -> Project:
    if not isinstance(table, dict):
        raise CannotCheck(f"{path}: tool.omni is no table")
    for key, value in table.items():
        _judge(path, key, value)
    return Project(
        path,
        tuple(table.get("select", ())),
        tuple(table.get("ignore", ())),
        tuple(table.get("exclude", ())),
        tuple((pattern, tuple(codes)) for pattern, codes in table.get("per-file-ignores", {}).items()),
        tuple(table.get("engines", ())),
        table.get("gpu", ""),
    )


def _judge(path: Path, key: str, value: Any) -> None:
    kind = KEYS.get(key)
    if kind is None:
        import difflib

        near = difflib.get_close_matches(key, KEYS, 1)
        raise CannotCheck(f"{path}: unknown key '{key}'; {f'did you mean {near[0]}?' if near else ', '.join(KEYS)}")
    fits = {
        "list": _is_list(value),
        "table": isinstance(value, dict) and all(map(_is_list, value.values())),
        "text": isinstance(value, str),
    }
    if not fits[kind]:
        wanted = {"list": "a list of texts", "table": "a table of lists", "text": "a text"}[kind]
        raise CannotCheck(f"{path}: {key} must be {wanted}")


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _matches(path: str, pattern: str) -> bool:
    """Whether a pattern is that of a path, of a folder above it, or of the last part of one of them."""
    parts = path.split("/")
    pattern = pattern.rstrip("/")
    above = ("/".join(parts[: end + 1]) for end in range(len(parts)))
    return any(fnmatch.fnmatchcase(name, pattern) for name in (*above, *parts))
