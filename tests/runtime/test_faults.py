"""Ranks that raise, are killed, or hang; launchers that are: one readable error, and nothing left behind."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import termios
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from conftest import HOOKED_WORKER

from omni_config.plan import Plan
from runtime import LaunchError, launch
from runtime.launcher import torchrun

SECONDS = 15  # from the fault to the error
SLOW = pytest.mark.slow  # another moment of what the others do


def expect(hooked, plan: Plan, tmp_path: Path, *, timeout: float = 120, **hooks) -> LaunchError:
    with pytest.raises(LaunchError) as caught:
        hooked(plan, timeout=timeout, **{"light": True, **hooks})
    (fault,) = tmp_path.glob("*/fault")
    assert time.time() - float(fault.read_text()) < SECONDS + (timeout if timeout < 60 else 0)
    assert "\n" not in str(caught.value)
    assert files(plan) == []
    return caught.value


def files(plan: Plan) -> list[Path]:
    return [*Path(plan.output).iterdir()] if Path(plan.output).exists() else []


CODE = """
import functools, sys, tempfile
import runtime
from omni_config.cli import app
tempfile.tempdir = sys.argv.pop(1)
runtime.launch = functools.partial(runtime.launch, worker=sys.argv.pop(1))
app(["launch", "plan"])()
"""
CONFIG = str(Path(__file__).parents[2] / "examples" / "quickstart.yaml")  # two ranks


def omni_launch(run_folders: Path, output: Path) -> list[str]:
    """``omni launch`` of steps that only wait for each other."""
    line = [sys.executable, "-c", CODE, run_folders, HOOKED_WORKER, "launch", CONFIG, "--output", output]
    return [str(part) for part in line]


@pytest.mark.parametrize("step", [pytest.param(0, marks=SLOW), 3])
def test_a_rank_that_raises(hooked, plan: Plan, tmp_path: Path, processes, run_folders: Path, step: int) -> None:
    error = expect(hooked, plan, tmp_path, fault=["raise", 1, step])
    log = next(run_folders.glob("*/torchrun.log"))
    where = f"step {step - 1} of 8" if step else "loading"
    assert "rank 1 failed while" in str(error)
    assert where in str(error)
    assert str(error).endswith(f"ValueError: the weights are made of cheese (log: {log})")
    assert "Traceback (most recent call last)" in log.read_text()
    assert "and of a second line" in log.read_text()
    assert (error.rank, error.cause, error.exit_code) == (1, "ValueError: the weights are made of cheese", 1)
    assert processes() == []


@pytest.mark.parametrize(
    ("rank", "when", "where", "busy"),
    [
        pytest.param(1, "loading", "loading", False, marks=SLOW),
        (1, 0, "loading", True),
        pytest.param(1, 3, "denoising, step 2 of 8", False, marks=SLOW),
        (1, 3, "denoising, step 2 of 8", True),
        pytest.param(1, "decoding", "decoding", True, marks=SLOW),
        (0, "naming", "saving", False),
    ],
)
def test_a_rank_that_is_killed(
    hooked, plan: Plan, tmp_path: Path, processes, rank: int, when: int | str, where: str, busy: bool
) -> None:
    error = expect(hooked, plan, tmp_path, fault=["kill", rank, when], busy=busy)
    assert str(error).startswith(f"rank {rank} was killed by SIGKILL while {where}; the system may be out of memory")
    assert (error.rank, error.exit_code) == (rank, -signal.SIGKILL)
    assert processes() == []


def test_a_disk_that_is_full(hooked, plan: Plan, tmp_path: Path, processes) -> None:
    error = expect(hooked, plan, tmp_path, fault=["full", 0, "saving"])
    assert str(error).startswith("rank 0 failed while saving: OSError: [Errno 27] File too large: ")
    assert f"{plan.output}/noise.png" in error.cause
    assert processes() == []


def test_a_disk_without_room_for_events(tmp_path: Path, processes) -> None:
    """The run's own folder is on a small disk that is full; what a rank said last gets out nevertheless."""
    inside = 'mount -t tmpfs -o size=400k none "$1" && shift && exec "$@"'
    if (
        not shutil.which("unshare")
        or subprocess.run(["unshare", "-Urm", "sh", "-c", inside, "-", tmp_path, "true"], check=False).returncode
    ):
        pytest.skip("this system lets nobody mount a file system of their own")
    hooks = json.dumps({"latents": str(tmp_path), "fault": ["fill", 1, 3], "light": True})
    done = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", inside, "-", tmp_path, *omni_launch(tmp_path, tmp_path / "outputs")],
        env=os.environ | {"OMNI_TEST_HOOKS": hooks},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    why = "rank 1 failed while denoising, step 2 of 20: OSError: [Errno 28] No space left on device"
    assert done.stderr.startswith(f"omni launch: {why} (log: ")
    assert processes() == []


