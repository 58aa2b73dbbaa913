"""Small pipelines with random weights, one a family, in diffusers' own folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

SPECIAL = (
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<think>",
    "</think>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)


def build(family: str, folder: Path) -> Path:
    """Save the pipeline of a family into ``folder / family``, the same weights each time."""
    torch.manual_seed(0)
    FAMILIES[family]().save_pretrained(folder / family)
    return folder / family


def z_image() -> Any:
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
        vae=autoencoder_kl(),
        text_encoder=transformers.Qwen3Model(
            transformers.Qwen3Config(vocab_size=len(vocabulary()), **ENCODER, num_key_value_heads=2, head_dim=16)
        ),
        tokenizer=byte_tokenizer(),
        transformer=transformer,
    )


def qwen_image() -> Any:
    parts = qwen_image_parts()
    return diffusers.QwenImagePipeline(**parts)


def qwen_image_parts() -> dict[str, Any]:
    text = {"vocab_size": len(vocabulary()), **ENCODER, "num_key_value_heads": 2}
    text["rope_parameters"] = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
    tokens = {
        name: vocabulary()[f"<|{name[:-9]}|>".replace("image", "image_pad").replace("video", "video_pad")]
        for name in ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    }
    vision = {"depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 32}
    config = transformers.Qwen2_5_VLConfig(text_config=text, vision_config=vision, **tokens)
    transformer = diffusers.QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=3,
        attention_head_dim=16,
        num_attention_heads=4,
        joint_attention_dim=32,
        axes_dims_rope=(4, 6, 6),
    )
    return {
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        "vae": diffusers.AutoencoderKLQwenImage(
            base_dim=8, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, latents_mean=[0.0] * 4, latents_std=[1.0] * 4
        ),
        "text_encoder": transformers.Qwen2_5_VLForConditionalGeneration(config),
        "tokenizer": byte_tokenizer(),
        "transformer": transformer,
    }


ENCODER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


def autoencoder_kl() -> Any:
    return diffusers.AutoencoderKL(
        latent_channels=4,
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=64,
        scaling_factor=0.5,
        shift_factor=0.1,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def vocabulary() -> dict[str, int]:
    names = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *SPECIAL]
    return {name: number for number, name in enumerate(names)}


def byte_tokenizer() -> Any:
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary(), merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=SPECIAL[1], pad_token=SPECIAL[2], additional_special_tokens=list(SPECIAL)
    )
    fast.chat_template = (
        "{% for m in messages %}<|im_start|>{{m.role}}\n{{m.content}}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    return fast


FAMILIES = {"z_image": z_image, "qwen_image": qwen_image}
