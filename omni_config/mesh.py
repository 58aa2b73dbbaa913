"""The device mesh, declared once: its axes with the settings that size them, and where each rank stands on it.

Other engines have further axes. They are declared here too, since they count as ranks, but no ``Mesh`` has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple


class Axis(NamedTuple):
    """One axis along which ranks share the work: a name for people, the setting that gives its size, and a short name.

    Those that are ``ours`` are fields of ``Mesh``. The setting of a ``pair`` is rows and columns, or None.
    """

    name: str
    setting: str
    short: str
    ours: bool = True
    pair: bool = False


#: Outermost first. CFG moves the fewest bytes and tensor parallelism the most, so tensor ranks are neighbours.
ALL_AXES = (
    Axis("cfg", setting="cfg_parallel_size", short="cfg"),
    Axis("pipeline", setting="pipeline_parallel_size", short="pipeline", ours=False),
    Axis("ring", setting="ring_degree", short="ring"),
    Axis("attention-2d", setting="attention_2d", short="2d", ours=False, pair=True),
    Axis("allgather", setting="allgather_degree", short="allgather", ours=False),
    Axis("ulysses", setting="ulysses_degree", short="ulysses"),
    Axis("tensor", setting="tensor_parallel_size", short="tp"),
)
AXES = tuple(axis for axis in ALL_AXES if axis.ours)
NAMES = tuple(axis.name for axis in AXES)
#: The settings of the axes, outermost first.
DEGREES = tuple(axis.setting for axis in AXES)
#: What only other engines have.
FURTHER = tuple(axis for axis in ALL_AXES if not axis.ours)
#: The settings of all axes, outermost first: their product is the number of ranks.
RANKS = tuple(axis.setting for axis in ALL_AXES)
#: Of the axes over which ranks compute one branch of guidance together.
WITHIN_A_BRANCH = tuple(name for name in NAMES if name != "cfg")


_NUMBERS = tuple(axis.setting for axis in ALL_AXES if not axis.pair)
_PAIRS = tuple(axis.setting for axis in ALL_AXES if axis.pair)


def degree(size: Any) -> int:
    """The ranks of an axis by its setting: a number, or rows and columns; None is one rank."""
    return size if isinstance(size, int) else prod(size or (1,))


def ranks(settings: Mapping[str, Any]) -> int:
    """The product of all axes; a search asks this of each of thousands of configs."""
    numbers: int = prod([settings[name] for name in _NUMBERS])
    return numbers * prod([degree(settings[name]) for name in _PAIRS])


def further(settings: Mapping[str, Any]) -> dict[str, int]:
    """The axes of other engines that are in use, with their ranks."""
    sizes = {axis.name: degree(settings[axis.setting]) for axis in FURTHER}
    return {name: size for name, size in sizes.items() if size > 1}


@dataclass(frozen=True, slots=True)
class Mesh:
    """Sizes of the device mesh, outermost axis first."""

    cfg: int = 1
    ring: int = 1
    ulysses: int = 1
    tensor: int = 1
    nodes: int = 1  # machines, each with the same number of ranks, in order: whole ulysses and tensor groups

    @staticmethod
    def of(settings: Mapping[str, Any], nodes: int) -> Mesh:
        """The mesh that settings ask for, on a number of machines."""
        return Mesh(**{axis.name: settings[axis.setting] for axis in AXES}, nodes=nodes)

    @property
    def sizes(self) -> dict[str, int]:
        """The size of each axis, outermost first."""
        return {name: getattr(self, name) for name in NAMES}

    @property
    def world_size(self) -> int:
        """Number of ranks."""
        return prod(self.sizes.values())

    @property
    def ranks_per_node(self) -> int:
        """Number of ranks of a machine."""
        return self.world_size // self.nodes

    def coordinates(self, rank: int) -> dict[str, int]:
        """Coordinates of a rank on each axis; the last axis varies fastest. The one place that orders ranks.

        Raises:
            IndexError: the mesh has no such rank.
        """
        if not 0 <= rank < self.world_size:
            raise IndexError(f"rank {rank} of a mesh of {self.world_size}")
        result = {}
        for name, size in reversed(self.sizes.items()):
            rank, result[name] = divmod(rank, size)
        return {name: result[name] for name in NAMES}

    def __str__(self) -> str:
        return " x ".join(f"{name} {size}" for name, size in self.sizes.items())
