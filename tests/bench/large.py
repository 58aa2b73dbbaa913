"""Pipelines of random weights that outweigh the libraries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

#: The published layers of Z-Image's VAE with a quarter of their channels, and tiles of 256 pixels.
VAE: dict[str, Any] = {
    "latent_channels": 16,
    "block_out_channels": (32, 64, 128, 128),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "norm_num_groups": 8,
    "sample_size": 256,
    "scaling_factor": 0.5,
    "shift_factor": 0.1,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}


def z_image(
    folder: Path, *, width: int, layers: int, text_width: int, text_layers: int, vae: dict[str, Any] | None = None
) -> None:
    """Save a Z-Image with heads of 128 channels, in torch's default type; without ``vae`` the small decoder."""
    import diffusers
    import torch
    import transformers

    from runtime.models import random_parts as parts

    diffusers.logging.disable_progress_bar()
    transformers.logging.disable_progress_bar()
    torch.manual_seed(0)
    decoder = diffusers.AutoencoderKL(**vae) if vae else parts.autoencoder_kl()
    heads, text_heads = width // 128, text_width // 128
    transformer = diffusers.ZImageTransformer2DModel(
        in_channels=decoder.config.latent_channels,
        dim=width,
        n_layers=layers,
        n_refiner_layers=1,
        n_heads=heads,
        n_kv_heads=heads,
        cap_feat_dim=text_width,
    )
    encoder = transformers.Qwen3Config(
        vocab_size=len(parts.vocabulary()),
        hidden_size=text_width,
        intermediate_size=4 * text_width,
        num_hidden_layers=text_layers,
        num_attention_heads=text_heads,
        num_key_value_heads=text_heads,
        head_dim=128,
    )
    diffusers.ZImagePipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=decoder,
        text_encoder=transformers.Qwen3Model(encoder),
        tokenizer=parts.byte_tokenizer(),
        transformer=transformer,
    ).save_pretrained(folder)
