"""Wan: videos; Wan 2.2 has two transformers that take turns."""

# mypy: allow-untyped-calls
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runtime.models.family import Family

if TYPE_CHECKING:
    import torch


def _video_out(transformer: Any, video: torch.Tensor) -> list[int]:
    """(batch, channels, frames, height, width)."""
    return [len(video), transformer.config.out_channels, *video.shape[2:]]


def wan(**changes: Any) -> Any:
    """One transformer, as Wan 2.1."""
    import diffusers
    import transformers

    from runtime.models import random_parts as parts

    return diffusers.WanPipeline(
        **{
            "tokenizer": parts.byte_tokenizer(),
            "text_encoder": transformers.UMT5EncoderModel(transformers.UMT5Config(**parts.T5)),
            "vae": wan_vae(z_dim=4, dim_mult=[1, 1, 1, 1]),
            "scheduler": diffusers.UniPCMultistepScheduler(
                prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
            ),
            "transformer": wan_transformer(),
            **changes,
        }
    )


def wan_transformer() -> Any:
    """With the text by cross-attention."""
    import diffusers

    return diffusers.WanTransformer3DModel(
        num_attention_heads=4,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        text_dim=32,
        freq_dim=32,
        ffn_dim=128,
        num_layers=3,
        cross_attn_norm=True,
    )


def wan_vae(**changes: Any) -> Any:
    """Its latents need no rescaling."""
    import diffusers

    return diffusers.AutoencoderKLWan(
        base_dim=8, num_res_blocks=1, latents_mean=[0.0] * 4, latents_std=[1.0] * 4, **changes
    )


FAMILY = Family(
    transformer="WanTransformer3DModel",
    blocks=("blocks",),
    image_tokens="hidden_states",
    text_tokens=None,
    output_shape=_video_out,
    random={"WanPipeline": wan},
)
