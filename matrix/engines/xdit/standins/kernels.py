"""The attention kernels of a GPU, by torch's own of the CPU; each gives the logarithms of sums that Ring merges.

xDiT 0.6 and 0.7 take cuDNN's where torch has it, as every CUDA build does: a machine without it would get SDPA, which
has no such sums, and refuse Ring for a reason of its own.
"""

# mypy: allow-untyped-calls
from __future__ import annotations

from typing import Any

import torch

FOR = "no GPU"


def _attention(query: Any, key: Any, value: Any, dropout_p: float, is_causal: bool, scale: Any) -> tuple[Any, Any]:
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    output, sums = flash(query, key, value, dropout_p, is_causal, scale=scale)
    return output, sums


def _cudnn(
    query: Any, key: Any, value: Any, attn_bias: Any, compute_log_sumexp: bool, dropout_p: float = 0.0,
    is_causal: bool = False, return_debug_mask: bool = False, *, scale: Any = None,
) -> Any:  # fmt: skip
    assert attn_bias is None
    output, sums = _attention(query, key, value, dropout_p, is_causal, scale)
    return output, sums.unsqueeze(-1), None, None, 0, 0, _none(query), _none(query), _none(query)


def _flash(
    query: Any, key: Any, value: Any, dropout_p: float = 0.0, is_causal: bool = False, return_debug_mask: bool = False,
    *, scale: Any = None,
) -> Any:  # fmt: skip
    output, sums = _attention(query, key, value, dropout_p, is_causal, scale)
    return output, sums, _none(query), _none(query), 0, 0, _none(query), _none(query), _none(query)


def _efficient(
    query: Any, key: Any, value: Any, attn_bias: Any, compute_log_sumexp: bool, dropout_p: float = 0.0,
    is_causal: bool = False, *, scale: Any = None,
) -> Any:  # fmt: skip
    assert attn_bias is None
    output, sums = _attention(query, key, value, dropout_p, is_causal, scale)
    return output, sums, _none(query), _none(query)


def _none(like: Any) -> Any:
    return like.new_empty(0)


def apply(xfuser: Any) -> None:
    """Before the import: torch's own operators get the CPU's."""
    if xfuser is not None:
        return
    global _library
    _library = torch.library.Library("aten", "IMPL", "CPU")  # kept, or its operators would go with it
    _library.impl("_scaled_dot_product_cudnn_attention", _cudnn)
    _library.impl("_scaled_dot_product_flash_attention", _flash)
    _library.impl("_scaled_dot_product_efficient_attention", _efficient)
    torch.backends.cudnn.is_available = lambda: True


_library: Any = None
