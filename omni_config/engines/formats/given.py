"""GPUs that a deployment says it has, and what of them one command is given."""

from __future__ import annotations

from dataclasses import dataclass

from omni_config.findings import Span


@dataclass(frozen=True, eq=False)
class Gpus:
    """GPUs of each of ``nodes`` machines, the words that say them, and where they stand.

    ``numbered``: from 0, as a container does it, whatever their numbers on the machine.
    """

    count: int
    words: str
    span: Span
    nodes: int = 1
    numbered: bool = True

    @property
    def total(self) -> int:
        """Those of all machines."""
        return self.count * self.nodes


@dataclass(frozen=True, slots=True)
class Given:
    """What a deployment is given; ``shared``: not it alone, or it is not known to be."""

    gpus: Gpus
    shared: bool
