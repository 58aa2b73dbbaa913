"""The folder of images that a file of prompts asks for: each is made and told once, however often it is started."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from runtime.report import remove_partial_of, write
from runtime.serving.prompts import Job

FILE = "results.jsonl"


class InUse(OSError):
    """Another process writes into the folder."""


class Results:
    """Images, and ``results.jsonl`` with a line an image. An image is written whole first, and then its line.

    Raises:
        InUse: another process holds the folder.
        OSError: the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.path = folder / FILE
        folder.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise InUse(0, "another omni launch writes into it", str(folder)) from None
        self._told = self._read()

    def __enter__(self) -> Results:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def missing(self, jobs: Sequence[Job]) -> list[Job]:
        """The jobs of which there is no image; the others have their line."""
        missing = [job for job in jobs if not (self._folder / job.name).is_file()]
        left = {job.name for job in missing}
        remove_partial_of(self._folder, left)
        for job in jobs:
            if job.name not in left:
                self._tell(job)
        return missing

    def add(self, job: Job, png: bytes) -> None:
        """Keep an image, and tell of it.

        Raises:
            OSError: the folder cannot be written, or the disk is full.
        """
        write(self._folder / job.name, lambda path: path.write_bytes(png))
        self._tell(job)

    def _tell(self, job: Job) -> None:
        if job.name in self._told:
            return
        self._file.write(json.dumps(job.to_dict(), ensure_ascii=False).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._told.add(job.name)

    def _read(self) -> set[str]:
        """The images that are told of; half a line, of a process that was killed, is cut off."""
        self._file.seek(0)
        text = self._file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._file.truncate(len(whole))
        try:
            return {json.loads(line)["image"] for line in whole.splitlines()}
        except (ValueError, KeyError, TypeError):
            self._file.close()
            raise OSError(0, "not as omni launch --prompts wrote it", str(self.path)) from None
