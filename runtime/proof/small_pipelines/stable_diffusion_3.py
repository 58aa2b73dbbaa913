"""Stable Diffusion 3.5: blocks of two streams; two CLIP encoders and a T5."""

# mypy: allow-untyped-calls
from __future__ import annotations

from typing import Any

import diffusers
import transformers

from runtime.models import random_parts as parts


def stable_diffusion_3() -> Any:
    """As large: queries and keys are normalized, and no block attends twice."""
    clip = {"vocab_size": len(parts.vocabulary()), **parts.ENCODER, "max_position_embeddings": 77, "projection_dim": 32}
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        num_layers=6,
        attention_head_dim=16,
        num_attention_heads=4,
        joint_attention_dim=64,
        caption_projection_dim=64,
        pooled_projection_dim=64,
        pos_embed_max_size=64,
        qk_norm="rms_norm",
    )
    return diffusers.StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=parts.autoencoder_kl(tile=64),
        text_encoder=transformers.CLIPTextModelWithProjection(transformers.CLIPTextConfig(**clip)),
        tokenizer=parts.byte_tokenizer(77),
        text_encoder_2=transformers.CLIPTextModelWithProjection(transformers.CLIPTextConfig(**clip)),
        tokenizer_2=parts.byte_tokenizer(77),
        text_encoder_3=transformers.T5EncoderModel(transformers.T5Config(**{**parts.T5, "d_model": 64})),
        tokenizer_3=parts.byte_tokenizer(),
    )
