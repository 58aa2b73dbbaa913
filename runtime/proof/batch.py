"""Runs many Plans under one torchrun start, each in processes of its own, and brings back what every rank computed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from omni_config.plan import Plan
from runtime.events import Progress, Rank
from runtime.launcher import torchrun

if TYPE_CHECKING:
    import numpy as np

    Arrays = dict[str, np.ndarray[Any, Any]]

WORKER = Path(__file__).parents[1] / "ranks" / "batch.py"
Part = Literal["transformer", "text_encoder", "vae"]
#: One number of one weight gets 100 added, or the whole weight is multiplied by -1000.
Damage = Literal["number", "matrix"]


#: glibc would give large tensors back to the system when they are freed, and every fork fault their pages in again.
KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}


@dataclass(frozen=True, slots=True)
class Case:
    """A Plan to run, and controls: further calls, each with a weight of one part of one rank's model damaged."""

    plan: Plan
    controls: dict[Part, Damage] = field(default_factory=dict)
    merged: bool = False
    """Whether adapters are added to the weights, by the definition of LoRA, rather than loaded by the libraries."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What each rank reported and computed, or why the case failed.

    ``arrays`` has, a rank, the last ``latents`` and, on rank 0, the ``picture`` as bytes (pictures or frames, height,
    width, 3); those of a control are named after its part: ``vae picture``.
    """

    ranks: tuple[dict[str, Any], ...] = ()
    arrays: tuple[Arrays, ...] = ()
    seconds: float = 0.0
    """Of the slowest rank, with loading and controls."""
    error: str | None = None
    """One line: the rank and its cause."""
    traceback: str = ""


def run(
    cases: Mapping[str, Case],
    *,
    timeout: float = 600.0,
    on_progress: Callable[[int, int], None] | None = None,
    worker: Path = WORKER,
) -> dict[str, Outcome]:
    """Run all cases; their outcomes by name, also of those that failed or were not done after ``timeout`` seconds.

    ``on_progress`` gets the number of cases that are done, and of all.

    Raises:
        LaunchError: torchrun or one of its ranks failed as a whole.
    """
    if not cases:
        return {}
    with torchrun.run_folder() as folder:
        table = [
            {"plan": case.plan.to_dict(), "controls": case.controls, "merged": case.merged} for case in cases.values()
        ]
        (folder / "cases.json").write_text(json.dumps(table), encoding="utf-8")
        line = torchrun.command(1, worker, [str(folder), "--timeout", str(timeout)])

        def show(_: Rank, progress: Progress) -> None:
            if on_progress is not None and progress.steps:
                on_progress(progress.step, progress.steps)

        limit = 60 + 2 * timeout  # the worker ends a case that takes too long; before the first, it imports and loads
        ranks, log = [Rank(folder, 0)], folder / torchrun.LOG
        torchrun.run(line, folder, ranks, timeout=limit, log=log, on_progress=show, environment=KEEP_MEMORY)
        return {
            name: _outcome(folder, number, case.plan.mesh.world_size)
            for number, (name, case) in enumerate(cases.items())
        }


def _outcome(folder: Path, number: int, world_size: int) -> Outcome:
    import numpy as np

    files = [folder / f"{number}.{rank}.json" for rank in range(world_size)]
    ranks = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    failed = sorted((rank["echo"], number) for number, rank in enumerate(ranks) if "error" in rank)
    if failed:
        first = ranks[failed[0][1]]
        return Outcome(error=f"rank {failed[0][1]}: {first['error']}", traceback=first["traceback"])
    arrays = []
    for file in files:
        with np.load(file.with_suffix(".npz")) as saved:
            arrays.append(dict(saved))
    return Outcome(tuple(ranks), tuple(arrays), max(rank.pop("seconds") for rank in ranks))
