"""Many cases in one run: one that stands still or fails ends in its own time, is named, and takes no other with it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cases import tiny

from omni_config.plan import Mesh
from runtime import LaunchError
from runtime.proof import prove
from runtime.proof.batch import Case, Outcome, run

WORKER = Path(__file__).with_name("batch_faults_worker.py")
STALLED = 3.0


def case(what: str) -> Case:
    plan = tiny(mesh=Mesh(ulysses=2))
    return Case(replace(plan, sampling=replace(plan.sampling, prompt=what)))


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Outcome]:
    names = ("works", "hangs", "slow", "waits", "dies", "raises")
    started = time.monotonic()
    found = run({**{name: case(name) for name in names}, "last": case("works")}, timeout=STALLED, worker=WORKER)
    assert time.monotonic() - started < 90
    return found


def test_the_others_go_on(outcomes: dict[str, Outcome]) -> None:
    assert [name for name, outcome in outcomes.items() if outcome.error is None] == ["works", "slow", "last"]


def test_a_rank_that_hangs_is_named_with_the_stacks_of_all(outcomes: dict[str, Outcome]) -> None:
    hangs = outcomes["hangs"]
    assert hangs.error == (
        "rank 1: no progress for 3 s while denoising, step 1 of 4; if it is only slow, raise the timeout"
    )
    first, second = hangs.traceback.split("stack of rank 1:")
    assert "all_reduce" in first
    assert "batch_faults_worker.py" in second
    assert "all_reduce" not in second


def test_ranks_that_wait_for_each_other_end(outcomes: dict[str, Outcome]) -> None:
    assert str(outcomes["waits"].error).startswith("rank 0: no progress for 3 s while denoising")
    assert outcomes["waits"].traceback.count(" in run\n") == 2


def test_a_rank_that_dies_or_raises_is_named_and_not_the_one_that_waits_for_it(outcomes: dict[str, Outcome]) -> None:
    assert outcomes["dies"].error == "rank 1: killed by SIGKILL while denoising, step 1 of 4"
    assert outcomes["raises"].error == "rank 1: ValueError: made of cheese"
    assert "made of cheese" in outcomes["raises"].traceback


def test_what_is_done_is_kept_where_the_run_fails_as_a_whole(processes: Callable[[], list[str]]) -> None:
    kept: dict[str, Outcome] = {}
    cases = {"first": case("works"), "second": case("works"), "third": case("ends all"), "fourth": case("works")}
    with pytest.raises(LaunchError, match="rank 0 was killed by SIGKILL while proving, step 2 of 4"):
        run(cases, timeout=60, on_outcome=kept.__setitem__, worker=WORKER)
    assert list(kept) == ["first", "second"]
    assert processes() == []


def test_a_proof_is_handed_over_as_soon_as_it_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = Outcome(error="rank 0: it is made of cheese", traceback="a stack")

    def run_some(cases, on_outcome, **_) -> None:
        for name in list(cases)[:1] + list(cases)[-2:-1]:  # the reference that both share, and one of two plans
            on_outcome(name, failed)
        raise LaunchError("torchrun is gone", None, "gone", None)

    monkeypatch.setattr(prove, "run", run_some)
    kept: dict[str, prove.Proof] = {}
    plans = {"first": case("a").plan, "second": replace(case("a").plan, mesh=Mesh(ring=2))}
    with pytest.raises(LaunchError):
        prove.prove_all(plans, on_proof=kept.__setitem__)
    assert list(kept) == ["first"]
    assert (kept["first"].problem, kept["first"].log) == (failed.error, "a stack")


BARS = """
import os, signal, sys, threading, time
from runtime.ranks.batch import own_bars_in_each_fork
if "own" in sys.argv:
    own_bars_in_each_fork()
from tqdm.auto import tqdm
for _ in tqdm(range(2)):
    pass
print([thread.name for thread in threading.enumerate()])
if not os.fork():
    tqdm.get_lock().acquire()
    os.kill(os.getpid(), signal.SIGKILL)
os.wait()
if not (pid := os.fork()):
    tqdm(range(2))
    os._exit(0)
for _ in range(50):
    time.sleep(0.1)
    if os.waitpid(pid, os.WNOHANG)[0]:
        print("went on")
        break
else:
    print("stood still")
    os.kill(pid, signal.SIGKILL)
"""


@pytest.mark.parametrize(
    ("option", "said"), [("own", "['MainThread']\nwent on"), ("", "['MainThread', 'tqdm_monitor']\nstood still")]
)
def test_a_fork_that_is_killed_keeps_no_lock_of_progress_bars(option: str, said: str) -> None:
    """The second case holds the quirk of tqdm for which the first is there."""
    done = subprocess.run([sys.executable, "-c", BARS, option], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == said, done.stderr
