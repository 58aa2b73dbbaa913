"""Kernels of a GPU by torch's own: those of layers, and attention with the logarithms of sums that Ring merges.

vLLM-Omni 0.30 has a plain form of each layer, for platforms that it has no kernel for.
"""

# mypy: allow-untyped-calls
from __future__ import annotations

import importlib
from typing import Any

import torch

FOR = "no GPU"


def _efficient(
    query: Any, key: Any, value: Any, attn_bias: Any, compute_log_sumexp: bool, dropout_p: float = 0.0,
    is_causal: bool = False, *, scale: Any = None,
) -> Any:  # fmt: skip
    assert attn_bias is None
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    output, sums = flash(query, key, value, dropout_p, is_causal, scale=scale)
    nothing = query.new_empty(0)
    return output, sums, nothing, nothing


def apply(omni: Any) -> None:
    """Before the import, torch's operator; after it, the layers."""
    global _library
    if omni is None:
        _library = torch.library.Library("aten", "IMPL", "CPU")  # kept, or its operator would go with it
        _library.impl("_scaled_dot_product_efficient_attention", _efficient)
        return
    layers: Any = importlib.import_module("vllm_omni.diffusion.layers.custom_op")
    layers.CustomOp.dispatch_forward = lambda self: self.forward_native
    linear: Any = importlib.import_module("vllm.model_executor.layers.utils")
    linear.dispatch_cpu_unquantized_gemm = _plain


def _plain(layer: Any, remove_weight: bool) -> None:
    """In the place of vLLM's packing of weights for the CPU, after which a layer has none."""
    layer.cpu_linear = torch.nn.functional.linear


_library: Any = None
