"""What was measured of a machine: rates by shape, and the seconds of collectives by their size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import exp, log

from omni_config.estimate.topology import Class, Topology

#: The axis whose blocks call each kind of collective.
_AXES = {"all-to-all": "ulysses", "ring": "ring", "all-reduce": "tensor", "all-gather": "allgather"}


@dataclass(frozen=True, slots=True)
class Rate:
    """One measured rate, in flops or bytes a second, at a shape: the sizes that it depends on."""

    shape: tuple[float, ...]
    rate: float


@dataclass(frozen=True, slots=True)
class Collective:
    """Seconds of one kind of collective over so many ranks, by the bytes that a rank brings, ascending."""

    kind: str
    ranks: int
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, eq=False)
class Measured:
    """Rates of a machine; what is empty or None was not measured.

    ``matmul`` is by rows, inputs and outputs, ``attention`` by tokens, heads and their size, each by the bytes of a
    value, and attention by its backend first; ``norm`` by bytes. ``links`` are bytes a second that a rank sends, by
    class. ``waits``: a processor computes nothing while it is called (a CPU). ``processors`` are the ranks that compute
    at the same time; more of them take turns. ``step`` are seconds of a step beside its blocks, ``calling`` those of
    calling a block, by the axis of the mesh over which it is split (``alone``: none), collectives of next to nothing
    among them.
    """

    matmul: Mapping[int, Sequence[Rate]] = field(default_factory=dict)
    attention: Mapping[str, Mapping[int, Sequence[Rate]]] = field(default_factory=dict)
    norm: Sequence[Rate] = ()
    links: Mapping[Class, float] = field(default_factory=dict)
    collectives: Sequence[Collective] = ()
    topology: Topology | None = None
    waits: bool = False
    processors: int | None = None
    step: float = 0.0
    calling: Mapping[str, float] = field(default_factory=dict)

    def crowd(self, ranks: int) -> float:
        """How many times as long ranks compute as one alone, where they share processors."""
        return 1.0 if self.processors is None else max(1.0, ranks / self.processors)

    def seconds_of(self, kind: str, ranks: int, sent: float) -> float | None:
        """Seconds of a collective to which each rank brings so many bytes; None where its kind was not measured.

        Those of one that brings next to nothing are left out where they are known as a part of calling a block.

        Of a number of ranks that was not measured, the nearest one that was stands for it.
        """
        found = [one for one in self.collectives if one.kind == kind]
        if not found:
            return None
        points = min(found, key=lambda one: abs(log(one.ranks / ranks))).points
        return along(points, sent) - (points[0][1] if _AXES[kind] in self.calling else 0.0)

    def calls(self, count: int, split: Iterable[str]) -> float:
        """Seconds of calling so many blocks that are split over these axes."""
        alone = self.calling.get("alone", 0.0)
        return count * (alone + sum(self.calling.get(axis, alone) - alone for axis in split))


def rate_at(rates: Iterable[Rate], shape: Sequence[float]) -> float:
    """The rate at a shape: the geometric mean of those measured, the near ones counting the most by far.

    Distance is in doublings of the sizes, which is what rates follow.
    """
    total = weight = 0.0
    for one in rates:
        away = sum(log(size / theirs) ** 2 for size, theirs in zip(shape, one.shape, strict=True))
        share = 1 / (away + 1e-4) ** 2
        total += share * log(one.rate)
        weight += share
    return exp(total / weight)


def along(points: Sequence[tuple[float, float]], size: float) -> float:
    """Seconds at a size, on the lines between measured ones; below the first as that, beyond the last as its slope."""
    if size <= points[0][0]:
        return points[0][1]
    for (before, early), (after, late) in pairwise(points):
        if size <= after:
            return early + (late - early) * (size - before) / (after - before)
    return points[-1][1] * size / points[-1][0]
