"""Ranks that are killed at moments drawn by lot: 3, or as many as OMNI_KILLS says (200 take half an hour)."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest
from conftest import HOOKED_WORKER
from test_faults import SECONDS, files

from omni_config.plan import Plan
from runtime import LaunchError

KILLS = int(os.environ.get("OMNI_KILLS", "3"))
PAUSE = 0.5  # seconds that a phase takes at least


@pytest.mark.timeout(120 * KILLS)
def test_kills(hooked, plan: Plan, run_folders: Path, processes) -> None:
    named = 0
    for seed in range(KILLS):
        lot = random.Random(seed)
        when = lot.choice(("born", "starting", "loading", "denoising", "decoding", "saving"))
        rank = 0 if when == "saving" else lot.randrange(2)
        killer = Killer(run_folders, rank, when, lot.uniform(0, PAUSE))
        where = f"seed {seed}: rank {rank} was killed {killer.delay:.2f} s after {when}"
        killer.start()
        error = None
        try:
            hooked(plan, light=seed % 5 != 4, pause=PAUSE)  # each fifth with the real pipeline
        except LaunchError as caught:
            error = caught
        ended = time.monotonic()
        killer.over.set()
        killer.join()
        if error is None:
            assert killer.late(), where
        else:
            named += 1
            assert ended - killer.killed < SECONDS, where
            assert str(error).startswith(f"rank {rank} was killed by SIGKILL while "), f"{where}: {error}"
            assert (error.rank, error.exit_code) == (rank, -signal.SIGKILL), where
        assert processes() == [], where
        for path in files(plan):
            assert path.name == "report.json" or path.read_bytes().endswith(b"IEND\xaeB`\x82"), f"{where}: {path}"
            path.unlink()
    assert named >= KILLS * 0.8


class Killer(threading.Thread):
    """Kills a rank some time after it was born or entered a phase."""

    def __init__(self, run_folders: Path, rank: int, when: str, delay: float) -> None:
        super().__init__(daemon=True)
        self.run_folders, self.rank, self.when, self.delay = run_folders, rank, when, delay
        self.before = set(run_folders.iterdir())
        self.killed = 0.0
        self.over = threading.Event()  # set when the run has ended

    def run(self) -> None:
        while not (self.worker() and (self.when == "born" or self.has(self.when))):
            if self.over.wait(0.05):
                return
        time.sleep(self.delay)
        if worker := self.worker():
            worker.kill()
            self.killed = time.monotonic()

    def late(self) -> bool:
        """Whether the rank had done all its work by then."""
        return not self.killed or self.has("done")

    def worker(self) -> psutil.Process | None:
        for process in psutil.process_iter():
            try:
                line = " ".join(process.cmdline())
                ours = str(HOOKED_WORKER) in line and str(self.run_folders) in line
                if ours and process.environ().get("RANK") == str(self.rank):
                    return process
            except psutil.Error:
                continue
        return None

    def has(self, phase: str) -> bool:
        new = set(self.run_folders.iterdir()) - self.before
        events = [folder / f"rank{self.rank}.jsonl" for folder in new]
        return any(f'"progress": ["{phase}"' in file.read_text() for file in events if file.exists())
