"""Measures Plans against each other: each is warmed up, then they run in turn, so that what drifts, drifts for both."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any

from omni_config.plan import Plan
from runtime.launcher.launch import launch


@dataclass(frozen=True, slots=True)
class Series:
    """The repeats of one Plan, in the order of the runs."""

    name: str
    plan: dict[str, Any]
    step_seconds: tuple[float, ...]
    """Wall-clock a denoising step, without the first one."""
    seconds: tuple[float, ...]
    """Wall-clock of denoising and decoding, without loading."""
    peak_memory: tuple[float, ...]
    """MiB of the rank that used most."""

    @property
    def medians(self) -> dict[str, float]:
        """The median of each measure."""
        return {name: median(getattr(self, name)) for name in MEASURES}

    def to_dict(self) -> dict[str, Any]:
        """The series as JSON-ready values."""
        return asdict(self) | {"medians": self.medians}


MEASURES = ("step_seconds", "seconds", "peak_memory")


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times as much the second Plan took as the first, in runs next to each other."""

    median: float
    lowest: float
    highest: float

    def to_dict(self) -> dict[str, float]:
        """The ratio as JSON-ready values."""
        return asdict(self)


def bench(
    plans: Mapping[str, Plan],
    *,
    repeats: int = 5,
    timeout: float = 600.0,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> tuple[Series, ...]:
    """Launch each Plan once to warm up, then all in turn, ``repeats`` times.

    ``on_progress`` gets the name of what has run, the number of runs that are done, and of all. Images are not kept.

    Raises:
        LaunchError: a run failed.
    """
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in plans}
    turns = [name for _ in range(repeats + 1) for name in plans]
    with tempfile.TemporaryDirectory(prefix="omni-bench-") as folder:
        for done, name in enumerate(turns, start=1):
            report = launch(replace(plans[name], output=folder), timeout=timeout)
            measured[name].append(
                {
                    "step_seconds": report.step_seconds,
                    "seconds": report.denoise_seconds + report.decode_seconds,
                    "peak_memory": max(report.peak_memory),
                }
            )
            if on_progress is not None:
                on_progress(name, done, len(turns))
    return tuple(
        Series(name, plan.to_dict(), **{of: tuple(run[of] for run in measured[name][1:]) for of in MEASURES})
        for name, plan in plans.items()
    )


def ratio(first: Series, second: Series, measure: str) -> Ratio:
    """Of a measure, over the pairs of repeats; its spread is the smallest and largest pair."""
    pairs = [b / a for a, b in zip(getattr(first, measure), getattr(second, measure), strict=True)]
    return Ratio(median(pairs), min(pairs), max(pairs))
