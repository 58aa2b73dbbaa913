"""Fused layers as SGLang writes them in torch: their operators for the CPU are in a build of sgl-kernel from source.

SGLang 0.5.23 has no wheel of that build. The layers have a native forward beside the fused one, and the scale and shift
a fallback that other platforms take; all compute the same. torch would compile the native forwards, once a process.
"""

# mypy: allow-untyped-calls
from __future__ import annotations

import importlib
from typing import Any

import torch

FOR = "no GPU"
OPERATORS = "sglang.kernels.ops.diffusion"


def apply() -> None:
    """The scale and shift first, as the layers import it."""
    torch._dynamo.config.disable = True
    fallback: Any = importlib.import_module(f"{OPERATORS}.common.fallback_torch")
    vars(importlib.import_module(f"{OPERATORS}.modulate.scale_shift_triton")).update(
        fuse_scale_shift_kernel=fallback.fuse_scale_shift_kernel_native
    )
    layers: Any = importlib.import_module("sglang.multimodal_gen.runtime.layers.layernorm")
    for layer in (layers._NormScaleShift, layers._ScaleResidualNormScaleShift):
        layer.forward_cpu = layer.forward_native
