"""Two replicas of the embedded model behind one server; their ranks are killed while they work."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import psutil
import pytest
from live_server import Server, image

SEEDS, STEPS, KILLS = 6, 30, 3


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    config = tmp_path_factory.mktemp("fleet") / "config.yaml"
    config.write_text(
        "version: 1\n"
        "model: tiny\n"
        "parallel: {data_parallel_size: 2}\n"
        "sampling: {num_inference_steps: 4}\n"
        "server: {max_restarts: 1000, max_queue: 256}\n"
    )
    with Server(config.parent, str(config)) as server:
        wait_until_all_are_ready(server)
        yield server


def wait_until_all_are_ready(server: Server) -> None:
    end = time.monotonic() + 240
    while server.get("/ready").json()["replicas"] != ["ready", "ready"]:
        assert time.monotonic() < end, server.log.read_text()
        time.sleep(0.1)


def made(server: Server) -> list[float]:
    """How many images each replica has made."""
    return [server.metric(f'omni_replica_images_total{{replica="{replica}"}}') for replica in range(2)]


def generate(server: Server, seed: int, steps: int = STEPS) -> np.ndarray:
    asked = {"seed": seed, "num_inference_steps": steps}
    return image(server.client().images.generate(prompt="a red star", size="64x64", extra_body=asked).data[0])


def busy_ranks(server: Server, least: int = 1) -> list[psutil.Process]:
    """The ranks of replicas that are at an image."""
    time.sleep(0.05)  # between two looks
    states = [replica["state"] for replica in server.get("/v1/plan").json()["replicas"]]
    return server.ranks() if states.count("busy") >= least else []


def wait_until_what_was_begun_again_is_done(server: Server, calls: list[Future[Any]]) -> None:
    """A request may lose its workers once: what the other replica is at is done first, and then it."""
    done = sum(made(server))
    while sum(made(server)) < done + 2 and not all(call.done() for call in calls):
        time.sleep(0.02)


def test_two_requests_are_made_at_a_time_and_the_plan_shows_who_makes_them(fleet: Server) -> None:
    before = made(fleet)
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(generate, fleet, seed, 60) for seed in (1, 2)]
        while not busy_ranks(fleet, 2):
            assert not all(call.done() for call in calls)
        for call in calls:
            call.result()
    assert [after - then for then, after in zip(before, made(fleet), strict=True)] == [1, 1]
    told = fleet.get("/v1/plan").json()
    assert told["data_parallel_size"] == 2
    assert [replica["replica"] for replica in told["replicas"]] == [0, 1]
    assert told["plan"]["mesh"]["ulysses"] == 1


def test_no_request_is_lost_while_ranks_are_killed_and_no_image_differs(fleet: Server) -> None:
    expected = [generate(fleet, seed) for seed in range(SEEDS)]
    ended = threading.Event()

    def ask(first: int) -> list[int]:
        """Ask for images until the last rank was killed; by how much each differs from what it has to be."""
        found = []
        for seed in itertools.count(first):
            ending = ended.is_set()
            found.append(int(abs(generate(fleet, seed % SEEDS) - expected[seed % SEEDS]).max()))
            if ending:
                return found
        raise AssertionError

    with ThreadPoolExecutor(6) as pool:
        calls = [pool.submit(ask, first) for first in range(6)]
        try:
            for number in range(KILLS):
                while len(ranks := busy_ranks(fleet, 2)) < 2:
                    assert not any(call.done() for call in calls), [call.exception() for call in calls]
                ranks[number % 2].kill()
                fleet.wait_for("omni_retries_total", number + 1)
                wait_until_what_was_begun_again_is_done(fleet, calls)
        finally:
            ended.set()
        found = [call.result() for call in calls]
    assert {difference for differences in found for difference in differences} == {0}
    assert fleet.metric("omni_retries_total") == KILLS
    assert fleet.metric('omni_requests_total{outcome="ok"}') == sum(made(fleet)) > 2 * SEEDS
    assert fleet.metric('omni_requests_total{outcome="failed"}') == 0
    wait_until_all_are_ready(fleet)
    restarts = [replica["restarts"] for replica in fleet.get("/v1/plan").json()["replicas"]]
    assert sum(restarts) == KILLS


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_hundred_requests_under_way_get_their_images_while_a_rank_is_killed_every_two_seconds(
    fleet: Server,
) -> None:
    seeds = [seed % 20 for seed in range(200)]
    quiet = {seed: generate(fleet, seed, 6) for seed in set(seeds)}
    before, retries = sum(made(fleet)), fleet.metric("omni_retries_total")
    kills = 0
    with ThreadPoolExecutor(len(seeds)) as pool:
        calls = [pool.submit(generate, fleet, seed, 6) for seed in seeds]
        while not all(call.done() for call in calls):
            if ranks := busy_ranks(fleet):
                ranks[kills % len(ranks)].kill()
                kills += 1
                time.sleep(2)
                wait_until_what_was_begun_again_is_done(fleet, calls)
        images = [call.result() for call in calls]  # none is refused
    assert all(abs(image - quiet[seed]).max() == 0 for seed, image in zip(seeds, images, strict=True))
    assert sum(made(fleet)) == before + len(seeds)  # none twice
    assert kills >= 2
    assert fleet.metric("omni_retries_total") > retries
    wait_until_all_are_ready(fleet)


def test_the_other_serves_while_one_is_started_again(fleet: Server) -> None:
    before = generate(fleet, 7)
    fleet.ranks()[0].kill()
    while "ready" not in (states := fleet.get("/ready").json()["replicas"]) or "loading" not in states:
        time.sleep(0.02)
    assert fleet.get("/ready").status_code == 200
    assert abs(generate(fleet, 7) - before).max() == 0
    wait_until_all_are_ready(fleet)


def test_sigterm_ends_what_all_are_at_and_leaves_nothing(fleet: Server) -> None:
    before = fleet.asked()
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(generate, fleet, seed, 4 * STEPS) for seed in range(4)]
        fleet.wait_until_asked(before + 4)
        assert busy_ranks(fleet, 2)
        fleet.ask_to_end()
        for call in calls:
            assert call.result().shape == (64, 64, 3)
    assert fleet.end() == 0
    assert [left for left in fleet.left() if left != "plan.json"] == []  # kept beside the logs of runs that failed
