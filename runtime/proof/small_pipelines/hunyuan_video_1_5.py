"""HunyuanVideo 1.5: videos; blocks of two streams, and two calls of guidance a step."""

# mypy: allow-untyped-calls
from __future__ import annotations

from typing import Any

import diffusers
import transformers
from diffusers.guiders import ClassifierFreeGuidance

from runtime.models import random_parts as parts


def hunyuan_video_15() -> Any:
    """From a text."""
    text = {"vocab_size": len(parts.vocabulary()), **parts.ENCODER, "num_hidden_layers": 4, "num_key_value_heads": 2}
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
    transformer = diffusers.HunyuanVideo15Transformer3DModel(
        in_channels=9,  # latents, those of an input picture, and where there is one
        out_channels=4,
        num_attention_heads=4,
        attention_head_dim=16,
        num_layers=6,  # more than the five that xDiT computes in each step by itself
        num_refiner_layers=1,
        text_embed_dim=32,
        text_embed_2_dim=32,
        image_embed_dim=32,
        rope_axes_dim=(4, 6, 6),
        target_size=64,
        task_type="t2v",
    )
    return diffusers.HunyuanVideo15Pipeline(
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=5.0),
        vae=diffusers.AutoencoderKLHunyuanVideo15(
            latent_channels=4,
            block_out_channels=(8, 8, 8, 8),
            layers_per_block=1,
            spatial_compression_ratio=8,
            temporal_compression_ratio=4,
        ),
        text_encoder=transformers.Qwen2_5_VLTextModel(transformers.Qwen2_5_VLTextConfig(**text, rope_parameters=rope)),
        tokenizer=parts.byte_tokenizer(),
        text_encoder_2=transformers.T5EncoderModel(transformers.T5Config(**parts.T5)),
        tokenizer_2=parts.byte_tokenizer(),
        guider=ClassifierFreeGuidance(guidance_scale=6.0),
    )
