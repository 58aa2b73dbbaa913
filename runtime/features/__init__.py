"""One module a feature, each with the same four functions; ``runtime.apply.Feature`` describes them."""

from __future__ import annotations

from typing import Any


def transformers(pipe: Any) -> list[Any]:
    """The diffusion transformers of a pipeline: one, or, in Wan 2.2, two that take turns."""
    return [pipe.transformer, *([pipe.transformer_2] if getattr(pipe, "transformer_2", None) is not None else [])]
