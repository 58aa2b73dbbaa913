"""Environments of engines: each a venv in the user's cache, pinned, with what the runs need and no more."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
CPU_TORCH = "https://download.pytorch.org/whl/cpu"
LARGE = 10  # megabytes of a package that is a step of its own
SECONDS_A_MB = 0.1  # what an install takes, roughly: 10 MB a second


class NoEnvironment(ValueError):
    """An environment is not there, or cannot be made; the message says what to do."""


@dataclass(frozen=True)
class Environment:
    """The environment of an engine in a version; ``own`` and ``shared`` are packages with their megabytes."""

    engine: str
    package: str
    own: Mapping[str, int]
    shared: Mapping[str, int]

    @property
    def family(self) -> str:
        """The name without its version."""
        return self.engine.partition("==")[0]

    @property
    def code(self) -> Path:
        """What runs inside: the adapter and the stand-ins."""
        return HERE / self.family

    @cached_property
    def described(self) -> dict[str, Any]:
        """What is run of it: its models, and what a run without a GPU cannot show."""
        text = (self.code / "models.yaml").read_text(encoding="utf-8")
        found: dict[str, Any] = yaml.safe_load(text)
        return found

    @property
    def folder(self) -> Path:
        """Where it is, installed or not."""
        python = f"py{sys.version_info.major}.{sys.version_info.minor}"
        return home() / f"{self.engine.replace('==', '-')}-{python}"

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    @property
    def is_installed(self) -> bool:
        """Whether it is there as it is described now: the last that an install writes says so."""
        told = self.folder / "installed.json"
        return told.is_file() and json.loads(told.read_text(encoding="utf-8"))["packages"] == [*self.own, *self.shared]

    @cached_property
    def borrows(self) -> bool:
        """Whether the Python at hand has all shared packages in the same versions, so that they need no copy."""
        return all(_has(*one.split("==")) for one in self.shared)

    @property
    def packages(self) -> dict[str, int]:
        """What an install fetches, with megabytes."""
        return dict(self.own) if self.borrows else {**self.own, **self.shared}

    def said(self) -> str:
        """What an install will take, in one line."""
        size = sum(self.packages.values())
        taken = f"; torch and {len(self.shared) - 1} more of {sys.prefix}" if self.borrows else ""
        return (
            f"{self.package} with {len(self.packages) - 1} packages into {self.folder}: {size} MB to fetch, "
            f"{size * 4} MB on disk, about {max(10, round(size * SECONDS_A_MB))} s{taken}"
        )

    def require(self) -> None:
        """See that it is installed.

        Raises:
            NoEnvironment: it is not.
        """
        if not self.is_installed:
            raise NoEnvironment(f"{self.engine} is not installed; next: omni engine install {self.engine}")


def home() -> Path:
    """The folder of all environments: in the user's cache, by the XDG base directory specification."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    return Path(cache) / "omni-config" / "engines"


@cache
def environments() -> dict[str, Environment]:
    """All that can be installed, by engine and version."""
    found = {}
    shared = yaml.safe_load((HERE / "libraries.yaml").read_text(encoding="utf-8"))
    for file in sorted(HERE.glob("*/environment.yaml")):
        for name, item in yaml.safe_load(file.read_text(encoding="utf-8")).items():
            found[name] = Environment(name, item["package"], item["own"], shared)
    return found


def environment(name: str) -> Environment:
    """The environment of an engine; without a version, or with a fuller one, that of the version there is.

    Raises:
        NoEnvironment: there is none.
    """
    known = environments()
    for engine, found in known.items():
        family, _, stated = name.partition("==")
        if name == engine or (family == found.family and stated in ("", found.package.partition("==")[2])):
            return found
    raise NoEnvironment(f"no environment for {name}; there are {', '.join(known)}")


def install(wanted: Environment, progress: Callable[[str, int, int], None]) -> None:
    """Make an environment, in the place of one that is there.

    Raises:
        NoEnvironment: pip failed; the message is its last line.
    """
    shutil.rmtree(wanted.folder, ignore_errors=True)
    steps = list(_steps(wanted))
    total = sum(wanted.packages.values())
    done = 0
    progress("the venv", done, total)
    venv.create(wanted.folder, with_pip=True)
    for names, words in steps:
        progress(names[0], done, total)
        ran = subprocess.run(_pip(wanted, names, words), capture_output=True, text=True, check=False)
        if ran.returncode:
            raise NoEnvironment(f"pip could not install {', '.join(names)}: {ran.stderr.strip().splitlines()[-1]}")
        done += sum(wanted.packages[name] for name in names)
    if wanted.borrows:
        site = next((wanted.folder / "lib").glob("python*/site-packages"))
        borrowed = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
        (site / "borrowed.pth").write_text("\n".join(borrowed) + "\n", encoding="utf-8")
    told = {"packages": [*wanted.own, *wanted.shared], "borrows": sys.prefix if wanted.borrows else None}
    (wanted.folder / "installed.json").write_text(json.dumps(told, indent=1), encoding="utf-8")
    progress("done", total, total)


def _steps(wanted: Environment) -> Iterator[tuple[list[str], list[str]]]:
    """Packages that are fetched together, with words for pip: large ones alone, so that a bar can say where it is."""
    alone = ["--no-deps"]  # or a package would ask for what the runs do not need, or for another torch
    yield from (([name], alone) for name, size in wanted.own.items() if size >= LARGE)
    yield [name for name, size in wanted.own.items() if size < LARGE], alone
    if not wanted.borrows:
        torch = [name for name in wanted.shared if name.startswith("torch==")]
        yield torch, [] if _gpu() else ["--extra-index-url", CPU_TORCH]
        yield [name for name in wanted.shared if name not in torch], []


def _pip(wanted: Environment, packages: list[str], words: list[str]) -> list[str]:
    command = [str(wanted.python), "-m", "pip", "install", "--quiet", "--no-compile", "--disable-pip-version-check"]
    local = "" if _gpu() else "+cpu"
    return [*command, *words, *(one + local if one.startswith("torch==") else one for one in packages)]


def _gpu() -> bool:
    return any(shutil.which(name) for name in ("nvidia-smi", "rocm-smi"))


def _has(name: str, wanted: str) -> bool:
    try:
        return version(name).partition("+")[0] == wanted
    except PackageNotFoundError:
        return False
