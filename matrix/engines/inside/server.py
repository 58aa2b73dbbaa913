"""Imports an engine once, then runs each case in forks of itself: ``python server.py ADAPTER FOLDER [WITHOUT ...]``.

A case is a line of JSON on stdin; its answer is one on stdout. What the engine prints goes to a file a rank.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import json
import os
import select
import shutil
import signal
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import Any

GRACE = 5.0  # seconds that other ranks have where one has failed
POLL = 0.02
TAIL = 4000  # characters of a log
TAKEN = "EADDRINUSE"  # another process has taken the port between the look and the use


class Rank:
    """What a process tells of itself: the moment that it is at, and in the end its result."""

    def __init__(self, folder: Path, rank: int) -> None:
        self.file = folder / f"{rank}.json"
        self.rank = rank
        self.folder = folder

    def moment(self, name: str) -> None:
        """From here on, an error is one of this moment; a process that this one has started may say so too."""
        self.file.with_suffix(".moment").write_text(name)

    def tell(self, **result: Any) -> None:
        """The result of this process."""
        at = self.file.with_suffix(".moment").read_text()
        self.file.write_text(json.dumps({"rank": self.rank, "moment": at, **result}))


class Running:
    """A case whose processes run."""

    def __init__(self, case: dict[str, Any], folder: Path) -> None:
        self.case, self.folder = case, folder
        self.began = time.monotonic()
        self.failed: float | None = None
        self.hung = False
        self.pids: dict[int, int] = {}

    def poll(self) -> bool:
        """Whether all processes have ended; those that would wait for ever are ended."""
        for pid in list(self.pids):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                rank = self.pids.pop(pid)
                if os.WIFSIGNALED(status):
                    self._note(rank, f"killed by {signal.Signals(os.WTERMSIG(status)).name}")
                if status and self.failed is None:
                    self.failed = time.monotonic()
        now = time.monotonic()
        late = now > self.began + self.case["timeout"]
        if self.pids and (late or (self.failed is not None and now > self.failed + GRACE)):
            self.hung = late and self.failed is None
            for rank in self.kill():
                self._note(rank, "no end" if self.hung else "waited for a rank that had failed", waited=not self.hung)
        return not self.pids

    def kill(self) -> list[int]:
        """End all processes; the ranks that they were."""
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        ranks = list(self.pids.values())
        self.pids.clear()
        return ranks

    def _note(self, rank: int, why: str, waited: bool = False) -> None:
        file = self.folder / f"{rank}.json"
        if not file.exists():
            moment = file.with_suffix(".moment")
            at = moment.read_text() if moment.exists() else "start"
            file.write_text(json.dumps({"rank": rank, "moment": at, "error": why, "waited": waited}))

    def answer(self) -> dict[str, Any]:
        """What is told of the case."""
        ranks = [json.loads((self.folder / f"{rank}.json").read_text()) for rank in range(self.case["processes"])]
        for rank in ranks:
            if rank.get("error"):
                log = (self.folder / f"{rank['rank']}.log").read_text(errors="replace")
                rank["log"] = log[-TAIL:]
        seconds = round(time.monotonic() - self.began, 2)
        return {"id": self.case["id"], "ranks": ranks, "hung": self.hung, "seconds": seconds}


def start(adapter: Any, case: dict[str, Any], home: Path) -> Running:
    """Fork the processes of a case."""
    folder = home / case["id"]
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    case["processes"] = adapter.processes(case)
    running = Running(case, folder)
    gc.freeze()
    for rank in range(case["processes"]):
        if pid := os.fork():
            running.pids[pid] = rank
            continue
        _be(adapter, case, Rank(folder, rank), port)
    return running


def _be(adapter: Any, case: dict[str, Any], rank: Rank, port: int) -> None:
    """Be a process of a case, to the end."""
    status = 1
    try:
        os.setpgid(0, 0)
        log = os.open(rank.folder / f"{rank.rank}.log", os.O_WRONLY | os.O_CREAT, 0o644)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ |= {
            "RANK": str(rank.rank),
            "LOCAL_RANK": str(rank.rank),
            "WORLD_SIZE": str(case["processes"]),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            **case.get("environment", {}),
        }
        rank.moment("arguments")
        result = adapter.run(case, rank)
        rank.tell(**result)
        status = 1 if result.get("error") else 0
    except BaseException as error:
        rank.tell(error=f"{type(error).__name__}: {error}", traceback=traceback.format_exc())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def serve(adapter: Any, home: Path, lines: Any, answers: Any, places: int) -> None:
    """Run cases as they come, at most ``places`` processes at once but for a case that has more by itself."""
    waiting: list[dict[str, Any]] = []
    running: list[Running] = []
    buffer = b""
    while True:
        idle = not (waiting or running)
        if select.select([lines], [], [], None if idle else POLL)[0]:
            read = os.read(lines, 1 << 16)
            if not read:  # nobody waits for answers any more
                for one in running:
                    one.kill()
                return
            buffer += read
            *whole, buffer = buffer.split(b"\n")
            waiting += [json.loads(line) for line in whole if line.strip()]
        busy = sum(one.case["ranks"] for one in running)
        while waiting and (not running or busy + waiting[0]["ranks"] <= places):
            case = waiting.pop(0)
            busy += case["ranks"]
            running.append(start(adapter, case, home))
        for one in list(running):
            if one.poll():
                running.remove(one)
                answer = one.answer()
                if TAKEN in json.dumps(answer) and "again" not in one.case:
                    shutil.rmtree(one.folder)
                    waiting.insert(0, one.case | {"again": True})
                    continue
                answers.write(json.dumps(answer) + "\n")
                answers.flush()


def load(path: Path) -> Any:
    """The module of an adapter, from its file."""
    spec = importlib.util.spec_from_file_location("adapter", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["adapter"] = module
    spec.loader.exec_module(module)
    return module


def main() -> None:
    """The command."""
    path, home, places, *without = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    log = os.open(Path(home, "server.log"), os.O_WRONLY | os.O_CREAT, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    adapter = load(Path(path))
    answers.write(json.dumps({"ready": adapter.prepare(without)}) + "\n")
    answers.flush()
    lines = os.dup(0)
    serve(adapter, Path(home), lines, answers, int(places))


if __name__ == "__main__":
    main()
