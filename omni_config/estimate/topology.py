"""How the GPUs of a machine are connected, as ``nvidia-smi topo -m`` prints it, and which of them a rank should get."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import Literal

Pair = tuple[int, int]
#: Links by what they go through, from the fastest. ``memory``, of ranks that are processes of one CPU, stands alone.
Class = Literal["nvlink", "pcie", "socket", "network", "memory"]
CLASSES: tuple[Class, ...] = ("nvlink", "pcie", "socket", "network")
#: Kinds of connection in ``nvidia-smi topo -m``, from the fastest, in NVIDIA's words.
LINKS = {
    "NV": "NVLink",
    "PIX": "one PCIe bridge",
    "PXB": "several PCIe bridges",
    "PHB": "the CPU's PCIe host bridge",
    "NODE": "PCIe host bridges of one NUMA node",
    "SYS": "the link between CPUs",
}
SLOW = ("PHB", "NODE", "SYS")
_CLASS_OF: dict[str, Class] = {
    "NV": "nvlink",
    "PIX": "pcie",
    "PXB": "pcie",
    "PHB": "pcie",
    "NODE": "pcie",
    "SYS": "socket",
}


def links(text: str) -> dict[Pair, str]:
    """The kind of link of each pair of GPUs, from ``nvidia-smi topo -m``: NV12, PIX, PXB, PHB, NODE or SYS."""
    rows = [line.split() for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()]
    named = [[cell for cell in cells if re.fullmatch(r"GPU\d+", cell)] for cells in rows]
    count = max(map(len, named), default=0)  # the heading names each GPU; behind them stand network cards
    return {
        (int(cells[0][3:]), column): cell
        for cells in rows
        if cells and re.fullmatch(r"GPU\d+", cells[0]) and "X" in cells
        for column, cell in enumerate(cells[1 : count + 1])
        if cell != "X" and int(cells[0][3:]) < column
    }


def kind(link: str) -> str:
    """``NV12`` as NV; the others as they are."""
    return "NV" if link.startswith("NV") else link


def class_of(link: str) -> Class:
    """What a kind of link goes through.

    Raises:
        KeyError: ``nvidia-smi`` has no such kind.
    """
    return _CLASS_OF[kind(link)]


@dataclass(frozen=True, eq=False)
class Topology:
    """The class of link of each pair of GPUs of a machine.

    ``order`` has the GPUs so that those that are close are neighbours: rank 0 gets the first, and so on. Inner axes of
    the mesh, which send the most, are made of neighbours.
    """

    by_pair: Mapping[Pair, Class]
    order: tuple[int, ...]

    @staticmethod
    def of(text: str) -> Topology:
        """From what ``nvidia-smi topo -m`` prints.

        Raises:
            ValueError: the text holds no such table, or a kind of link that is not known.
        """
        try:
            found = {pair: class_of(link) for pair, link in links(text).items()}
        except KeyError as error:
            raise ValueError(f"no kind of link is called {error.args[0]}") from None
        gpus = sorted({gpu for pair in found for gpu in pair})
        if not found or len(found) != len(gpus) * (len(gpus) - 1) // 2:
            raise ValueError("this is not what nvidia-smi topo -m prints: not every pair of GPUs has a link in it")
        levels = [_groups(gpus, found, CLASSES[: CLASSES.index(name) + 1]) for name in ("pcie", "nvlink")]
        return Topology(found, tuple(sorted(gpus, key=lambda gpu: (*(level[gpu] for level in levels), gpu))))

    @cache  # noqa: B019 (a process reads one or two)
    def slowest(self, size: int, stride: int) -> Class:
        """The slowest link between ranks of one group of an axis that has ``size`` ranks, ``stride`` apart.

        An axis of one rank stands for all ranks inside of it. Ranks beyond the GPUs are on other machines.
        """
        order, count = self.order, len(self.order)
        size, stride = (stride, 1) if size == 1 else (size, stride)
        if size * stride > count:
            return "network"
        found = [
            self.by_pair[min(order[a], order[b]), max(order[a], order[b])]
            for start in range(count)
            if start % (size * stride) < stride and start + (size - 1) * stride < count
            for a, b in combinations(range(start, start + size * stride, stride), 2)
        ]
        return max(found, key=CLASSES.index, default=CLASSES[0])


def _groups(gpus: list[int], by_pair: Mapping[Pair, Class], close: Iterable[Class]) -> dict[int, int]:
    """By GPU, the first one of those that it reaches over such links."""
    first = {gpu: gpu for gpu in gpus}
    for one, other in sorted(by_pair):
        if by_pair[one, other] in close and first[one] != first[other]:
            joined, kept = max(first[one], first[other]), min(first[one], first[other])
            first = {gpu: kept if group == joined else group for gpu, group in first.items()}
    return first
