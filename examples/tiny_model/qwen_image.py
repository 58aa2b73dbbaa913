"""The parts of the embedded QwenImagePipeline, and what its transformer is told and predicts."""

from __future__ import annotations

import functools
import json
from typing import Any

import torch
from diffusers import (
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
)
from diffusers.models.autoencoders.autoencoder_kl_qwenimage import QwenImageCausalConv3d
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from shapes import SIZE
from texts import SPECIAL, batch_unique, train_bpe
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer

LATENT_CHANNELS = 8
LATENT_SIDE = SIZE // 4
TEXT_WIDTH = 64
VAE_LR = 8e-4  # twice as much stays at 15 dB
#: Names of the blocks, whose weight matrices Muon trains.
BLOCKS = ("layers.", "transformer_blocks.")
#: Names of the layers that start at zero, so that every block starts as the identity, as DiTs do.
ZERO = ("img_mod", "txt_mod", "norm_out.linear", "proj_out")
#: As the pipeline writes a prompt. It drops the features of the first TEMPLATE_TOKENS tokens, before the prompt.
TEMPLATE = (
    "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, spatial "
    "relationships of the objects and background:<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
)
TEMPLATE_TOKENS = 34


def make_tokenizer() -> Qwen2Tokenizer:
    """Words of captions and of the template are single tokens, so that the template has as many as the real one."""
    bpe = json.loads(train_bpe([TEMPLATE], 1000).to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=bpe["vocab"],
        merges=[tuple(pair) for pair in bpe["merges"]],
        pad_token=SPECIAL[0],
        eos_token=SPECIAL[2],
        extra_special_tokens=[SPECIAL[1]],
    )
    assert len(tokenizer(TEMPLATE[: TEMPLATE.index("{}")]).input_ids) == TEMPLATE_TOKENS
    return tokenizer


def make_vae() -> AutoencoderKLQwenImage:
    """Factor 4, so that a picture is LATENT_CHANNELS x 16 x 16. It encodes and decodes single frames, twice as fast."""
    vae = AutoencoderKLQwenImage(
        base_dim=16,
        z_dim=LATENT_CHANNELS,
        dim_mult=[1, 1, 2],
        num_res_blocks=1,
        temperal_downsample=[False, False],
        latents_mean=[0.0] * LATENT_CHANNELS,
        latents_std=[1.0] * LATENT_CHANNELS,
    )
    for convolution in vae.modules():
        if isinstance(convolution, QwenImageCausalConv3d):
            # Of one frame only the last slice of a causal kernel meets anything. The others are never trained, and were
            # counted when the kernel's first weights were drawn, which are too small by this factor.
            torch.nn.init.zeros_(convolution.weight[:, :, :-1])
            convolution.weight.data *= convolution.weight.shape[2] ** 0.5
            convolution.forward = functools.partial(_convolve_one_frame, convolution)
    vae.quant_conv.bias.data[LATENT_CHANNELS:] -= 3  # begin with latents that show through their noise
    return vae


def _convolve_one_frame(
    convolution: QwenImageCausalConv3d, frame: torch.Tensor, before: torch.Tensor | None = None
) -> torch.Tensor:
    assert before is None
    kernel = convolution.weight[:, :, -1]
    return torch.conv2d(frame.squeeze(2), kernel, convolution.bias, padding=kernel.shape[-1] // 2).unsqueeze(2)


def encode(vae: AutoencoderKLQwenImage, pictures: torch.Tensor) -> DiagonalGaussianDistribution:
    """The distribution of the latents, (n, channels, 16, 16)."""
    return DiagonalGaussianDistribution(vae.quant_conv(vae.encoder(pictures.unsqueeze(2))).squeeze(2))


def decode(vae: AutoencoderKLQwenImage, latents: torch.Tensor) -> torch.Tensor:
    """Pictures, not clamped: where ``vae.decode`` clamps there is no gradient."""
    return vae.decoder(vae.post_quant_conv(latents.unsqueeze(2))).squeeze(2)


def normalise(vae: AutoencoderKLQwenImage, latents: torch.Tensor) -> torch.Tensor:
    """Latents whose channels have mean 0 and deviation 1; tells the VAE what they had."""
    mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    vae.register_to_config(latents_mean=mean.tolist(), latents_std=std.tolist())
    return (latents - mean[:, None, None]) / std[:, None, None]


def make_transformer() -> QwenImageTransformer2DModel:
    """4 heads, which split in two and in four."""
    return QwenImageTransformer2DModel(
        in_channels=4 * LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        num_layers=7,
        attention_head_dim=28,
        num_attention_heads=4,
        joint_attention_dim=TEXT_WIDTH,
        axes_dims_rope=(4, 12, 12),
    )


def make_text_encoder(tokenizer: Qwen2Tokenizer) -> Qwen2_5_VLForConditionalGeneration:
    """Trained together with the transformer. Its vision tower is as small as can be, and no picture meets it."""
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": TEXT_WIDTH,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 2048,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]},
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
    }
    vision = {
        "depth": 1,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_heads": 2,
        "patch_size": 2,
        "out_hidden_size": TEXT_WIDTH,
    }
    return Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True)
    )


def prompt_tokens(tokenizer: Qwen2Tokenizer, text: str) -> list[int]:
    """Token ids of a prompt as the pipeline writes it."""
    return tokenizer(TEMPLATE.format(text)).input_ids


def predict(
    transformer: QwenImageTransformer2DModel,
    text_encoder: Qwen2_5_VLForConditionalGeneration,
    noisy: torch.Tensor,
    sigma: torch.Tensor,
    prompts: list[list[int]],
) -> torch.Tensor:
    """noise - x0 of noisy latents, (n, channels, 16, 16). The model is told sigma and predicts just that."""
    ids, mask, places = batch_unique(prompts)
    hidden = text_encoder(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states[-1]
    predicted = transformer(
        hidden_states=QwenImagePipeline._pack_latents(noisy, *noisy.shape),
        timestep=sigma,
        encoder_hidden_states=hidden[places, TEMPLATE_TOKENS:],
        encoder_hidden_states_mask=mask[places, TEMPLATE_TOKENS:],
        img_shapes=[[(1, LATENT_SIDE // 2, LATENT_SIDE // 2)]] * len(noisy),
        return_dict=False,
    )[0]
    return QwenImagePipeline._unpack_latents(predicted, SIZE, SIZE, SIZE // LATENT_SIDE).squeeze(2)


def make_pipeline(**parts: Any) -> QwenImagePipeline:
    """The pipeline of the trained parts."""
    return QwenImagePipeline(scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0), **parts)


def call_arguments(guidance: float) -> dict[str, Any]:
    """Of the pipeline, which computes neg + true_cfg_scale (pos - neg)."""
    return {"true_cfg_scale": 1 + guidance}
