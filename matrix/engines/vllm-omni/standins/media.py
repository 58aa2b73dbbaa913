"""torchvision's two operators, declared and never called, and an empty torchaudio: CUDA builds that no CPU build loads.

vLLM-Omni 0.30 imports both for models that are not run here. Not needed with CPU builds of them.
"""

# mypy: allow-untyped-calls
from __future__ import annotations

import importlib
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import torch

FOR = "no GPU"


class _Empty(ModuleType):
    """A module of which anything can be imported, and nothing used."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return None


def apply(omni: Any) -> None:
    """Before the import."""
    if omni is not None:
        return
    global _library
    _library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        _library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    importlib.import_module("transformers.audio_utils")  # which would take the empty one for the whole
    for name in ("torchaudio", "torchaudio.functional", "torchaudio.transforms", "torchaudio.compliance"):
        module: Any = _Empty(name)
        module.__spec__, module.__path__ = ModuleSpec(name, None), []
        sys.modules[name] = module


_library: torch.library.Library | None = None
