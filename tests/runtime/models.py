"""Small pipelines with random weights, one a family, in diffusers' own folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from runtime.models.chroma import chroma
from runtime.models.cog_video_x import cog_video_x, cog_video_x_image
from runtime.models.flux import flux, flux_fill, flux_kontext
from runtime.models.qwen_image import qwen_image_edit, qwen_image_edit_plus, qwen_image_parts
from runtime.models.qwen_image_2_1 import qwen_image_2_1
from runtime.models.random_parts import ENCODER, autoencoder_kl, byte_tokenizer, vocabulary
from runtime.models.sana import sana
from runtime.models.wan import wan, wan_image_to_video, wan_transformer, wan_vace, wan_vae
from runtime.proof.random_pipelines import adapter
from runtime.proof.small_pipelines import PIPELINES as SMALL

__all__ = ["FAMILIES", "PIPELINES", "adapter", "build", "byte_tokenizer"]


def build(family: str, folder: Path) -> Path:
    """Save the pipeline of a family into ``folder / family``, the same weights each time."""
    torch.manual_seed(0)
    FAMILIES[family]().save_pretrained(folder / family)
    return folder / family


def z_image(levels: int = 4) -> Any:
    """Four heads, so that TP 2 and Ulysses 2 go together; two refiner layers, as the real one."""
    transformer = diffusers.ZImageTransformer2DModel(
        all_patch_size=(2,),
        all_f_patch_size=(1,),
        in_channels=4,
        dim=96,
        n_layers=4,
        n_refiner_layers=2,
        n_heads=4,
        n_kv_heads=4,
        cap_feat_dim=32,
        axes_dims=[8, 8, 8],
        axes_lens=[256, 64, 64],
    )
    return diffusers.ZImagePipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=autoencoder_kl(levels, tile=32 if levels == 4 else 512),
        text_encoder=transformers.Qwen3Model(
            transformers.Qwen3Config(vocab_size=len(vocabulary()), **ENCODER, num_key_value_heads=2, head_dim=16)
        ),
        tokenizer=byte_tokenizer(),
        transformer=transformer,
    )


def qwen_image() -> Any:
    return diffusers.QwenImagePipeline(**qwen_image_parts())


def large_z_image() -> Any:
    """For large pictures: a latent of the VAE stands for 32 x 32 pixels, as its decoder has six levels."""
    return z_image(levels=6)


def large_qwen_image() -> Any:
    return diffusers.QwenImagePipeline(**qwen_image_parts(levels=6))


def large_qwen_image_edit() -> Any:
    return qwen_image_edit(levels=6)


def wan_two() -> Any:
    """Two transformers that take turns, as Wan 2.2."""
    return wan(transformer_2=wan_transformer(), boundary_ratio=0.9)


def wan_5b() -> Any:
    """A time of its own for each token, and a VAE that puts pixels together, as Wan 2.2 TI2V."""
    vae = wan_vae(
        z_dim=4,
        dim_mult=[1, 1, 1, 1],
        in_channels=12,
        out_channels=12,
        patch_size=2,
        is_residual=True,
        scale_factor_spatial=16,
        decoder_base_dim=8,
    )
    return wan(vae=vae, expand_timesteps=True)


FAMILIES = {
    builder.__name__: builder
    for builder in (
        z_image,
        qwen_image,
        qwen_image_edit,
        qwen_image_edit_plus,
        flux,
        wan,
        wan_two,
        wan_5b,
        large_z_image,
        large_qwen_image,
        large_qwen_image_edit,
        flux_kontext,
        flux_fill,
        chroma,
        wan_image_to_video,
        wan_vace,
        sana,
        cog_video_x,
        cog_video_x_image,
        qwen_image_2_1,
        *SMALL.values(),
    )
}

#: The pipeline class of each family.
PIPELINES = {
    "z_image": "ZImagePipeline",
    "qwen_image": "QwenImagePipeline",
    "qwen_image_edit": "QwenImageEditPipeline",
    "qwen_image_edit_plus": "QwenImageEditPlusPipeline",
    "flux": "FluxPipeline",
    "wan": "WanPipeline",
    "wan_two": "WanPipeline",
    "wan_5b": "WanPipeline",
    "flux_kontext": "FluxKontextPipeline",
    "flux_fill": "FluxFillPipeline",
    "chroma": "ChromaPipeline",
    "wan_image_to_video": "WanImageToVideoPipeline",
    "wan_vace": "WanVACEPipeline",
    "sana": "SanaPipeline",
    "cog_video_x": "CogVideoXPipeline",
    "cog_video_x_image": "CogVideoXImageToVideoPipeline",
    "qwen_image_2_1": "QwenImage21Pipeline",
    **{builder.__name__: name for name, builder in SMALL.items()},
}
