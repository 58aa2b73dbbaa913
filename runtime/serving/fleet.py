"""Replicas of one Plan: each has workers and GPUs of its own, and is started again by itself while the others serve."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omni_config.plan import Sampling
from runtime.launcher import torchrun
from runtime.launcher.devices import share_of_gpus
from runtime.serving.metrics import Metrics
from runtime.serving.requests import ServedConfig
from runtime.serving.workers import Workers


class Fleet:
    """The workers of all replicas."""

    def __init__(self, replicas: Sequence[Workers]) -> None:
        self.replicas = replicas

    @property
    def is_ready(self) -> bool:
        """Whether a batch would be made now."""
        return any(workers.ready.is_set() for workers in self.replicas)

    @property
    def were_ready(self) -> bool:
        """Whether one has been ready."""
        return self.replicas[0].started.is_set()

    @property
    def failure(self) -> str | None:
        """Why the replicas do not run, where all have failed."""
        causes = [workers.failure for workers in self.replicas]
        return causes[0] if all(causes) else None

    def shown(self) -> list[dict[str, Any]]:
        """Each replica, JSON-ready."""
        return [workers.shown() for workers in self.replicas]

    async def run(self, warm_up: Sampling) -> None:
        """Keep all replicas running until ``stop``; return when none is started again."""
        async with asyncio.TaskGroup() as group:
            for workers in self.replicas:
                group.create_task(workers.run(warm_up))

    def stop(self) -> None:
        """Let all workers end when they are idle."""
        for workers in self.replicas:
            workers.stop()


def fleet(served: ServedConfig, metrics: Metrics, *, timeout: float = 600.0, worker: Path = torchrun.WORKER) -> Fleet:
    """The replicas of a config's Plan, none of them started."""
    plan, count = served.plan, served.replicas
    started, ranks = asyncio.Event(), plan.mesh.world_size
    replicas = []
    for number in range(count):
        environment = share_of_gpus(number, ranks)
        if count > 1 and "OMP_NUM_THREADS" not in os.environ:  # torchrun.py shares the cores among the ranks of one
            environment["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // (count * ranks)))
        replicas.append(
            Workers(
                plan,
                metrics,
                replica=number,
                started=started,
                environment=environment,
                by_steps=served.settings["step_execution"],
                max_loras=served.settings["max_loras"],
                max_restarts=served.settings["max_restarts"],
                timeout=timeout,
                worker=worker,
            )
        )
    return Fleet(replicas)
