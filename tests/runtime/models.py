"""Small pipelines with random weights, one a family, in diffusers' own folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from runtime import compat

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


def adapter(transformer: Any, folder: Path, seed: int = 0, rank: int = 4) -> Path:
    """Save a LoRA adapter of random weights for the attention and the feed-forward of a transformer."""
    from peft import LoraConfig, get_peft_model_state_dict

    torch.manual_seed(seed)
    layers = r".*(to_[qkv]|to_out\.0|w[13]|net\.2|single_transformer_blocks\.\d+\.proj_(mlp|out))"
    transformer.add_adapter(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=layers, init_lora_weights=False))
    weights = {f"transformer.{key}": weight for key, weight in get_peft_model_state_dict(transformer).items()}
    transformer.delete_adapters("default")
    path = folder / f"lora-{seed}.safetensors"
    save_file({key: weight.contiguous() for key, weight in weights.items()}, path)
    return path


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
        vae=autoencoder_kl(levels),
        text_encoder=transformers.Qwen3Model(
            transformers.Qwen3Config(vocab_size=len(vocabulary()), **ENCODER, num_key_value_heads=2, head_dim=16)
        ),
        tokenizer=byte_tokenizer(),
        transformer=transformer,
    )


def qwen_image() -> Any:
    return diffusers.QwenImagePipeline(**qwen_image_parts())


def qwen_image_edit() -> Any:
    return diffusers.QwenImageEditPipeline(**qwen_image_parts(), processor=qwen_processor())


def qwen_image_edit_plus() -> Any:
    return diffusers.QwenImageEditPlusPipeline(**qwen_image_parts(), processor=qwen_processor())


def large_z_image() -> Any:
    """For large pictures: a latent of the VAE stands for 32 x 32 pixels, as its decoder has six levels."""
    return z_image(levels=6)


def large_qwen_image() -> Any:
    return diffusers.QwenImagePipeline(**qwen_image_parts(levels=6))


def large_qwen_image_edit() -> Any:
    return diffusers.QwenImageEditPipeline(**qwen_image_parts(levels=6), processor=qwen_processor(64 * 64))


def qwen_image_parts(levels: int = 4) -> dict[str, Any]:
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
        num_layers=3 if levels == 4 else 2,
        attention_head_dim=16,
        num_attention_heads=4,
        joint_attention_dim=32,
        axes_dims_rope=(4, 6, 6),
    )
    return {
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        "vae": diffusers.AutoencoderKLQwenImage(
            base_dim=8 if levels == 4 else 2,
            z_dim=4,
            dim_mult=[1] * levels,
            num_res_blocks=1 if levels == 4 else 0,
            temperal_downsample=[False, True, True] + [False] * (levels - 4),
            latents_mean=[0.0] * 4,
            latents_std=[1.0] * 4,
        ),
        "text_encoder": transformers.Qwen2_5_VLForConditionalGeneration(config),
        "tokenizer": byte_tokenizer(),
        "transformer": transformer,
    }


def qwen_processor(pixels: int = 2**20) -> Any:
    """``pixels`` of an input picture that the text encoder sees, at most."""
    compat.processor_without_video()
    eye = transformers.Qwen2VLImageProcessorPil(size={"shortest_edge": 56 * 56, "longest_edge": pixels})
    return transformers.Qwen2VLProcessor(eye, byte_tokenizer())


def flux() -> Any:
    """Distilled guidance, as FLUX.1-dev."""
    clip = {"vocab_size": len(vocabulary()), **ENCODER, "max_position_embeddings": 77, "projection_dim": 32}
    transformer = diffusers.FluxTransformer2DModel(
        in_channels=16,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=4,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        guidance_embeds=True,
        axes_dims_rope=(4, 6, 6),
    )
    return diffusers.FluxPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=autoencoder_kl(),
        text_encoder=transformers.CLIPTextModel(transformers.CLIPTextConfig(**clip)),
        tokenizer=byte_tokenizer(77),
        text_encoder_2=transformers.T5EncoderModel(transformers.T5Config(**T5)),
        tokenizer_2=byte_tokenizer(),
        transformer=transformer,
    )


def wan(**changes: Any) -> Any:
    """One transformer, as Wan 2.1."""
    return diffusers.WanPipeline(
        **{
            "tokenizer": byte_tokenizer(),
            "text_encoder": transformers.UMT5EncoderModel(transformers.UMT5Config(**T5)),
            "vae": wan_vae(z_dim=4, dim_mult=[1, 1, 1, 1]),
            "scheduler": diffusers.UniPCMultistepScheduler(
                prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
            ),
            "transformer": wan_transformer(),
            **changes,
        }
    )


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


def wan_transformer() -> Any:
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
    return diffusers.AutoencoderKLWan(
        base_dim=8, num_res_blocks=1, latents_mean=[0.0] * 4, latents_std=[1.0] * 4, **changes
    )


ENCODER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
T5 = {"vocab_size": 300, "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}


def autoencoder_kl(levels: int = 4) -> Any:
    return diffusers.AutoencoderKL(
        latent_channels=4,
        block_out_channels=(8,) * levels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=32 if levels == 4 else 512,  # of a tile
        scaling_factor=0.5,
        shift_factor=0.1,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def vocabulary() -> dict[str, int]:
    names = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *SPECIAL]
    return {name: number for number, name in enumerate(names)}


def byte_tokenizer(longest: int = 10_000) -> Any:
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary(), merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=longest,
        eos_token=SPECIAL[1],
        pad_token=SPECIAL[2],
        additional_special_tokens=list(SPECIAL),
    )
    fast.chat_template = (
        "{% for m in messages %}<|im_start|>{{m.role}}\n{{m.content}}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    return fast


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
}
