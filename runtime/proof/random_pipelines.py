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
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from runtime import compat
from runtime.pipeline.load import FOLDERS

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


def build(pipeline: str, folder: Path) -> Path:
    """Save the pipeline of a class into ``folder``, the same weights each time.

    Raises:
        KeyError: the class is none of ``PIPELINES``.
    """
    transformers.logging.set_verbosity_error()  # the configs here name no tokens for a beginning and an end
    transformers.logging.disable_progress_bar()
    diffusers.logging.disable_progress_bar()
    torch.manual_seed(0)
    pipe = PIPELINES[pipeline]()
    for name, layer in pipe.transformer.named_modules():
        if name.endswith("to_v"):  # or attention would hardly matter, and a picture not show whether it is right
            layer.weight.data *= 100
    pipe.save_pretrained(folder)
    return folder


def transformer_of(source: str) -> Any:
    """The transformer of a diffusers folder, or of an embedded model."""
    return diffusers.AutoModel.from_pretrained(str(FOLDERS.get(source, source)), subfolder="transformer")


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


def qwen_image_edit(levels: int = 4) -> Any:
    """For input pictures of a million pixels, which the pipeline makes of any, ``levels`` should be 6."""
    return diffusers.QwenImageEditPipeline(**qwen_image_parts(levels), processor=qwen_processor(levels))


def qwen_image_edit_plus(levels: int = 4) -> Any:
    """Of several input pictures."""
    return diffusers.QwenImageEditPlusPipeline(**qwen_image_parts(levels), processor=qwen_processor(levels))


def qwen_image_parts(levels: int = 4) -> dict[str, Any]:
    """What the pipelines have in common. A latent stands for 8 pixels in each direction, or, of six levels, for 32."""
    text: dict[str, Any] = {"vocab_size": len(vocabulary()), **ENCODER, "num_key_value_heads": 2}
    text["rope_parameters"] = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
    tokens: dict[str, Any] = {
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
        "tokenizer": byte_tokenizer(),
        "transformer": transformer,
    }


def qwen_processor(levels: int) -> Any:
    """The text encoder sees a million pixels of an input picture, at most, or, of six levels, 64 x 64."""
    pixels = 2**20 if levels == 4 else 64 * 64
    compat.processor_without_video()
    eye = transformers.Qwen2VLImageProcessorPil(size={"shortest_edge": 56 * 56, "longest_edge": pixels})
    return transformers.Qwen2VLProcessor(eye, byte_tokenizer())


def flux(tile: int = 32) -> Any:
    """Distilled guidance, as FLUX.1-dev. ``tile``: pixels of a tile of the decoder."""
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
        vae=autoencoder_kl(tile=tile),
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


def wan_transformer() -> Any:
    """With the text by cross-attention."""
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
    return diffusers.AutoencoderKLWan(
        base_dim=8, num_res_blocks=1, latents_mean=[0.0] * 4, latents_std=[1.0] * 4, **changes
    )


ENCODER: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
T5: dict[str, Any] = {"vocab_size": 300, "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}


def autoencoder_kl(levels: int = 4, tile: int = 32) -> Any:
    """A latent stands for ``2 ** (levels - 1)`` pixels in each direction; a tile is of ``tile`` pixels."""
    return diffusers.AutoencoderKL(
        latent_channels=4,
        block_out_channels=(8,) * levels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=tile,
        scaling_factor=0.5,
        shift_factor=0.1,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def vocabulary() -> dict[str, int]:
    """A token each byte, then the special ones."""
    names = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *SPECIAL]
    return {name: number for number, name in enumerate(names)}


def byte_tokenizer(longest: int = 10_000) -> Any:
    """A token is a byte; for CLIP, which has places for 77, ``longest`` is that."""
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


PIPELINES = {
    "QwenImageEditPipeline": lambda: qwen_image_edit(levels=6),
    "QwenImageEditPlusPipeline": lambda: qwen_image_edit_plus(levels=6),
    "FluxPipeline": lambda: flux(tile=64),
    "WanPipeline": wan,
}
