"""SANA: linear attention to the image, the text by cross-attention; guidance is one call with the batch doubled."""

# mypy: allow-untyped-calls
from __future__ import annotations

from typing import Any

from runtime.models.family import Family, latents_out


def sana() -> Any:
    """A latent stands for 8 pixels in each direction."""
    import diffusers
    import transformers

    from runtime.models import random_parts as parts

    text = {"vocab_size": len(parts.vocabulary()), **parts.ENCODER, "num_key_value_heads": 2, "head_dim": 16}
    levels = 4
    transformer = diffusers.SanaTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=4,
        attention_head_dim=16,
        num_layers=3,
        num_cross_attention_heads=4,
        cross_attention_head_dim=16,
        cross_attention_dim=64,
        caption_channels=32,
    )
    return diffusers.SanaPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=diffusers.AutoencoderDC(
            latent_channels=4,
            attention_head_dim=4,
            encoder_block_out_channels=(8,) * levels,
            decoder_block_out_channels=(8,) * levels,
            encoder_layers_per_block=(1,) * levels,
            decoder_layers_per_block=(1,) * levels,
            encoder_qkv_multiscales=((),) * levels,
            decoder_qkv_multiscales=((),) * levels,
            scaling_factor=0.5,
        ),
        text_encoder=transformers.Gemma2Model(transformers.Gemma2Config(**text)),
        tokenizer=parts.byte_tokenizer(),
        transformer=parts.calmed(transformer),
    )


FAMILY = Family(
    transformer="SanaTransformer2DModel",
    blocks=("transformer_blocks",),
    image_tokens="hidden_states",
    text_tokens=None,
    output_shape=latents_out,
    batched_arguments=("hidden_states", "encoder_hidden_states", "encoder_attention_mask", "timestep"),
    # Or it would make another size.
    call={"SanaPipeline": lambda _, arguments: arguments | {"use_resolution_binning": False}},
    random={"SanaPipeline": sana},
)
