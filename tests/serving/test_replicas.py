"""The queue over replicas that only wait: who gets what, and what becomes of images whose workers die; no torch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from waiting import Waiting

from omni_config.plan import Sampling
from runtime.serving.metrics import Metrics
from runtime.serving.queue import Full, Preview, Queue, Step, Ticket, stop
from runtime.serving.workers import Cancelled, WorkersDied

ASKED = Sampling(
    prompt="a",
    negative_prompt=None,
    image=None,
    width=64,
    height=64,
    num_images_per_prompt=1,
    video=None,
    num_inference_steps=8,
    guidance={},
    guidance_branches=1,
    seed=5,
)


@asynccontextmanager
async def queue(
    replicas: int = 2, max_batch_size: int = 4, by_steps: bool = False
) -> AsyncIterator[tuple[Queue, list[Waiting], Metrics]]:
    workers, metrics = [Waiting(number) for number in range(replicas)], Metrics()
    sizes = {"max_waiting": 4, "max_batch_size": max_batch_size}
    result = Queue(workers, metrics, by_steps=by_steps, **sizes)  # type: ignore[arg-type]
    work = asyncio.create_task(result.work())
    yield result, workers, metrics
    await stop(work)


def run(scenario: Callable) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 20))


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


def ticket(queue: Queue, seed: int = 5, **changes: object) -> Ticket:
    previews = changes.pop("previews", 0)
    result = Ticket(replace(ASKED, seed=seed, **changes), previews=previews)  # type: ignore[arg-type]
    queue.add(result)
    return result


def seeds(workers: Waiting) -> list[list[int]]:
    """Those of each batch that workers got."""
    return [[sampling.seed for sampling in batch.samplings] for batch in workers.batches]


def test_idle_replicas_share_what_waits() -> None:
    async def scenario() -> None:
        async with queue() as (line, (one, other), _):
            asked = ticket(line, num_images_per_prompt=4)
            await until(lambda: len(one.batches) + len(other.batches) == 2)
            assert sorted(seeds(one) + seeds(other)) == [[5, 6], [7, 8]]
            later = ticket(line, 20)
            one.may_finish.set()
            other.may_finish.set()
            assert len(await asked.result) == 4
            assert await later.result == [b"an image"]

    run(scenario)


def test_a_replica_that_is_not_ready_gets_nothing() -> None:
    async def scenario() -> None:
        async with queue() as (line, (one, other), _):
            other.ready.clear()
            first, second = ticket(line, 1), ticket(line, 2, width=32)
            await until(lambda: len(one.batches) == 1)
            await asyncio.sleep(0.05)
            assert other.batches == []
            other.ready.set()
            await until(lambda: len(other.batches) == 1)
            one.may_finish.set()
            other.may_finish.set()
            await asyncio.gather(first.result, second.result)
            assert (seeds(one), seeds(other)) == ([[1]], [[2]])

    run(scenario)


def test_images_of_workers_that_died_are_made_by_others_each_alone_with_its_own_seed() -> None:
    async def scenario() -> None:
        async with queue() as (line, (one, other), metrics):
            other.ready.clear()
            before = ticket(line, 90, width=32)
            await until(lambda: len(one.batches) == 1)
            tickets = [ticket(line, seed) for seed in (1, 2, 3)]
            waiting = ticket(line, 4, height=32)
            one.batch.set_result(None)
            await until(lambda: len(one.batches) == 2)
            assert seeds(one)[1] == [1, 2, 3]
            one.ready.clear()
            one.die()
            await until(lambda: metrics.registry.get_sample_value("omni_retries_total") == 3)
            other.ready.set()
            other.may_finish.set()
            await asyncio.gather(before.result, waiting.result, *(one.result for one in tickets))
            assert seeds(other) == [[1], [2], [3], [4]]  # before what came later

    run(scenario)


def test_only_the_image_that_ends_its_workers_twice_is_given_up() -> None:
    async def scenario() -> None:
        async with queue(replicas=1) as (line, (workers,), _):
            workers.ready.clear()
            bad, good = ticket(line, 1, num_images_per_prompt=2), ticket(line, 9)
            workers.ready.set()
            await until(lambda: len(workers.batches) == 1)
            workers.die()
            await until(lambda: len(workers.batches) == 2)
            assert seeds(workers) == [[1, 2, 9], [1]]
            workers.die()
            with pytest.raises(WorkersDied, match="SIGKILL"):
                await bad.result
            workers.may_finish.set()
            assert await good.result == [b"an image"]
            assert seeds(workers) == [[1, 2, 9], [1], [9]]  # the second image of a request that failed is not made

    run(scenario)


def test_workers_that_were_dead_before_they_took_an_image_have_not_tried() -> None:
    async def scenario() -> None:
        async with queue(replicas=1) as (line, (workers,), metrics):
            asked = ticket(line, 1)
            await until(lambda: len(workers.batches) == 1)
            workers.takes = False
            workers.die()
            await until(lambda: len(workers.batches) == 2)
            workers.die()
            await until(lambda: len(workers.batches) == 3)
            workers.takes = True
            workers.die()
            await until(lambda: len(workers.batches) == 4)
            assert metrics.registry.get_sample_value("omni_retries_total") == 3
            workers.die()
            with pytest.raises(WorkersDied, match="SIGKILL"):
                await asked.result

    run(scenario)


def test_a_stream_shows_no_image_twice_when_its_workers_died() -> None:
    async def scenario() -> None:
        async with queue(replicas=1) as (line, (workers,), _):
            asked = ticket(line, previews=2)
            assert asked.preview_steps == [3, 5]
            await until(lambda: len(workers.batches) == 1)
            (batch,) = workers.batches
            batch.on_step(3)
            batch.on_preview(0, [b"first"])
            workers.die()
            await until(lambda: len(workers.batches) == 2)
            again = workers.batches[1]
            again.on_step(1)
            again.on_preview(0, [b"first"])
            again.on_preview(1, [b"second"])
            workers.may_finish.set()
            await asked.result
            told = [asked.updates.get_nowait() for _ in range(asked.updates.qsize())]
            assert told == [Step(3, 8), Preview(0, b"first"), Step(1, 8), Preview(1, b"second")]

    run(scenario)


def test_who_leaves_while_workers_die_is_not_made_again() -> None:
    async def scenario() -> None:
        async with queue() as (line, replicas, _):
            asked = ticket(line)
            await until(lambda: any(workers.batches for workers in replicas))
            (busy,) = (workers for workers in replicas if workers.batches)
            asked.result.cancel()
            busy.die()
            await asyncio.sleep(0.05)
            assert [len(workers.batches) for workers in replicas].count(1) == 1
            assert line.depth == 0

    run(scenario)


def test_who_leaves_ends_the_work_on_every_replica_and_the_bound_counts_all() -> None:
    async def scenario() -> None:
        async with queue() as (line, replicas, _):
            asked = ticket(line, num_images_per_prompt=2)
            await until(lambda: all(workers.batches for workers in replicas))
            others = [ticket(line, width=32) for _ in range(4)]
            with pytest.raises(Full):
                ticket(line)
            line.drop(asked)
            for workers in replicas:
                assert isinstance(workers.batch.exception(), Cancelled)
                workers.may_finish.set()
            await asyncio.gather(*(other.result for other in others))

    run(scenario)


def test_by_steps_the_first_in_line_joins_what_it_fits_and_nobody_overtakes_it() -> None:
    async def scenario() -> None:
        async with queue(replicas=1, max_batch_size=3, by_steps=True) as (line, (workers,), _):
            ticket(line, 1, num_inference_steps=50)
            ticket(line, 2)  # of another number of steps
            await until(lambda: seeds(workers) == [[1], [2]])
            ticket(line, 3, width=32)
            ticket(line, 4)
            await asyncio.sleep(0.05)
            assert seeds(workers) == [[1], [2]]
            for batch in [*workers.making]:
                workers.finish(batch)
            await until(lambda: len(workers.batches) == 3)
            workers.finish(workers.batches[2])
            await until(lambda: seeds(workers) == [[1], [2], [3], [4]])
            for seed in (5, 6, 7):
                ticket(line, seed)
            await until(lambda: len(workers.making) == 3)
            await asyncio.sleep(0.05)
            assert line.depth == 1  # as many as a batch may have
            workers.finish(workers.batches[4])
            await until(lambda: seeds(workers)[-1] == [7])

    run(scenario)


def test_by_steps_an_idle_replica_is_better_than_to_join() -> None:
    async def scenario() -> None:
        async with queue(replicas=2, by_steps=True) as (line, (one, other), _):
            for seed in (1, 2, 3):
                ticket(line, seed)
            await until(lambda: sum(len(workers.batches) for workers in (one, other)) == 3)
            assert {len(one.batches), len(other.batches)} == {1, 2}

    run(scenario)


def test_by_steps_what_dies_together_is_made_again_one_after_the_other() -> None:
    async def scenario() -> None:
        async with queue(replicas=1, by_steps=True) as (line, (workers,), _):
            tickets = [ticket(line, seed) for seed in (1, 2)]
            await until(lambda: len(workers.making) == 2)
            workers.die()
            await until(lambda: len(workers.batches) == 3)
            await asyncio.sleep(0.05)
            assert len(workers.making) == 1
            line.drop(next(ticket for ticket in tickets if ticket.sampling.seed == seeds(workers)[2][0]))
            await until(lambda: len(workers.batches) == 4)
            workers.finish(workers.batches[3])
            await until(lambda: any(ticket.result.done() and not ticket.result.cancelled() for ticket in tickets))
            assert sorted(seeds(workers)[2:]) == [[1], [2]]

    run(scenario)
