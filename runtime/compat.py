"""Quirks of library versions and of torch without a GPU, each with the version it is for.

``tests/runtime/test_compat.py`` has one test a quirk, which fails when the quirk is gone, so that it can go from here.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.nn import Module

#: gloo and TCPStore (torch 2.13) raise a plain RuntimeError with these texts when another rank is gone.
_PEER_IS_GONE = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Connection refused")


def is_echo(error: BaseException) -> bool:
    """Whether an error only says that another rank is gone."""
    from torch.distributed import DistError

    return isinstance(error, DistError) or any(text in str(error) for text in _PEER_IS_GONE)


def exit_codes(log: str) -> dict[int, int]:
    """The exit code of each failed rank, from the summary that torchrun (torch 2.13) ends its output with.

    It has no other way to say how a worker ended that wrote no error file, as a killed one does not.
    """
    found = re.findall(r"rank\s*: (\d+) \(local_rank: \d+\)\s*exitcode\s*: (-?\d+)", log)
    return {int(rank): int(code) for rank, code in found}


def split_single_layers(transformer: Module, hooks: dict[str, Any]) -> dict[str, Any]:
    """Restore what cache-dit (1.5.3) loses of a Z-Image with one refiner layer.

    Its plan splits the input of layer 0 and gathers the output of layer n - 1, as entries of one dictionary; where
    both are the same layer, the second entry replaces the first.
    """
    from cache_dit.distributed.core import _ContextParallelInput

    split = {"x": _ContextParallelInput(split_dim=1, expected_dims=3)}
    alone = [f"{name}.0" for name in ("noise_refiner", "context_refiner") if len(getattr(transformer, name, ())) == 1]
    return hooks | {name: [split, hooks[name]] for name in alone}
