"""Makes the images of many prompts over the replicas of a Plan."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from runtime.launcher import torchrun
from runtime.launcher.failures import LaunchError
from runtime.serving import log
from runtime.serving.fleet import Fleet, fleet
from runtime.serving.metrics import Metrics
from runtime.serving.prompts import Job
from runtime.serving.queue import Queue, Ticket, stop
from runtime.serving.requests import ServedConfig
from runtime.serving.results import Results
from runtime.serving.workers import WorkersFailed


def make_all(
    served: ServedConfig,
    jobs: Sequence[Job],
    results: Results,
    *,
    timeout: float = 600.0,
    worker: Path = torchrun.WORKER,
    on_done: Callable[[int], None] = lambda _: None,
) -> dict[str, str]:
    """Make all images into ``results``; why some cannot be made, by their names.

    ``on_done`` gets the number of jobs that are done. SIGTERM and SIGHUP end the run as Ctrl-C does; what is made by
    then is kept.

    Raises:
        LaunchError: no replica can be started, or each has failed more often than it may.
        OSError: the folder of the results cannot be written.
        SystemExit: by a signal.
    """
    log.set_up(as_json=served.settings["json_logs"])
    log.LOG.setLevel(logging.WARNING)
    settings, metrics = served.settings, Metrics()
    size = settings["max_batch_size"]
    window = 2 * served.replicas * size  # each replica at a batch, and another one waiting for it

    async def run() -> dict[str, str]:
        replicas = fleet(served, metrics, timeout=timeout, worker=worker)
        by_steps = settings["step_execution"]
        queue = Queue(replicas.replicas, metrics, max_waiting=window, max_batch_size=size, by_steps=by_steps)
        main = asyncio.current_task()
        assert main is not None

        def end(number: int) -> None:
            got.append(number)
            main.cancel()

        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
                asyncio.get_running_loop().add_signal_handler(number, end, number)
        running = asyncio.create_task(replicas.run(served.warm_up("")))
        working = asyncio.create_task(queue.work())
        try:
            return await _feed(replicas, queue, jobs, results, window, {running, working}, on_done)
        finally:
            replicas.stop()
            await asyncio.wait({running}, timeout=5)
            for task in (running, working):
                await stop(task)

    got: list[int] = []
    try:
        return asyncio.run(run())
    except asyncio.CancelledError:
        raise SystemExit(128 + got[0]) from None


async def _feed(
    replicas: Fleet,
    queue: Queue,
    jobs: Sequence[Job],
    results: Results,
    window: int,
    tasks: set[asyncio.Task[None]],
    on_done: Callable[[int], None],
) -> dict[str, str]:
    left = deque(jobs)
    pending: dict[asyncio.Future[list[bytes]], Job] = {}
    failed: dict[str, str] = {}
    while left or pending:
        while left and len(pending) < window:
            ticket = Ticket(left[0].sampling)
            queue.add(ticket)
            pending[ticket.result] = left.popleft()
        waiting: set[asyncio.Future[Any]] = {*pending, *tasks}
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for future in [future for future in pending if future in done]:
            job = pending.pop(future)
            try:
                (png,) = future.result()
            except WorkersFailed as error:
                failed[job.name] = str(error)
            else:
                await asyncio.to_thread(results.add, job, png)
            on_done(len(jobs) - len(left) - len(pending))
        for task in tasks & done:
            task.result()
            cause = replicas.failure or "the workers ended"
            raise LaunchError(cause, None, cause, None)
    return failed
