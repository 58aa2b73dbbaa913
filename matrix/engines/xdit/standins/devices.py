"""Devices that are named ``cuda`` are the CPU, and what is asked of torch.cuda has nothing to do.

xDiT 0.6 and 0.7 name the device of the GPU wherever they place weights, draw noise or take time.
"""

# mypy: allow-untyped-calls
from __future__ import annotations

import time
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

FOR = "no GPU"


class _Event:
    def __init__(self, **_: Any) -> None:
        self._at = 0.0

    def record(self) -> None:
        self._at = time.perf_counter()

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, end: _Event) -> float:
        return (end._at - self._at) * 1000


class _OnCpu(TorchFunctionMode):
    def __torch_function__(self, function: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = {name: _placed(value) for name, value in (kwargs or {}).items()}
        return function(*map(_placed, args), **named)


class _Generator(torch.Generator):
    def __new__(cls, device: Any = "cpu") -> Any:
        return super().__new__(cls, device=_placed(device))  # type: ignore[call-arg]


def _placed(value: Any) -> Any:
    """The value, or the CPU where it names a GPU."""
    if isinstance(value, torch.device):
        return torch.device("cpu") if value.type == "cuda" else value
    return "cpu" if isinstance(value, str) and value.split(":")[0] == "cuda" else value


def apply(xfuser: Any) -> None:
    """Before the import: some modules take these functions by name."""
    if xfuser is not None:
        return
    cuda: Any = torch.cuda
    for name in (
        "synchronize",
        "empty_cache",
        "set_device",
        "manual_seed",
        "manual_seed_all",
        "reset_peak_memory_stats",
    ):
        setattr(cuda, name, lambda *_: None)
    cuda.memory_allocated = cuda.max_memory_allocated = cuda.memory_reserved = lambda *_: 0
    cuda.current_device = lambda: "cpu"
    cuda.Event = _Event
    torch.Generator = _Generator  # type: ignore[misc]
    _OnCpu().__enter__()
