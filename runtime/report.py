"""The report of a run, and the only ways in which files enter the output folder: whole, or not at all."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

FILE = "report.json"
VERSION = 2  # of the report; in version 1, `images` was `pictures`
_PARTIAL = ".omni-partial-"  # prefix of files that are still being written


@dataclass(frozen=True, slots=True)
class RankResult:
    """What one rank did and took: its part of the Report, where the fields are explained. Memory is in MiB."""

    images: tuple[str, ...]
    load_seconds: float
    denoise_seconds: float
    step_seconds: float
    decode_seconds: float
    steps_computed: int
    steps_cached: int
    peak_memory: float
    features: dict[str, dict[str, Any]]

    @staticmethod
    def from_dict(values: dict[str, Any]) -> RankResult:
        """Read what a rank wrote as JSON.

        Raises:
            TypeError: it has other fields.
        """
        return RankResult(**values | {"images": tuple(values["images"])})


@dataclass(frozen=True, slots=True)
class Report:
    """What a run did and took. Seconds are wall-clock; memory is MiB, a value a rank.

    ``peak_memory`` is the resident set of the process on CPU, and the allocator's peak on a GPU. ``features`` holds
    what each applied feature measured on rank 0. ``images`` are the files that were made, videos among them.
    """

    plan: dict[str, Any]
    images: tuple[str, ...]
    seconds: float
    load_seconds: float
    denoise_seconds: float
    """From the call of the pipeline to its last step, the encoding of the prompt included."""
    step_seconds: float
    decode_seconds: float
    steps_computed: int
    steps_cached: int
    peak_memory: tuple[float, ...]
    features: dict[str, dict[str, Any]]
    versions: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-ready values."""
        return {"version": VERSION} | asdict(self)

    def save(self, folder: str | Path) -> Path:
        """Write ``report.json`` into a folder, replacing an older one at once; its path.

        Raises:
            OSError: the folder cannot be written.
        """
        text = json.dumps(self.to_dict(), indent=2) + "\n"
        return write(Path(folder) / FILE, lambda path: path.write_text(text, encoding="utf-8"))

    @staticmethod
    def from_json(text: str | bytes) -> Report:
        """Read what ``save`` wrote.

        Raises:
            ValueError: the text is not JSON, or not a report.
        """
        try:
            values = json.loads(text)
            if values.pop("version", 1) != VERSION:
                raise ValueError(f"this is not a report of version {VERSION}")
            return Report(**values | {"images": tuple(values["images"]), "peak_memory": tuple(values["peak_memory"])})
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"this is not a report: {error}") from error


def versions() -> dict[str, str]:
    """The versions of the libraries that compute."""
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "diffusers", "cache-dit")}


def write(path: Path, fill: Callable[[Path], Any]) -> Path:
    """Let ``fill`` write a file beside ``path``, then rename it there, replacing what is there.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    with _partial(path) as partial:
        fill(partial)
        partial.replace(path)
    return path


def write_new(path: Path, fill: Callable[[Path], Any]) -> Path:
    """``write``, but never over an existing file: ``a.png`` becomes ``a-2.png``, ``a-3.png``, ...; the path taken.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    number, target = 1, path
    with _partial(path) as partial:
        fill(partial)
        while True:
            try:
                os.link(partial, target)  # unlike a rename, this fails where a file is, also one of a second launch
                return target
            except FileExistsError:
                number += 1
                target = path.with_stem(f"{path.stem}-{number}")


def remove_partial(folder: str | Path, pids: set[int]) -> None:
    """Remove what killed processes left half-written in a folder."""
    with suppress(FileNotFoundError):
        for path in Path(folder).iterdir():
            found = re.match(re.escape(_PARTIAL) + r"(\d+)-", path.name)
            if found and int(found[1]) in pids:
                path.unlink(missing_ok=True)


def remove_partial_of(folder: Path, names: Collection[str]) -> None:
    """Remove what was half-written of some files, by whatever process; none may be writing them now."""
    for path in folder.glob(f"{_PARTIAL}*"):
        if path.name.removeprefix(_PARTIAL).partition("-")[2] in names:
            path.unlink(missing_ok=True)


@contextmanager
def _partial(path: Path) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{_PARTIAL}{os.getpid()}-{path.name}")
    try:
        yield partial
    except OSError as error:  # that of a write to a full disk does not say which file it was
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        partial.unlink(missing_ok=True)
