"""Stable Diffusion 3.5: blocks of two streams; two CLIP encoders and a T5; guidance is one call of both branches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runtime.models.family import Family, latents_out

if TYPE_CHECKING:
    import torch


def _modulated_input(block: Any, hidden_states: torch.Tensor, temb: torch.Tensor, **_: Any) -> Any:
    return block.norm1(hidden_states, emb=temb)[0]


FAMILY = Family(
    transformer="SD3Transformer2DModel",
    blocks=("transformer_blocks",),
    image_tokens="hidden_states",
    text_tokens="encoder_hidden_states",
    output_shape=latents_out,
    modulated_input=_modulated_input,
    batched_arguments=("hidden_states", "timestep", "encoder_hidden_states", "pooled_projections"),
    text_encoder="text_encoder_3",
)
