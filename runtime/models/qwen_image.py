"""Qwen-Image and its editing pipelines: two streams of tokens, and two calls of guidance a step."""

# mypy: allow-untyped-calls
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runtime import compat
from runtime.models.family import Family, tokens_out

if TYPE_CHECKING:
    import torch


def _modulated_input(
    block: Any, hidden_states: torch.Tensor, temb: torch.Tensor, modulate_index: Any = None, **_: Any
) -> Any:
    modulation = block.img_mod(temb).chunk(2, dim=-1)[0]
    return block._modulate(block.img_norm1(hidden_states), modulation, modulate_index)[0]


def qwen_image_edit(levels: int = 4) -> Any:
    """For input pictures of a million pixels, which the pipeline makes of any, ``levels`` should be 6."""
    import diffusers

    return diffusers.QwenImageEditPipeline(**qwen_image_parts(levels), processor=qwen_processor(levels))


def qwen_image_edit_plus(levels: int = 4) -> Any:
    """Of several input pictures."""
    import diffusers

    return diffusers.QwenImageEditPlusPipeline(**qwen_image_parts(levels), processor=qwen_processor(levels))


def qwen_image_parts(levels: int = 4) -> dict[str, Any]:
    """What the pipelines have in common. A latent stands for 8 pixels in each direction, or, of six levels, for 32."""
    import diffusers
    import transformers

    from runtime.models import random_parts as parts

    text: dict[str, Any] = {"vocab_size": len(parts.vocabulary()), **parts.ENCODER, "num_key_value_heads": 2}
    text["rope_parameters"] = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
    tokens: dict[str, Any] = {
        name: parts.vocabulary()[f"<|{name[:-9]}|>".replace("image", "image_pad").replace("video", "video_pad")]
        for name in ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    }
    vision = {"depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 32}
    config = transformers.Qwen2_5_VLConfig(text_config=text, vision_config=vision, **tokens)
    transformer = diffusers.QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=3 if levels == 4 else 2,
        attention_head_dim=16,
        num_attention_heads=4,
        joint_attention_dim=32,
        axes_dims_rope=(4, 6, 6),
    )
    vae: Any = diffusers.AutoencoderKLQwenImage(
        base_dim=8 if levels == 4 else 2,
        z_dim=4,
        dim_mult=[1] * levels,
        num_res_blocks=1 if levels == 4 else 0,
        temperal_downsample=[False, True, True] + [False] * (levels - 4),
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    )
    if levels > 4:  # or the biases of its layers would decide the picture, whatever the latents are
        vae.decoder.conv_in.weight.data *= 100
    return {
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        "vae": vae,
        "text_encoder": transformers.Qwen2_5_VLForConditionalGeneration(config),
        "tokenizer": parts.byte_tokenizer(),
        "transformer": transformer,
    }


def qwen_processor(levels: int) -> Any:
    """The text encoder sees a million pixels of an input picture, at most, or, of six levels, 64 x 64."""
    import transformers

    from runtime.models import random_parts as parts

    pixels = 2**20 if levels == 4 else 64 * 64
    compat.diffusers.processor_without_video()
    eye = transformers.Qwen2VLImageProcessorPil(size={"shortest_edge": 56 * 56, "longest_edge": pixels})
    return transformers.Qwen2VLProcessor(eye, parts.byte_tokenizer())


FAMILY = Family(
    transformer="QwenImageTransformer2DModel",
    blocks=("transformer_blocks",),
    image_tokens="hidden_states",
    text_tokens="encoder_hidden_states",
    output_shape=tokens_out,
    modulated_input=_modulated_input,
    heads_stay=True,
    random={
        "QwenImageEditPipeline": lambda: qwen_image_edit(levels=6),
        "QwenImageEditPlusPipeline": lambda: qwen_image_edit_plus(levels=6),
    },
)
