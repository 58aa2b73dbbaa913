"""CogVideoX: videos; text and video are one sequence, and guidance is one call with the batch doubled."""

# mypy: allow-untyped-calls
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runtime.models.family import Family

if TYPE_CHECKING:
    import torch


def cog_video_x() -> Any:
    """From text."""
    import diffusers

    return diffusers.CogVideoXPipeline(**_parts())


def cog_video_x_image() -> Any:
    """From text and a first frame, whose latents come beside those of the video."""
    import diffusers

    return diffusers.CogVideoXImageToVideoPipeline(**_parts(in_channels=8))


def _parts(in_channels: int = 4) -> dict[str, Any]:
    """What both pipelines have in common."""
    import diffusers
    import transformers

    from runtime.models import random_parts as parts

    transformer = diffusers.CogVideoXTransformer3DModel(
        num_attention_heads=4,
        attention_head_dim=16,
        in_channels=in_channels,
        out_channels=4,
        time_embed_dim=32,
        text_embed_dim=32,
        num_layers=3,
        use_rotary_positional_embeddings=True,
    )
    vae = diffusers.AutoencoderKLCogVideoX(
        block_out_channels=(8,) * 4,
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=4,
        sample_height=480,
        sample_width=480,
        scaling_factor=0.5,
    )
    return {
        "tokenizer": parts.byte_tokenizer(),
        "text_encoder": transformers.T5EncoderModel(transformers.T5Config(**parts.T5)),
        "vae": vae,
        "transformer": parts.calmed(transformer, 0.15),
        "scheduler": diffusers.CogVideoXDPMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True),
    }


def _modulated_input(
    block: Any, hidden_states: torch.Tensor, encoder_hidden_states: torch.Tensor, temb: torch.Tensor, **_: Any
) -> Any:
    return block.norm1(hidden_states, encoder_hidden_states, temb)[0]


def _video_out(transformer: Any, video: torch.Tensor, **_: Any) -> list[int]:
    """(batch, frames, channels, height, width)."""
    return [*video.shape[:2], transformer.config.out_channels, *video.shape[3:]]


FAMILY = Family(
    transformer="CogVideoXTransformer3DModel",
    blocks=("transformer_blocks",),
    image_tokens="hidden_states",
    text_tokens="encoder_hidden_states",
    image_comes_first=True,
    output_shape=_video_out,
    modulated_input=_modulated_input,
    batched_arguments=("hidden_states", "encoder_hidden_states", "timestep"),
    random={"CogVideoXPipeline": cog_video_x, "CogVideoXImageToVideoPipeline": cog_video_x_image},
)