def test_two_launches_at_once(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes) -> None:
    """Into one folder: each has its own ports and files, and one that fails does not harm the other."""
    monkeypatch.setenv("OMNI_TEST_HOOKS", json.dumps({"latents": str(tmp_path), "light": True, "pause": 1}))
    with ThreadPoolExecutor() as pool:
        good = [pool.submit(launch, plan, timeout=120, worker=HOOKED_WORKER) for _ in range(2)]
        wrong = replace(plan, model=replace(plan.model, dtype="cheese"))  # no Plan, as the ranks see when they read it
        bad = pool.submit(launch, wrong, timeout=120, worker=HOOKED_WORKER)
    assert "rank" in str(bad.exception())
    reports = [run.result() for run in good]
    assert sorted(Path(path).name for report in reports for path in report.images) == ["noise-2.png", "noise.png"]
    assert sorted(path.name for path in files(plan)) == ["noise-2.png", "noise.png", "report.json"]
    assert processes() == []


@SLOW
def test_a_rank_of_the_real_pipeline_that_is_killed(hooked, plan: Plan, tmp_path: Path, processes) -> None:
    error = expect(hooked, plan, tmp_path, fault=["kill", 1, 3], light=False)
    assert str(error).startswith("rank 1 was killed by SIGKILL while denoising, step 2 of 8")
    assert processes() == []


@pytest.mark.parametrize("kind", ["hang", pytest.param("stop", marks=SLOW)])
def test_a_rank_that_hangs(hooked, plan: Plan, tmp_path: Path, processes, kind: str) -> None:
    error = expect(hooked, plan, tmp_path, timeout=20, fault=[kind, 1, 3])
    assert str(error).startswith("rank 1 made no progress for 20 s while denoising, step 2 of 8")
    assert (error.rank, error.exit_code) == (1, None)
    assert processes() == []


@pytest.mark.parametrize(
    ("how", "when", "status", "says"),
    [
        (signal.SIGTERM, 3, 143, ""),
        (signal.SIGINT, "decoding", 130, "omni launch: interrupted; every process has been ended"),
        pytest.param(signal.SIGKILL, 3, -signal.SIGKILL, "", marks=SLOW),
        ("closed terminal", "loading", 129, ""),
    ],
)
def test_a_launcher_that_is_ended(
    tmp_path: Path, processes, run_folders: Path, how, when: int | str, status: int, says: str
) -> None:
    hooks = json.dumps({"latents": str(tmp_path), "fault": ["hang", 1, when], "busy": True, "light": True})
    ours, terminal = pty.openpty()

    def prepare() -> None:
        for ignored in (signal.SIGINT, signal.SIGHUP):  # by who runs the tests in the background, or with nohup
            signal.signal(ignored, signal.SIG_DFL)
        os.setsid()
        fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)  # closing it sends SIGHUP

    line = omni_launch(run_folders, tmp_path / "outputs")
    ends = {"stdin": terminal, "stdout": terminal, "stderr": terminal if how == "closed terminal" else subprocess.PIPE}
    launcher = subprocess.Popen(line, env=os.environ | {"OMNI_TEST_HOOKS": hooks}, preexec_fn=prepare, **ends)
    os.close(terminal)
    wait_for((tmp_path / "fault").exists, 60)
    assert len(processes()) == 4  # the launcher, torchrun and two ranks
    if how == "closed terminal":
        os.close(ours)
    else:
        launcher.send_signal(how)
    try:
        assert launcher.wait(15) == status
    finally:
        launcher.kill()
    if how != "closed terminal":
        os.close(ours)
        assert launcher.stderr.read().decode().strip() == says
    wait_for(lambda: processes() == [], 15)
    if how != signal.SIGKILL:
        assert list(run_folders.iterdir()) == []
    assert not (tmp_path / "outputs").exists()


def test_nohup_is_heeded() -> None:
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with torchrun.run_folder():
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    signal.signal(signal.SIGHUP, previous)


def test_torchrun_that_is_killed(hooked, plan: Plan, processes, monkeypatch: pytest.MonkeyPatch) -> None:
    import runtime.events

    def kill_torchrun(rank: runtime.events.Rank, event: dict) -> None:
        worker = psutil.Process(rank.pid or event["pid"])
        if event.get("progress", [""])[0] == "denoising" and worker.ppid() > 1:
            worker.parent().kill()

    take = runtime.events.Rank._take
    monkeypatch.setattr(
        runtime.events.Rank, "_take", lambda self, event: (kill_torchrun(self, event), take(self, event))[1]
    )
    with pytest.raises(LaunchError, match="torchrun ended with -9"):
        hooked(plan, fault=["hang", 1, 3], light=True)
    wait_for(lambda: processes() == [], 10)


def wait_for(condition, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{condition} did not come true within {seconds} s"
        time.sleep(0.05)
