"""HunyuanVideo 1.5: videos; blocks of two streams, masked text, and two calls of guidance a step, by a guider."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runtime.models.family import Family, latents_out

if TYPE_CHECKING:
    import torch


def _modulated_input(block: Any, hidden_states: torch.Tensor, temb: torch.Tensor, **_: Any) -> Any:
    return block.norm1(hidden_states, emb=temb)[0]


FAMILY = Family(
    transformer="HunyuanVideo15Transformer3DModel",
    blocks=("transformer_blocks",),
    image_tokens="hidden_states",
    text_tokens="encoder_hidden_states",
    image_comes_first=True,
    masked=True,
    output_shape=latents_out,
    modulated_input=_modulated_input,
)
