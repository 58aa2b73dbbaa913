"""Starts an engine once, in its environment, and has it run cases: what its ranks told, and what they computed."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from matrix.engines.environments import HERE, Environment, NoEnvironment
from matrix.engines.small import Small, lay_out

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

SHOWN = 2000  # characters of a log in an error


@dataclass(frozen=True)
class Case:
    """A command to run on so many ranks; ``controls`` are the parts of which a weight is damaged, one a further call.

    ``plain``: the pipeline of diffusers in the place of the engine's, called as the engine calls its own.
    """

    argv: tuple[str, ...]
    ranks: int
    controls: tuple[str, ...] = ()
    timeout: float = 60.0
    plain: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ran:
    """What came of a case. ``moment`` and ``error`` are of the first rank that failed by itself."""

    error: str = ""
    moment: str = ""
    hung: bool = False
    seconds: float = 0.0
    work: tuple[Mapping[str, int], ...] = ()
    backend: str = ""
    images: Mapping[str, Array] = field(default_factory=dict)
    log: str = ""


@dataclass
class Server:
    """An engine that has been started."""

    environment: Environment
    process: subprocess.Popen[str]
    folder: Path
    versions: dict[str, str]
    standins: list[str]
    started: int = 0

    def run(self, cases: Mapping[str, Case]) -> Iterator[tuple[str, Ran]]:
        """Run cases; each by its name as it comes."""
        assert self.process.stdin is not None
        names: dict[str, str] = {}
        for name, case in cases.items():
            self.started += 1
            number = str(self.started)
            names[number] = name
            told = {"id": number, "argv": list(case.argv), "ranks": case.ranks, "controls": list(case.controls)}
            told |= {"timeout": case.timeout, "plain": case.plain, "environment": dict(case.variables)}
            self.process.stdin.write(json.dumps(told) + "\n")
        self.process.stdin.flush()
        for _ in cases:
            answer = json.loads(self._line())
            yield names[answer["id"]], _ran(answer, self.folder / answer["id"])

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise NoEnvironment(f"{self.environment.engine} has ended: {_log(self.folder)}")
        return line


@contextmanager
def started(environment: Environment, models: list[Small], without: tuple[str, ...] = ()) -> Iterator[Server]:
    """An engine with small models under published names; ``without`` some of its stand-ins.

    Raises:
        NoEnvironment: it is not installed, or does not start.
    """
    environment.require()
    with TemporaryDirectory(prefix=f"omni-{environment.family}-") as home:
        folder = Path(home)
        lay_out(models, folder / "hub", environment.described["names"])
        variables = {
            "HF_HUB_CACHE": str(folder / "hub"),
            "HF_HUB_OFFLINE": "1",
            "TMPDIR": home,  # engines leave files of locks there
            "OMP_NUM_THREADS": "1",
            "GLOO_SOCKET_IFNAME": "lo",
            "MALLOC_MMAP_MAX_": "0",  # glibc would give memory back, and every fork fault its pages in again
            "MALLOC_TRIM_THRESHOLD_": str(2**40),
        }
        outside = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "HF_"))}
        command = [str(environment.python), str(HERE / "inside" / "server.py"), str(environment.code / "adapter.py")]
        process = subprocess.Popen(
            [*command, home, str(environment.described["places"]), *without],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=outside | variables,
            start_new_session=True,
        )
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            line = process.stdout.readline()
            if not line:
                raise NoEnvironment(f"{environment.engine} does not start: {_log(folder)}")
            ready = json.loads(line)["ready"]
            yield Server(environment, process, folder, ready["versions"], ready["standins"])
        finally:
            process.stdin.close()
            process.kill()
            process.wait()


def _log(folder: Path) -> str:
    file = folder / "server.log"
    return file.read_text(encoding="utf-8", errors="replace")[-SHOWN:].strip() if file.is_file() else "no log"


def _ran(answer: dict[str, Any], folder: Path) -> Ran:
    import shutil

    ranks = answer["ranks"]
    failed = [one for one in ranks if one.get("error")]
    first = next((one for one in failed if not one.get("waited")), failed[0] if failed else {})
    images = _images(folder)
    shutil.rmtree(folder, ignore_errors=True)
    return Ran(
        error=first.get("error", "").replace(str(folder.parent), "..."),
        moment=first.get("moment", ""),
        hung=answer["hung"],
        seconds=answer["seconds"],
        work=tuple(work for one in ranks for work in one.get("works", ())),
        backend=next((one["backend"] for one in ranks if "backend" in one), ""),
        images=images,
        log=first.get("traceback") or first.get("log", ""),
    )


def _images(folder: Path) -> dict[str, Array]:
    """By name, those of the last rank that has any: the one whose images the engine saves."""
    import numpy as np

    found = {}
    for file in sorted(folder.glob("*.npy"), key=lambda one: int(one.stem.split(".")[1])):
        found[file.stem.split(".")[0]] = np.load(file)
    return found
