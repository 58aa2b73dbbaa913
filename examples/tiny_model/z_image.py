"""The parts of the embedded ZImagePipeline, and what its transformer is told and predicts."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from shapes import SIZE
from texts import CHAT_TEMPLATE, SPECIAL, batch_unique, train_bpe
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3Model

LATENT_CHANNELS = 8
TEXT_WIDTH = 64
VAE_LR = 2e-3
#: Names of the blocks, whose weight matrices Muon trains.
BLOCKS = ("layers.", "noise_refiner.", "context_refiner.")
#: Names of the layers that start at zero, so that every block starts as the identity, as DiTs do.
ZERO = ("adaLN_modulation", "all_final_layer.2-1.linear")


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Words of captions, and of the chat template, are single tokens."""
    return PreTrainedTokenizerFast(
        tokenizer_object=train_bpe(["user\n", "assistant\n"], 400),
        pad_token=SPECIAL[0],
        eos_token=SPECIAL[2],
        chat_template=CHAT_TEMPLATE,
    )


def make_vae() -> AutoencoderKL:
    """Factor 4, so that a picture is LATENT_CHANNELS x 16 x 16."""
    return AutoencoderKL(
        block_out_channels=(16, 16, 32),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=1,  # a group is normalised over the picture, which takes away how bright a flat colour is
        sample_size=SIZE,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
    )


def encode(vae: AutoencoderKL, pictures: torch.Tensor) -> DiagonalGaussianDistribution:
    """The distribution of the latents, (n, channels, 16, 16)."""
    return vae.encode(pictures).latent_dist


def decode(vae: AutoencoderKL, latents: torch.Tensor) -> torch.Tensor:
    """Pictures, not clamped."""
    return vae.decode(latents).sample


def normalise(vae: AutoencoderKL, latents: torch.Tensor) -> torch.Tensor:
    """Latents of mean 0 and deviation 1; tells the VAE their shift and scale."""
    shift, scale = latents.mean().item(), 1.0 / latents.std().item()
    vae.register_to_config(shift_factor=shift, scaling_factor=scale)
    return (latents - shift) * scale


def make_transformer() -> ZImageTransformer2DModel:
    """6 heads, which split in two and in three."""
    return ZImageTransformer2DModel(
        in_channels=LATENT_CHANNELS,
        dim=144,
        n_layers=6,
        n_refiner_layers=1,
        n_heads=6,
        n_kv_heads=6,
        cap_feat_dim=TEXT_WIDTH,
        axes_dims=[8, 8, 8],
        axes_lens=[512, 64, 64],
    )


def make_text_encoder(tokenizer: PreTrainedTokenizerFast) -> Qwen3Model:
    """Trained together with the transformer."""
    return Qwen3Model(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=128,
            num_hidden_layers=3,  # the pipeline reads the last but one
            num_attention_heads=4,
            num_key_value_heads=4,
            head_dim=16,
            max_position_embeddings=512,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def prompt_tokens(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """Token ids of a prompt as the pipeline writes it."""
    message = [{"role": "user", "content": text}]
    written = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True, enable_thinking=True)
    return tokenizer(written).input_ids


def predict(
    transformer: ZImageTransformer2DModel,
    text_encoder: Qwen3Model,
    noisy: torch.Tensor,
    sigma: torch.Tensor,
    prompts: list[list[int]],
) -> torch.Tensor:
    """noise - x0 of noisy latents, (n, channels, 16, 16). The model is told 1 - sigma and predicts x0 - noise."""
    ids, mask, places = batch_unique(prompts)
    hidden = text_encoder(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states[-2]
    features = [hidden[place, : len(prompt)] for place, prompt in zip(places, prompts, strict=True)]
    predicted = transformer(list(noisy.unsqueeze(2).unbind(0)), 1 - sigma, features, return_dict=False)[0]
    return -torch.stack(list(predicted)).squeeze(2)


def make_pipeline(**parts: Any) -> ZImagePipeline:
    """The pipeline of the trained parts."""
    return ZImagePipeline(scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0), **parts)


def call_arguments(guidance: float) -> dict[str, Any]:
    """Of the pipeline, which computes pos + guidance (pos - neg)."""
    return {"guidance_scale": guidance}
