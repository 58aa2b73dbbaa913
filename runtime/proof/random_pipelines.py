"""Small pipelines of random weights, of the classes that no embedded model has, in diffusers' own folders.

Ranks must compute of them what one rank does; what they draw means nothing.
"""

# mypy: allow-untyped-calls
from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from runtime.models import FAMILIES, random_parts
from runtime.pipeline.load import FOLDERS
from runtime.proof import small_pipelines
from runtime.proof.adapter import adapter as adapter

#: What builds each class.
PIPELINES = {name: builder for family in FAMILIES for name, builder in family.random.items()}


def build(pipeline: str, folder: Path) -> Path:
    """Save the pipeline of a class into ``folder``, the same weights each time.

    Raises:
        KeyError: the class is none of ``PIPELINES``, nor of those beside them.
    """
    transformers.logging.set_verbosity_error()  # the configs here name no tokens for a beginning and an end
    transformers.logging.disable_progress_bar()
    diffusers.logging.disable_progress_bar()
    torch.manual_seed(0)
    pipe = (PIPELINES | small_pipelines.PIPELINES)[pipeline]()
    for name, layer in pipe.transformer.named_modules():
        if name.endswith("to_v"):  # or attention would hardly matter, and a picture not show whether it is right
            layer.weight.data *= 100
    pipe.save_pretrained(folder)
    return folder


def transformer_of(source: str) -> Any:
    """The transformer of a diffusers folder, or of an embedded model."""
    return diffusers.AutoModel.from_pretrained(str(FOLDERS.get(source, source)), subfolder="transformer")


def build_large(folder: Path) -> Path:
    """Save a Z-Image of 480 MB in float32: its weights outweigh libraries, in ``planner.judge_memory_cpu``.

    The VAE has the published layers with a quarter of their channels, and tiles of 256 pixels.
    """
    torch.manual_seed(0)
    diffusers.logging.disable_progress_bar()
    transformers.logging.disable_progress_bar()
    transformer = diffusers.ZImageTransformer2DModel(
        in_channels=16, dim=1024, n_layers=4, n_refiner_layers=1, n_heads=8, n_kv_heads=8, cap_feat_dim=768
    )
    encoder = transformers.Qwen3Config(
        vocab_size=len(random_parts.vocabulary()),
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=6,
        head_dim=128,
    )
    vae = diffusers.AutoencoderKL(
        latent_channels=16,
        block_out_channels=(32, 64, 128, 128),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        norm_num_groups=8,
        sample_size=256,
        scaling_factor=0.5,
        shift_factor=0.1,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    diffusers.ZImagePipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae,
        text_encoder=transformers.Qwen3Model(encoder),
        tokenizer=random_parts.byte_tokenizer(),
        transformer=transformer,
    ).save_pretrained(folder)
    return folder
