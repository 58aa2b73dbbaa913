"""Two operators of torchvision, declared and never called: its CUDA build cannot load them beside a CPU build of torch.

SGLang 0.5.23 imports torchvision for models that are not run here. Not needed with a CPU build of torchvision.
"""

# mypy: allow-untyped-calls
from __future__ import annotations

import torch

FOR = "no GPU"


def apply() -> None:
    """Before torchvision is imported, which looks for them."""
    global _library
    _library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        _library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


_library: torch.library.Library | None = None
