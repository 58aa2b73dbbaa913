"""Ranks that raise, are killed, or hang; launchers that are: one readable error, and nothing left behind."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from conftest import HOOKED_WORKER

from omni_config.plan import Plan
from runtime import LaunchError

SECONDS = 10  # from the fault to the error


def expect(hooked, plan: Plan, tmp_path: Path, *, timeout: float = 120, **hooks) -> LaunchError:
    with pytest.raises(LaunchError) as caught:
        hooked(plan, timeout=timeout, **{"light": True, **hooks})
    (fault,) = tmp_path.glob("*/fault")
    assert time.time() - float(fault.read_text()) < SECONDS + (timeout if timeout < 60 else 0)
    assert "\n" not in str(caught.value)
    assert not Path(plan.output).exists() or list(Path(plan.output).iterdir()) == []
    return caught.value


@pytest.mark.parametrize("step", [0, 3])
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


@pytest.mark.parametrize("busy", [False, True])
@pytest.mark.parametrize("step", [0, 3])
def test_a_rank_that_is_killed(hooked, plan: Plan, tmp_path: Path, processes, step: int, busy: bool) -> None:
    error = expect(hooked, plan, tmp_path, fault=["kill", 1, step], busy=busy)
    assert str(error).startswith("rank 1 was killed by SIGKILL while")
    assert (error.rank, error.exit_code) == (1, -signal.SIGKILL)
    assert processes() == []


def test_a_rank_of_the_real_pipeline_that_is_killed(hooked, plan: Plan, tmp_path: Path, processes) -> None:
    error = expect(hooked, plan, tmp_path, fault=["kill", 1, 3], light=False)
    assert str(error).startswith("rank 1 was killed by SIGKILL while denoising, step 2 of 8")
    assert processes() == []


@pytest.mark.parametrize("kind", ["hang", "stop"])
def test_a_rank_that_hangs(hooked, plan: Plan, tmp_path: Path, processes, kind: str) -> None:
    error = expect(hooked, plan, tmp_path, timeout=20, fault=[kind, 1, 3])
    assert str(error).startswith("rank 1 made no progress for 20 s while denoising, step 2 of 8")
    assert (error.rank, error.exit_code) == (1, None)
    assert processes() == []


CODE = """
import sys
from pathlib import Path
from omni_config.plan import Plan
from runtime import launch
launch(Plan.from_json(Path(sys.argv[1]).read_text()), timeout=120, worker=Path(sys.argv[2]))
"""


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_a_launcher_that_is_ended(
    plan: Plan, tmp_path: Path, processes, run_folders: Path, number: signal.Signals, status: int
) -> None:
    plan_file = tmp_path / "plan.json"
    plan_file.write_text(json.dumps(plan.to_dict()))
    hooks = json.dumps({"latents": str(tmp_path), "fault": ["hang", 1, 3], "light": True})
    environment = os.environ | {"OMNI_TEST_HOOKS": hooks, "TMPDIR": str(run_folders)}
    # Whoever runs the tests in the background has SIGINT ignored, and a child would inherit that.
    line = [sys.executable, "-c", CODE, plan_file, HOOKED_WORKER]
    heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    launcher = subprocess.Popen(line, env=environment, preexec_fn=heed)
    wait_for((tmp_path / "fault").exists, 60)
    assert len(processes()) == 3  # torchrun and two ranks
    launcher.send_signal(number)
    assert launcher.wait(10) == status
    wait_for(lambda: processes() == [], 10)
    if number != signal.SIGKILL:
        assert list(run_folders.glob("omni-*")) + list(run_folders.glob("torchelastic*")) == []


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
