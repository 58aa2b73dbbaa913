"""What a config will need and take, before it runs: peak memory a GPU and seconds an image, as ranges.

Analytic: see docs/estimates.md for every term. Neither torch nor a GPU is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from omni_config.estimate.data import Bound, Gpu, efficiencies, gpus
from omni_config.estimate.latency import latency_of
from omni_config.estimate.memory import Memory, memory_of
from omni_config.estimate.work import unknown

__all__ = ["Estimate", "Range", "estimate", "gpus", "memory"]


@dataclass(frozen=True, slots=True)
class Range:
    """A best guess and what bounds it."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3g} ({self.low:.3g} to {self.high:.3g})"


@dataclass(frozen=True, slots=True)
class Estimate:
    """Memory in GiB a GPU; seconds an image or video (None without a GPU or the dimensions), and seconds by term."""

    memory: Memory
    gib: Range
    seconds: Range | None
    terms: dict[str, float]
    unknown: tuple[str, ...]

    @property
    def dominant(self) -> str:
        """The term that takes most of the time, with its share: "FFN 41%"."""
        if not self.terms:
            return ""
        name = max(self.terms, key=lambda term: self.terms[term])
        return f"{name} {self.terms[name] / sum(self.terms.values()):.0%}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        seconds = self.seconds and {"value": self.seconds.value, "low": self.seconds.low, "high": self.seconds.high}
        return {
            "gib": {"value": self.gib.value, "low": self.gib.low, "high": self.gib.high},
            "memory": {"resident": self.memory.resident, "phases": self.memory.phases},
            "seconds": seconds,
            "terms": self.terms,
            "unknown": list(self.unknown),
        }


def memory(q: Mapping[str, Any], bound: Bound = "value") -> Memory:
    """Memory of a config on one GPU, with the efficiencies at their best guess or at one end."""
    return memory_of(q, q["work"], q["decoder"], efficiencies(bound))


def seconds(q: Mapping[str, Any], gpu: Gpu, bound: Bound = "value") -> dict[str, float]:
    """Seconds by term; empty where the card does not state the dimensions."""
    if q["work"] is None:
        return {}
    return latency_of(q, q["work"], gpu, q["decoder"], gpu.efficiencies(bound))


def estimate(q: Mapping[str, Any], gpu: Gpu | None = None) -> Estimate:
    """All that can be said of a config on a GPU."""
    parts = memory(q)
    gib = Range(parts.peak, memory(q, "best").peak, memory(q, "worst").peak)
    terms = seconds(q, gpu) if gpu else {}
    total = None
    if gpu and terms:
        total = Range(
            sum(terms.values()), sum(seconds(q, gpu, "best").values()), sum(seconds(q, gpu, "worst").values())
        )
    return Estimate(parts, gib, total, terms, (*unknown(q), *parts.unknown))
