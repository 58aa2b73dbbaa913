"""Runs many Plans under one torchrun start, each in processes of its own, and brings back what every rank computed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from omni_config.plan import Plan
from runtime.events import Rank
from runtime.launcher import torchrun
from runtime.report import RankResult

if TYPE_CHECKING:
    import numpy as np

    Arrays = dict[str, np.ndarray[Any, Any]]

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

    ``arrays`` has, a rank, the last ``latents`` and, on rank 0, the ``image`` as bytes (images or frames, height,
    width, 3); those of a control are named after its part: ``vae image``.
    """

    ranks: tuple[RankResult, ...] = ()
    arrays: tuple[Arrays, ...] = ()
    seconds: float = 0.0
    """Of the slowest rank, with loading and controls."""
    error: str | None = None
    """One line: the rank and its cause."""
    traceback: str = ""
    """Of that rank; of a case that made no progress, the stacks of its ranks."""


def run(
    cases: Mapping[str, Case],
    *,
    timeout: float = 600.0,
    on_progress: Callable[[int, int], None] | None = None,
    on_outcome: Callable[[str, Outcome], None] | None = None,
    worker: Path = torchrun.WORKER,
) -> dict[str, Outcome]:
    """Run all cases; their outcomes by name, also of those that failed, or made no progress for ``timeout`` seconds.

    ``on_progress`` gets the number of cases that are done, and of all. ``on_outcome`` gets the name and the outcome of
    each case as soon as it is done, so that nothing of it is lost where the run as a whole fails or is interrupted.

    Raises:
        LaunchError: torchrun or one of its ranks failed as a whole.
    """
    if not cases:
        return {}
    outcomes: dict[str, Outcome] = {}
    with torchrun.run_folder() as folder:
        table = [
            {"plan": case.plan.to_dict(), "controls": case.controls, "merged": case.merged} for case in cases.values()
        ]
        (folder / "cases.json").write_text(json.dumps(table), encoding="utf-8")
        line = torchrun.command(1, "batch", [str(folder), "--timeout", str(timeout)], worker=worker)

        def take() -> None:
            for name, outcome in _done(folder, cases, skip=len(outcomes)):
                outcomes[name] = outcome
                if on_progress is not None:
                    on_progress(len(outcomes), len(cases))
                if on_outcome is not None:
                    on_outcome(name, outcome)

        limit = 60 + 2 * timeout  # the worker ends a case without progress; before the first, it imports and loads
        ranks, log = [Rank(folder, 0)], folder / torchrun.LOG
        try:
            torchrun.run(
                line, folder, ranks, timeout=limit, log=log, on_progress=lambda *_: take(), environment=KEEP_MEMORY
            )
        finally:
            take()
    return {name: outcomes[name] for name in cases}


def _done(folder: Path, cases: Mapping[str, Case], skip: int) -> Iterator[tuple[str, Outcome]]:
    """The cases that are done, in the order in which they were, but the first ``skip``."""
    file, names = folder / "done", list(cases)
    if not file.exists():
        return
    numbers = [int(line) for line in file.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
    for number in islice(numbers, skip, None):
        yield names[number], _outcome(folder, number, cases[names[number]].plan.mesh.world_size)


def _outcome(folder: Path, number: int, world_size: int) -> Outcome:
    import numpy as np

    files = [folder / f"{number}.{rank}.json" for rank in range(world_size)]
    ranks = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    failed = sorted((told["secondary"], rank) for rank, told in enumerate(ranks) if "error" in told)
    if failed:
        _, rank = failed[0]
        return Outcome(error=f"rank {rank}: {ranks[rank]['error']}", traceback=ranks[rank]["traceback"])
    arrays = []
    for file in files:
        with np.load(file.with_suffix(".npz")) as saved:
            arrays.append(dict(saved))
    results = tuple(RankResult.from_dict(told["result"]) for told in ranks)
    return Outcome(results, tuple(arrays), max(told["seconds"] for told in ranks))
