"""Chroma: FLUX.1 with masked text, a small network in the place of the blocks' modulation, and guidance."""

# mypy: allow-untyped-calls
from __future__ import annotations

from typing import Any

from runtime.models.family import Family, tokens_out


def chroma() -> Any:
    """With a T5 encoder alone."""
    import diffusers
    import transformers

    from runtime.models import random_parts as parts

    transformer = diffusers.ChromaTransformer2DModel(
        in_channels=16,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=4,
        joint_attention_dim=32,
        axes_dims_rope=(4, 6, 6),
        approximator_num_channels=16,
        approximator_hidden_dim=32,
        approximator_layers=1,
    )
    return diffusers.ChromaPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=parts.autoencoder_kl(tile=64),
        text_encoder=transformers.T5EncoderModel(transformers.T5Config(**parts.T5)),
        tokenizer=parts.byte_tokenizer(),
        transformer=transformer,
    )


FAMILY = Family(
    transformer="ChromaTransformer2DModel",
    blocks=("transformer_blocks", "single_transformer_blocks"),
    image_tokens="hidden_states",
    text_tokens="encoder_hidden_states",
    output_shape=tokens_out,
    mask="attention_mask",
    masked=True,
    without_contexts=("ChromaPipeline",),
    random={"ChromaPipeline": chroma},
)
