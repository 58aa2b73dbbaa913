"""FLUX.2: blocks of two streams, then blocks of one; dev has a Mistral encoder, klein a Qwen3."""

# mypy: allow-untyped-calls
from __future__ import annotations

from typing import Any

import diffusers
import torch
import transformers

from runtime.models import random_parts as parts

#: The pipelines take the states after some layers, of which the last is the 30th of dev's encoder, the 27th of klein's.
LAYERS = {"dev": 31, "klein": 31}
TEXT = 3 * 32  # channels: those of three layers


def flux_2() -> Any:
    """Distilled guidance, as dev."""
    text = {**_encoder("dev"), "num_key_value_heads": 2, "head_dim": 16}
    vision = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config: Any = transformers.Mistral3Config(
        text_config=transformers.MistralConfig(**text),
        vision_config=transformers.PixtralVisionConfig(**vision, image_size=56, patch_size=14),
        image_token_index=parts.vocabulary()["<|image_pad|>"],
    )
    tokenizer = parts.byte_tokenizer()  # dev's processor has one inside, and its own class needs torchvision
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{m.role}}\n"
        "{% for c in m.content %}{{c.text}}{% endfor %}<|im_end|>\n{% endfor %}"
    )
    return diffusers.Flux2Pipeline(
        **_parts(guidance=True),
        text_encoder=transformers.Mistral3ForConditionalGeneration(config),
        tokenizer=tokenizer,
    )


def flux_2_klein() -> Any:
    """Distilled to few steps, without guidance."""
    config = transformers.Qwen3Config(**_encoder("klein"), num_key_value_heads=2, head_dim=16)
    return diffusers.Flux2KleinPipeline(
        **_parts(guidance=False),
        text_encoder=transformers.Qwen3ForCausalLM(config),
        tokenizer=parts.byte_tokenizer(),
        is_distilled=True,
    )


def _encoder(model: str) -> dict[str, Any]:
    return {"vocab_size": len(parts.vocabulary()), **parts.ENCODER, "num_hidden_layers": LAYERS[model]}


def _parts(guidance: bool) -> dict[str, Any]:
    transformer = diffusers.Flux2Transformer2DModel(
        in_channels=16,
        num_layers=4,
        num_single_layers=6,
        attention_head_dim=16,
        num_attention_heads=4,
        joint_attention_dim=TEXT,
        timestep_guidance_channels=32,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=guidance,
    )
    width = 4 * 16
    for block in transformer.single_transformer_blocks:  # or attention would hardly matter
        block.attn.to_qkv_mlp_proj.weight.data[2 * width : 3 * width] *= 100
    torch.manual_seed(1)
    vae = diffusers.AutoencoderKLFlux2(
        latent_channels=4,
        block_out_channels=(8,) * 4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=64,
    )
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    return {"transformer": transformer, "vae": vae, "scheduler": scheduler}
