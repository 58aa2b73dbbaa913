"""Throughput under a load: the queue against simulations and a formula, and plans that carry what is asked."""

from __future__ import annotations

import json
import random
import time
from math import exp, factorial, fsum
from typing import Any

import pytest
from typer.testing import CliRunner

from omni_config.catalog.load import catalog
from omni_config.checking.files import check_bytes
from omni_config.cli import app
from omni_config.estimate.data import gpus
from omni_config.planner.queueing import fewest_replicas, highest_rate, percentile_99
from omni_config.planner.serving import Load, rate_in, seconds_in
from omni_config.planner.suggest import suggest
from omni_config.resolving.target import target_of
from omni_config.schema.settings import validate

runner = CliRunner()


def by_events(rate: float, replicas: int, seconds: tuple[float, ...], seed: int) -> float:
    """The same queue, moved from event to event, as a server would: what waits, and which replicas are free."""
    chance = random.Random(seed)
    arrivals, at = [], 0.0
    for _ in range(60_000):
        at += chance.expovariate(rate)
        arrivals.append(at)
    waiting: list[float] = []
    busy: list[float] = []
    taken: list[float] = []
    coming = iter([*arrivals, float("inf")])
    next_one = next(coming)
    while next_one < float("inf") or waiting:
        now = min(next_one, min(busy, default=float("inf")))
        if now == next_one:
            waiting.append(now)
            next_one = next(coming)
        busy = [end for end in busy if end > now]
        while waiting and len(busy) < replicas:
            batch, waiting = waiting[: len(seconds)], waiting[len(seconds) :]
            busy.append(now + seconds[len(batch) - 1])
            taken += [busy[-1] - one for one in batch]
    return sorted(taken[6000:])[int(0.99 * (len(taken) - 6000))]


@pytest.mark.parametrize(("servers", "load"), [(1, 0.5), (3, 0.85), (16, 0.9), (100, 0.95)])
def test_calls_of_one_request_wait_as_in_a_simulation(servers: int, load: float) -> None:
    rate = load * servers / 2.0
    simulated = [by_events(rate, servers, (2.0,), seed) for seed in range(3)]
    assert percentile_99(rate, servers, (2.0,)) == pytest.approx(sum(simulated) / 3, rel=0.05)


@pytest.mark.parametrize("load", [0.3, 0.8, 0.95])
def test_one_replica_waits_as_erlang_says(load: float) -> None:
    """P(W <= t) of M/D/1 (Erlang, 1909), which is exact where its alternating terms are not too many."""

    def at_most(wait: float) -> float:
        terms = [exp(load * (wait - k)) * (-load * (wait - k)) ** k / factorial(k) for k in range(int(wait) + 1)]
        return (1 - load) * fsum(terms)

    wait = percentile_99(load, 1, (1.0,)) - 1
    if wait < 15:
        assert at_most(wait) == pytest.approx(0.99, abs=2e-4)
    assert at_most(min(wait, 15) - 0.2) < 0.99


@pytest.mark.parametrize(("replicas", "rate"), [(1, 0.9), (2, 1.9), (5, 3.5)])
def test_batches_are_made_of_what_waits(replicas: int, rate: float) -> None:
    seconds = (1.0, 1.4, 1.8, 2.2)
    simulated = [by_events(rate, replicas, seconds, seed) for seed in range(3)]
    assert percentile_99(rate, replicas, seconds) == pytest.approx(sum(simulated) / 3, rel=0.08)


def test_the_fewest_replicas_and_the_highest_rate_just_keep_the_bound() -> None:
    found = fewest_replicas(5.0, 10, 100, (2.0,), 3.0)
    assert found
    assert percentile_99(5.0, found, (2.0,)) <= 3.0 < percentile_99(5.0, found - 1, (2.0,))
    assert fewest_replicas(5.0, 10, 11, (2.0,), 2.001) is None
    rate = highest_rate(4, (2.0, 2.5), 4.0)
    assert percentile_99(rate, 4, (2.0, 2.5)) <= 4.0 < percentile_99(1.05 * rate, 4, (2.0, 2.5))
    assert highest_rate(4, (2.0,), 1.9) == 0


