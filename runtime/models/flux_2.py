"""FLUX.2: blocks of two streams, then blocks that have text and image in one."""

from __future__ import annotations

from typing import Any

from omni_config.plan import Plan
from runtime.models.family import Family, tokens_out


def _without_negative_prompt(_: Plan, arguments: dict[str, Any]) -> dict[str, Any]:
    """Neither pipeline takes one; klein's second branch has an empty prompt."""
    return {name: value for name, value in arguments.items() if name != "negative_prompt"}


FAMILY = Family(
    transformer="Flux2Transformer2DModel",
    blocks=("transformer_blocks", "single_transformer_blocks"),
    image_tokens="hidden_states",
    text_tokens="encoder_hidden_states",
    output_shape=tokens_out,
    call={"Flux2Pipeline": _without_negative_prompt, "Flux2KleinPipeline": _without_negative_prompt},
)
