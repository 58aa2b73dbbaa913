"""LTX-2: videos with sound, in two stages; a model that doubles the latents, and an adapter for the second stage."""

# mypy: allow-untyped-calls
from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import transformers
from diffusers.pipelines.ltx2.connectors import LTX2TextConnectors
from diffusers.pipelines.ltx2.latent_upsampler import LTX2LatentUpsamplerModel
from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder
from safetensors.torch import load_file, save_file

from runtime.models import random_parts as parts
from runtime.proof.adapter import adapter

VIDEO = 128  # channels of the latents of a video, as published: SGLang's pipeline counts on them
CHANNELS = 16  # of those of a sound
ADAPTER = "ltx-2-19b-distilled-lora-384.safetensors"


def ltx_2() -> Any:
    """A latent stands for 8 pixels in each direction, and for 2 frames."""
    text = {"vocab_size": len(parts.vocabulary()), **parts.ENCODER, "num_key_value_heads": 2, "head_dim": 16}
    vision = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    gemma = transformers.Gemma3Config(
        text_config=transformers.Gemma3TextConfig(**text),
        vision_config=transformers.SiglipVisionConfig(**vision, image_size=28, patch_size=14),
        mm_tokens_per_image=4,
    )
    transformer = diffusers.LTX2VideoTransformer3DModel(
        in_channels=VIDEO,
        out_channels=VIDEO,
        num_attention_heads=4,
        attention_head_dim=16,
        cross_attention_dim=64,
        vae_scale_factors=(2, 8, 8),
        audio_in_channels=CHANNELS,
        audio_out_channels=CHANNELS,
        audio_num_attention_heads=4,
        audio_attention_head_dim=8,
        audio_cross_attention_dim=32,
        num_layers=6,
        caption_channels=32,
        rope_type="split",
    )
    connector = {"num_attention_heads": 4, "attention_head_dim": 8, "num_layers": 1}
    return diffusers.LTX2Pipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift_terminal=0.1),
        vae=_video_vae(),
        audio_vae=_audio_vae(),
        text_encoder=transformers.Gemma3ForConditionalGeneration(gemma),
        tokenizer=parts.byte_tokenizer(),
        connectors=LTX2TextConnectors(
            caption_channels=32,
            text_proj_in_factor=text["num_hidden_layers"] + 1,
            **{f"video_connector_{name}": number for name, number in connector.items()},
            **{f"audio_connector_{name}": number for name, number in connector.items()},
            rope_type="split",
        ),
        transformer=transformer,
        vocoder=LTX2Vocoder(
            in_channels=2 * CHANNELS,
            hidden_channels=16,
            upsample_kernel_sizes=[4, 4],
            upsample_factors=[2, 2],
            resnet_kernel_sizes=[3],
            resnet_dilations=[[1]],
        ),
    )


def beside(pipe: Any, folder: Path) -> None:
    """What the second stage needs, and the text encoder's names."""
    doubling = LTX2LatentUpsamplerModel(in_channels=VIDEO, mid_channels=32, num_blocks_per_stage=1)
    doubling.save_pretrained(folder / "latent_upsampler")
    adapter(pipe.transformer, folder).rename(folder / ADAPTER)
    file = folder / "text_encoder" / "model.safetensors"
    weights = {
        name.replace("vision_tower.", "vision_tower.vision_model."): one for name, one in load_file(file).items()
    }
    save_file(weights, file, {"format": "pt"})  # under the names of the published one, which transformers shortens


def _video_vae() -> Any:
    return diffusers.AutoencoderKLLTX2Video(
        latent_channels=VIDEO,
        block_out_channels=(8,),
        down_block_types=("LTX2VideoDownBlock3D",),
        decoder_block_out_channels=(16,),
        layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        spatio_temporal_scaling=(True,),
        decoder_spatio_temporal_scaling=(True,),
        decoder_inject_noise=(False, False),
        downsample_type=("spatiotemporal",),
        upsample_type=("spatiotemporal",),
        upsample_residual=(True,),
        upsample_factor=(2,),
        spatial_compression_ratio=8,
        temporal_compression_ratio=2,
    )


def _audio_vae() -> Any:
    return diffusers.AutoencoderKLLTX2Audio(
        base_channels=CHANNELS, ch_mult=(1, 1, 1), num_res_blocks=1, latent_channels=4, mel_bins=16, resolution=16
    )