def suggested(*arguments: str) -> tuple[int, dict[str, Any]]:
    result = runner.invoke(app(["suggest"]), ["suggest", "--objective", "throughput", *arguments, "--json"])
    return result.exit_code, json.loads(result.stdout)


FLAGS = ("--model", "Tongyi-MAI/Z-Image-Turbo", "--gpus", "16", "--gpu", "l20", "--lossless")


def test_a_rate_and_a_bound_are_kept_by_the_fewest_gpus() -> None:
    code, found = suggested(*FLAGS, "--rate", "1/s", "--p99", "15s", "--price", "1.2")
    assert code == 0
    needed = [plan["gpus"] * plan["replicas"] for plan in found["plans"]]
    assert needed == sorted(needed)
    assert needed[0] < 16
    for plan in found["plans"]:
        assert plan["p99"] <= 15
        assert plan["cost_an_image"] == pytest.approx(1.2 / 3600 * plan["gpus"] * plan["replicas"])
        (checked,) = check_bytes("suggested.yaml", plan["config"].encode())
        assert not checked.findings, checked.findings
        assert checked.resolution
        settings = checked.resolution.settings
        assert (settings["data_parallel_size"] or 1) == plan["replicas"]
        assert settings["max_batch_size"] == plan["batch"]


def test_a_tighter_bound_takes_more_gpus_and_a_looser_one_fewer() -> None:
    needed = []
    for bound in ("60s", "12s", "6s"):
        plan = suggested(*FLAGS, "--rate", "0.5/s", "--p99", bound)[1]["plans"][0]
        needed.append(plan["gpus"] * plan["replicas"])
    assert needed == sorted(needed)
    assert needed[0] < needed[-1]


def test_a_load_that_nothing_carries_says_what_would() -> None:
    code, found = suggested(*FLAGS, "--rate", "9/s", "--p99", "10s")
    assert code == 1
    rate = float(found["remedies"][0].split()[5].removesuffix("/s"))
    assert suggested(*FLAGS, "--rate", f"{0.97 * rate:.3f}/s", "--p99", "10s")[0] == 0


def test_small_images_are_batched() -> None:
    flags = ("--model", "Qwen/Qwen-Image", "--size", "256x256", "--gpus", "8", "--gpu", "h100", "--lossless")
    plans = suggested(*flags)[1]["plans"]
    assert plans[0]["batch"] > 1
    assert plans[0]["p99"] is None  # at its limit, a queue has no end


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--objective", "latency", "--rate", "2/s"), "go with --objective throughput"),
        (("--objective", "throughput", "--rate", "2"), "expected a rate"),
        (("--objective", "throughput", "--p99", "10"), "expected a duration"),
        (("--objective", "throughput", "--p99", "0s"), "expected a duration"),
        (("--objective", "throughput", "--price", "0"), "expected a price above 0"),
    ],
)
def test_a_load_that_is_none_is_refused(arguments: tuple[str, ...], words: str) -> None:
    result = runner.invoke(app(["suggest"]), ["suggest", *FLAGS, *arguments], env={"COLUMNS": "300"})
    assert result.exit_code == 2
    assert words in result.stderr


def test_units_of_a_load() -> None:
    assert (rate_in("30/min"), rate_in("2/s")) == (0.5, 2.0)
    assert (seconds_in("500ms"), seconds_in("2min"), seconds_in("1.5s")) == (0.5, 120.0, 1.5)


@pytest.mark.parametrize("engine", ["vllm-omni", "native"])
def test_1024_gpus_with_replicas_are_planned_in_about_a_second(engine: str) -> None:
    """Of processor time, as other jobs run beside the tests."""
    card, known = catalog().model("Qwen/Qwen-Image"), catalog().engine(engine)
    assert card
    assert known
    settings = validate({"version": 1, "model": card.id, "engine": known.id, "sampling": {"negative_prompt": ""}})
    begun = time.process_time()
    found = suggest(
        settings, target_of(card, known), gpus()["h100"], 1024, objective="throughput", load=Load(20.0, 10.0)
    )
    assert time.process_time() - begun < 3
    assert len(found.best) == 5
