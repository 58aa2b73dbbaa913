"""What the ranks tell the launcher: one file of JSON lines a rank, in the folder of the run.

Files rather than sockets, because what a killed rank said last must still be there when it is gone.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Phase = Literal["starting", "loading", "waiting", "denoising", "decoding", "saving", "proving", "recording", "done"]
_LONGEST = 2**18  # bytes of the file of a rank that serves for weeks; a reader is never that far behind


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a rank is: ``step`` of ``steps`` (cases, while proving) is 0 of 0 where there are none."""

    phase: Phase
    step: int = 0
    steps: int = 0

    def __str__(self) -> str:
        return f"{self.phase}, step {self.step} of {self.steps}" if self.steps else self.phase


class Writer:
    """Appends the events of one rank; without a folder it says nothing."""

    def __init__(self, folder: Path | None, rank: int) -> None:
        self._file = None if folder is None else path(folder, rank).open("ab")
        self._size = 0
        self._reserve = None if folder is None else folder / f"rank{rank}.reserve"
        if self._reserve is not None:
            self._reserve.write_bytes(bytes(2**14))  # its room is for the last words, when the disk is full
        self._write(pid=os.getpid(), progress=["starting", 0, 0])

    def progress(self, phase: Phase, step: int = 0, steps: int = 0) -> None:
        """This rank entered a phase, or finished a step of it."""
        self._write(progress=[phase, step, steps])

    def error(self, cause: str, *, secondary: bool) -> None:
        """This rank failed; a ``secondary`` failure is that of another rank, seen from here."""
        if self._reserve is not None:
            self._reserve.unlink(missing_ok=True)
        self._write(error=cause, secondary=secondary)

    def done(self, result: dict[str, Any]) -> None:
        """This rank has finished, with its part of the report."""
        self._write(progress=["done", 0, 0], result=result)

    def _write(self, **event: Any) -> None:
        if self._file is not None:
            if self._size > _LONGEST:
                self._file.truncate(0)
                self._size = 0
            self._size += self._file.write(json.dumps({"time": time.time(), **event}).encode() + b"\n")
            self._file.flush()


class Rank:
    """The launcher's view of one rank, from its events so far."""

    def __init__(self, folder: Path, rank: int) -> None:
        self.rank = rank
        self.pid: int | None = None
        self.progress = Progress("starting")
        self.heard = time.monotonic()  # when it last said something
        self.error: str | None = None
        self.error_time = 0.0
        self.secondary = False
        self.result: dict[str, Any] | None = None
        self._path = path(folder, rank)
        self._offset = 0

    @property
    def is_busy(self) -> bool:
        """Whether it should be heard of: it is neither done nor waiting for work."""
        return self.result is None and self.progress.phase != "waiting"

    def read(self) -> list[Progress]:
        """Take in what is new in the file; the progress among it."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            if file.seek(0, os.SEEK_END) < self._offset:  # its writer has begun anew
                self._offset = 0
            file.seek(self._offset)
            text = file.read()
        text = text[: text.rfind(b"\n") + 1]  # a line that is not complete yet is left for the next time
        self._offset += len(text)
        return [progress for line in text.splitlines() if (progress := self._take(json.loads(line)))]

    def _take(self, event: dict[str, Any]) -> Progress | None:
        self.heard = time.monotonic()
        self.pid = event.get("pid", self.pid)
        self.result = event.get("result", self.result)
        if "error" in event:
            self.error, self.error_time, self.secondary = event["error"], event["time"], event["secondary"]
        if "progress" not in event:
            return None
        self.progress = Progress(*event["progress"])
        return self.progress


def path(folder: Path, rank: int) -> Path:
    """The file of events of a rank."""
    return folder / f"rank{rank}.jsonl"


def stacks_path(folder: Path, rank: int) -> Path:
    """The file into which a rank writes its Python stacks when it gets SIGUSR1."""
    return folder / f"rank{rank}.stacks"
