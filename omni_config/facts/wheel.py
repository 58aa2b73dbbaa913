"""A wheel as parsed Python files. It is opened as an archive; nothing in it is imported, executed or unpacked."""

from __future__ import annotations

import ast
import hashlib
import re
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path

from omni_config.facts.syntax import depth

#: A larger file is generated data, or a trap; it is named as unread.
LARGEST_FILE = 8_000_000
#: Levels of a syntax tree. The deepest file of an engine has 53; a deeper one would end our own recursion.
DEEPEST_TREE = 150


class WheelError(Exception):
    """A wheel that cannot be had or opened, in one line."""


@dataclass(frozen=True)
class File:
    """A Python file of the wheel: its tree, and the identifiers in it, which say quickly what it cannot contain."""

    path: str
    tree: ast.Module
    names: frozenset[str]


@dataclass(frozen=True)
class Wheel:
    """A wheel that was read: its own name and version, its sha256, its files, and those that could not be read."""

    name: str
    version: str
    sha256: str
    files: tuple[File, ...]
    unread: tuple[tuple[str, str], ...]


def read_wheel(path: Path, roots: tuple[str, ...], without: str) -> Wheel:
    """The Python files below ``roots`` whose path does not match the expression ``without``.

    Raises:
        WheelError: The file is missing, is no wheel, or has no name and version.
    """
    leave_out = re.compile(without)
    files, unread = [], []
    try:
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        with zipfile.ZipFile(path) as archive:
            name, version = name_and_version(archive)
            for info in sorted(archive.infolist(), key=lambda info: info.filename):
                if not info.filename.endswith(".py") or not info.filename.startswith(roots):
                    continue
                if leave_out.search(info.filename):
                    continue
                try:
                    files.append(parse(archive, info))
                except (SyntaxError, ValueError, RecursionError, MemoryError, zipfile.BadZipFile) as error:
                    unread.append((info.filename, type(error).__name__))
    except (OSError, zipfile.BadZipFile) as error:
        raise WheelError(f"{path}: not a wheel that can be read ({error})") from error
    return Wheel(name, version, sha256, tuple(files), tuple(unread))


def parse(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> File:
    """One file of a wheel.

    Raises:
        ValueError: It is too large, or no Python that is known (a SyntaxError is raised as it is).
        RecursionError: It is nested too deeply.
    """
    if info.file_size > LARGEST_FILE:
        raise ValueError("too large")
    source = archive.read(info)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an invalid escape in their strings is not ours to report
        tree = ast.parse(source)
    if depth(tree) > DEEPEST_TREE:
        raise RecursionError
    return File(info.filename, tree, frozenset(re.findall(r"[A-Za-z_]\w+", source.decode("utf-8", "replace"))))


def name_and_version(archive: zipfile.ZipFile) -> tuple[str, str]:
    """The name and the version in a wheel's METADATA.

    Raises:
        WheelError: It has none.
    """
    for filename in archive.namelist():
        if filename.endswith(".dist-info/METADATA") and filename.count("/") == 1:
            text = archive.read(filename).decode("utf-8", "replace")
            found = dict(re.findall(r"^(Name|Version): *(\S+)", text, re.MULTILINE))
            if len(found) == 2:
                return found["Name"], found["Version"]
    raise WheelError(f"{archive.filename}: no METADATA with a name and a version")
