"""Video jobs on disk: a table of SQLite, and beside it the files of those that are done. It outlives the server."""

from __future__ import annotations

import fcntl
import json
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

_VERSION = 1
_MOST = 10_000  # finished jobs, as those that failed take no room that the limit of the size would count
_TABLE = """
    CREATE TABLE IF NOT EXISTS jobs (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        model TEXT NOT NULL,
        request TEXT NOT NULL,
        size TEXT NOT NULL,
        seconds TEXT NOT NULL,
        created REAL NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0,
        status TEXT NOT NULL DEFAULT 'queued',
        completed REAL,
        bytes INTEGER NOT NULL DEFAULT 0,
        code TEXT,
        message TEXT
    )
"""


@dataclass(frozen=True, slots=True)
class Job:
    """A row of the table."""

    number: int
    """Counts up; never given twice."""
    id: str
    model: str
    request: dict[str, Any]
    """As it was asked, with its seed."""
    size: str
    seconds: str
    """Length of the video."""
    created: float
    """Seconds since 1970, as ``completed``."""
    attempts: int
    """Servers that have begun it."""
    status: Literal["queued", "completed", "failed"]
    """Queued also while it is made: after a restart it is begun anew."""
    completed: float | None
    """When it was done, or had failed."""
    bytes: int
    code: str | None
    message: str | None
    """Why it failed."""


