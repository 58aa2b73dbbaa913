"""Which attention backend takes a recipe of quantized attention (tensorrt_llm/visual_gen/args.py@01dc259f)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: By backend: types of queries and keys, types of values, and the sizes of blocks of queries, keys and values.
_PLAIN, _WIDE, _SAGE, _LONG = (0, 0, 0), (0, 0, 1), ((1, 1, 1), (1, 4, 1)), (1, 16, 1)
RECIPES: dict[str, tuple[tuple[str, str, tuple[int, int, int]], ...]] = {
    "TRTLLM": (
        *(("int8", "fp8", blocks) for blocks in (*_SAGE, _LONG)),
        *(("fp8", "fp8", blocks) for blocks in _SAGE),
    ),
    "CUTEDSL": (
        ("bf16", "fp8", _PLAIN),
        *((qk, "fp8", blocks) for qk in ("mxfp8", "nvfp4") for blocks in (_PLAIN, _WIDE)),
    ),
    "FLASHINFER": (("mxfp8", "fp8", _PLAIN), ("nvfp4", "fp8", _PLAIN), ("nvfp4", "nvfp4", _PLAIN)),
}
#: Of them, those that return what ring and 2D attention merge by.
_MERGE = ("CUTEDSL",)


def backend_for(recipe: Mapping[str, Any], *, merges: bool) -> str | None:
    """The first backend that takes a recipe, or None; ``merges``: for ranks that merge partial results."""
    types = recipe["qk_dtype"], recipe["v_dtype"]
    asked = (*types, tuple(recipe[name] for name in ("q_block_size", "k_block_size", "v_block_size")))
    found = (name for name, known in RECIPES.items() if asked in known and (name in _MERGE or not merges))
    return next(found, None)
