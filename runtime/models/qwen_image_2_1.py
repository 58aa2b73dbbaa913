"""Qwen-Image 2.1: one sequence of text and image, whose text is computed in the first step and kept for the others."""

# mypy: allow-untyped-calls
from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

from runtime import compat
from runtime.models.family import Family

if TYPE_CHECKING:
    import torch


def _tokens_of_the_image(
    transformer: Any, tokens: torch.Tensor, img_shapes: list[list[tuple[int, int, int]]], **_: Any
) -> list[int]:
    """(batch, tokens, channels); those of the text and of input pictures come before, in the first step."""
    return [len(tokens), prod(img_shapes[0][-1]), transformer.proj_out.out_features]


def qwen_image_2_1() -> Any:
    """A latent stands for 16 pixels in each direction."""
    import diffusers
    import transformers

    from runtime.models import random_parts as parts

    vocabulary = parts.vocabulary()
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 2, 2]}
    text = {"vocab_size": len(vocabulary), **parts.ENCODER, "num_key_value_heads": 2, "head_dim": 16}
    vision = {"depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 32}
    tokens: dict[str, Any] = {
        "image_token_id": vocabulary["<|image_pad|>"],
        "video_token_id": vocabulary["<|video_pad|>"],
        "vision_start_token_id": vocabulary["<|vision_start|>"],
        "vision_end_token_id": vocabulary["<|vision_end|>"],
    }
    config = transformers.Qwen3VLConfig(
        text_config=text | {"rope_parameters": rope},
        vision_config=vision | {"deepstack_visual_indexes": [0], "num_position_embeddings": 64},
        **tokens,
    )
    compat.diffusers.processor_without_video()
    eye = transformers.Qwen2VLImageProcessorPil(
        size={"shortest_edge": 64 * 64, "longest_edge": 2**20}, patch_size=16, merge_size=2
    )
    says = "{% for part in m.content %}{{part.text}}{% endfor %}"
    talk = "{% for m in messages %}<|im_start|>{{m.role}}\n" + says + "<|im_end|>\n{% endfor %}"
    return diffusers.QwenImage21Pipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=diffusers.AutoencoderKLQwenImage21(
            base_dim=4,
            decoder_base_dim=4,
            z_dim=4,
            dim_mult=[1, 2, 2, 2, 2],
            num_res_blocks=1,
            latents_mean=[0.0] * 4,
            latents_std=[1.0] * 4,
        ),
        text_encoder=transformers.Qwen3VLForConditionalGeneration(config),
        processor=transformers.Qwen3VLProcessor(eye, parts.byte_tokenizer(), chat_template=talk),
        transformer=diffusers.QwenImage21Transformer2DModel(
            in_channels=4,
            out_channels=4,
            num_layers=3,
            attention_head_dim=16,
            num_attention_heads=4,
            context_in_dim=32,
            axes_dims_rope=(4, 6, 6),
        ),
    )


FAMILY = Family(
    transformer="QwenImage21Transformer2DModel",
    blocks=("transformer_blocks",),
    image_tokens="hidden_states",
    text_tokens=None,
    output_shape=_tokens_of_the_image,
    transparent=("QwenImage21Pipeline",),
    random={"QwenImage21Pipeline": qwen_image_2_1},
)
