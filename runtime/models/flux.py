"""FLUX.1: blocks of two streams, then blocks of one; a T5 encoder beside a CLIP, which is small."""

# mypy: allow-untyped-calls
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runtime.models.family import Family, tokens_out

if TYPE_CHECKING:
    import torch


def _modulated_input(block: Any, hidden_states: torch.Tensor, temb: torch.Tensor, **_: Any) -> Any:
    return block.norm1(hidden_states, emb=temb)[0]


def flux(tile: int = 32) -> Any:
    """Distilled guidance, as FLUX.1-dev. ``tile``: pixels of a tile of the decoder."""
    import diffusers
    import transformers

    from runtime.models import random_parts as parts

    clip = {"vocab_size": len(parts.vocabulary()), **parts.ENCODER, "max_position_embeddings": 77, "projection_dim": 32}
    transformer = diffusers.FluxTransformer2DModel(
        in_channels=16,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=4,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        guidance_embeds=True,
        axes_dims_rope=(4, 6, 6),
    )
    return diffusers.FluxPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=parts.autoencoder_kl(tile=tile),
        text_encoder=transformers.CLIPTextModel(transformers.CLIPTextConfig(**clip)),
        tokenizer=parts.byte_tokenizer(77),
        text_encoder_2=transformers.T5EncoderModel(transformers.T5Config(**parts.T5)),
        tokenizer_2=parts.byte_tokenizer(),
        transformer=transformer,
    )


FAMILY = Family(
    transformer="FluxTransformer2DModel",
    blocks=("transformer_blocks", "single_transformer_blocks"),
    image_tokens="hidden_states",
    text_tokens="encoder_hidden_states",
    output_shape=tokens_out,
    modulated_input=_modulated_input,
    text_encoder="text_encoder_2",
    random={"FluxPipeline": lambda: flux(tile=64)},
)