class VideoStore:
    """A folder of jobs. Finished ones are removed when they are older than ``seconds``, and the oldest of them when all
    files have more than ``size`` bytes. A video is written whole first, and then its row, so both always agree.

    Methods may be called from any thread. Each raises OSError where the disk is full or the folder cannot be used.

    Raises:
        OSError: the folder cannot be used, or another server uses it.
    """

    def __init__(self, folder: Path, *, seconds: float, size: int) -> None:
        self._folder = folder
        self._seconds = seconds
        self._size = size
        self._lock = threading.Lock()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._held = (folder / "lock").open("w")
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._held.close()
            raise OSError(0, "another server keeps its videos there", str(folder)) from None
        with self._errors():
            path = folder / "jobs.sqlite3"
            self._table = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            (version,) = self._table.execute("PRAGMA user_version").fetchone()
            if version not in (0, _VERSION):
                raise OSError(0, f"videos of version {version}, and this one keeps {_VERSION}", str(path))
            self._table.execute(_TABLE)
            self._table.execute(f"PRAGMA user_version = {_VERSION}")
        self._agree()
        self.sweep()

    def close(self) -> None:
        """Let another server use the folder."""
        with self._lock:
            self._table.close()
            self._held.close()

    def add(
        self, key: str, request: dict[str, Any], *, model: str, size: str, seconds: str, image: Path | None
    ) -> None:
        """Keep a new job, with a copy of its input image."""
        with self._errors():
            try:
                if image is not None:
                    shutil.copyfile(image, self.image(key))
                self._table.execute(
                    "INSERT INTO jobs (id, model, request, size, seconds, created) VALUES (?, ?, ?, ?, ?, ?)",
                    (key, model, json.dumps(request), size, seconds, time.time()),
                )
            except (OSError, sqlite3.Error):
                self.image(key).unlink(missing_ok=True)
                raise

    def begin(self, key: str) -> None:
        """A server begins to make a video."""
        with self._errors():
            self._table.execute("UPDATE jobs SET attempts = attempts + 1 WHERE id = ?", (key,))

    def complete(self, key: str, data: bytes) -> bool:
        """Keep the video of a job, if the job is still there, and whether it is; older ones make place."""
        with self._errors():
            if len(data) > self._size:
                raise OSError(0, f"a video of {len(data)} bytes does not fit into the store", str(self._folder))
            self._sweep(len(data))
            partial = self._folder / f"{key}.partial"
            try:
                partial.write_bytes(data)
                partial.replace(self.video(key))
                ended = self._end(key, "completed", size=len(data))
            except (OSError, sqlite3.Error):
                self._remove_files(key)
                raise
            if not ended:
                self._remove_files(key)
            self.image(key).unlink(missing_ok=True)
            return ended

    def fail(self, key: str, code: str, message: str) -> None:
        """Keep why a job has no video."""
        with self._errors():
            self._end(key, "failed", code=code, message=message)
            self._remove_files(key)

    def remove(self, key: str) -> bool:
        """Remove a job with its files; whether it was there."""
        with self._errors():
            return self._remove(key)

    def get(self, key: str) -> Job | None:
        """A job, if it is there."""
        with self._errors():
            found = self._select("WHERE id = ?", key)
            return found[0] if found else None

    def page(self, *, after: str | None, limit: int, newest_first: bool) -> list[Job]:
        """Up to ``limit`` jobs that come after another one, in the order in which they were created."""
        behind = "number < coalesce((SELECT number FROM jobs WHERE id = ?), number + 1) ORDER BY number DESC"
        if not newest_first:
            behind = "number > coalesce((SELECT number FROM jobs WHERE id = ?), 0) ORDER BY number"
        with self._errors():
            return self._select(f"WHERE {behind} LIMIT ?", after, limit)

    def unfinished(self) -> list[Job]:
        """Those that an earlier server has left, the first one first."""
        with self._errors():
            return self._select("WHERE status = 'queued' ORDER BY number")

    def video(self, key: str) -> Path:
        """Where the video of a job is."""
        return self._folder / f"{key}.mp4"

    def image(self, key: str) -> Path:
        """Where its input image is, until it is done."""
        return self._folder / f"{key}.png"

    def sweep(self) -> None:
        """Remove jobs whose time is up."""
        with self._errors():
            self._sweep()

    def _sweep(self, needed: int = 0) -> None:
        """Remove what is too old or too much, and the oldest until ``needed`` bytes have room."""
        rows = self._table.execute("SELECT id, bytes, completed FROM jobs WHERE status != 'queued' ORDER BY completed")
        finished = rows.fetchall()
        total, left = sum(size for _, size, _ in finished) + needed, len(finished)
        for key, size, completed in finished:
            if completed >= time.time() - self._seconds and total <= self._size and left <= _MOST:
                break
            self._remove(key)
            total, left = total - size, left - 1

    def _agree(self) -> None:
        """After a server that was killed: no file without its job, and no finished job without its file."""
        with self._errors():
            jobs = {job.id: job for job in self._select("")}
            for path in self._folder.iterdir():
                job = jobs.get(path.stem)
                wanted = {"queued": ".png", "completed": ".mp4"}.get(job.status) if job else None
                if path.suffix in (".mp4", ".png", ".partial") and path.suffix != wanted:
                    path.unlink()
            for job in jobs.values():
                if job.status == "completed" and not self.video(job.id).is_file():
                    self._remove(job.id)

    def _end(
        self, key: str, status: str, *, size: int = 0, code: str | None = None, message: str | None = None
    ) -> bool:
        values = (status, time.time(), size, code, message, key)
        change = "UPDATE jobs SET status = ?, completed = ?, bytes = ?, code = ?, message = ? WHERE id = ?"
        return self._table.execute(change, values).rowcount > 0

    def _remove(self, key: str) -> bool:
        there = self._table.execute("DELETE FROM jobs WHERE id = ?", (key,)).rowcount > 0
        self._remove_files(key)
        return there

    def _remove_files(self, key: str) -> None:
        for path in (self.video(key), self.image(key), self._folder / f"{key}.partial"):
            path.unlink(missing_ok=True)

    def _select(self, where: str, *values: Any) -> list[Job]:
        names = ", ".join(Job.__slots__)
        rows: Sequence[Sequence[Any]] = self._table.execute(
            f"SELECT {names} FROM jobs {where}",  # noqa: S608 (both are ours)
            values,
        ).fetchall()
        found = []
        for row in rows:
            told = dict(zip(Job.__slots__, row, strict=True))
            found.append(Job(**told | {"request": json.loads(told["request"])}))
        return found

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """One thread at a time, and SQLite's errors as those of a disk."""
        with self._lock:
            try:
                yield
            except (sqlite3.Error, ValueError) as error:  # full, or damaged
                raise OSError(0, f"the table of jobs: {error}", str(self._folder)) from error
