"""The pipelines of the acceptance: random weights, made on the device, in published dimensions; or tiny ones.

Nothing is downloaded: a tokenizer of bytes stands in for the published one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import diffusers
import torch
import transformers

from runtime.models import random_parts as parts
from runtime.models.flux import flux as tiny_flux
from runtime.models.wan import wan as tiny_wan
from runtime.pipeline.load import FOLDERS

_UMT5 = {"d_model": 4096, "d_ff": 10240, "num_layers": 24, "num_heads": 64, "d_kv": 64}
_T5 = _UMT5 | {"feed_forward_proj": "gated-gelu"}


@contextlib.contextmanager
def _made_on(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Let modules be made on a device, in a precision."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            yield
    finally:
        torch.set_default_dtype(before)


def _scheduler(kind: type[Any], **config: Any) -> Any:
    """A scheduler, which counts on the CPU, in float32."""
    with _made_on(torch.device("cpu"), torch.float32):
        return kind(**config)


def flux() -> Any:
    """FLUX.1-dev."""
    clip = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    return diffusers.FluxPipeline(
        scheduler=_scheduler(diffusers.FlowMatchEulerDiscreteScheduler, shift=3.0, use_dynamic_shifting=True),
        vae=_autoencoder(scale=0.3611, shift=0.1159),
        text_encoder=transformers.CLIPTextModel(transformers.CLIPTextConfig(**clip, projection_dim=768)),
        tokenizer=parts.byte_tokenizer(77),
        text_encoder_2=transformers.T5EncoderModel(transformers.T5Config(**_T5)),
        tokenizer_2=parts.byte_tokenizer(),
        transformer=diffusers.FluxTransformer2DModel(guidance_embeds=True),
    )


def z_image() -> Any:
    """Z-Image."""
    encoder = transformers.Qwen3Config(
        vocab_size=151936,
        hidden_size=2560,
        intermediate_size=9728,
        num_hidden_layers=36,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
    )
    return diffusers.ZImagePipeline(
        scheduler=_scheduler(diffusers.FlowMatchEulerDiscreteScheduler, shift=3.0),
        vae=_autoencoder(scale=0.3611, shift=0.1159),
        text_encoder=transformers.Qwen3Model(encoder),
        tokenizer=parts.byte_tokenizer(),
        transformer=diffusers.ZImageTransformer2DModel(),
    )


def qwen_image() -> Any:
    """Qwen-Image."""
    text = {
        "vocab_size": 152064,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
    }
    vision = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584}
    config = transformers.Qwen2_5_VLConfig(text_config=text, vision_config=vision)
    return diffusers.QwenImagePipeline(
        scheduler=_scheduler(diffusers.FlowMatchEulerDiscreteScheduler, shift=3.0, use_dynamic_shifting=True),
        vae=diffusers.AutoencoderKLQwenImage(),
        text_encoder=transformers.Qwen2_5_VLForConditionalGeneration(config),
        tokenizer=parts.byte_tokenizer(),
        transformer=diffusers.QwenImageTransformer2DModel(),
    )


def wan() -> Any:
    """Wan 2.1 of 1.3 billion parameters."""
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
    return diffusers.WanPipeline(
        scheduler=_scheduler(diffusers.UniPCMultistepScheduler, **flow),
        tokenizer=parts.byte_tokenizer(),
        text_encoder=transformers.UMT5EncoderModel(transformers.UMT5Config(vocab_size=256384, **_UMT5)),
        vae=diffusers.AutoencoderKLWan(),
        transformer=diffusers.WanTransformer3DModel(num_attention_heads=12, ffn_dim=8960, num_layers=30),
    )


def _autoencoder(scale: float, shift: float) -> Any:
    widths = (128, 256, 512, 512)
    return diffusers.AutoencoderKL(
        latent_channels=16,
        block_out_channels=widths,
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        layers_per_block=2,
        sample_size=1024,
        scaling_factor=scale,
        shift_factor=shift,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def _embedded(name: str) -> Any:
    return diffusers.DiffusionPipeline.from_pretrained(str(FOLDERS[name]))


@dataclass(frozen=True)
class Subject:
    """A published model by its id, what is generated, and what builds it in its own dimensions, and tiny."""

    card: str
    sampling: dict[str, Any]
    build: Callable[[], Any]
    tiny: Callable[[], Any]


SUBJECTS = {
    "flux": Subject("black-forest-labs/FLUX.1-dev", {"num_inference_steps": 12}, flux, lambda: tiny_flux(tile=64)),
    "z-image": Subject("Tongyi-MAI/Z-Image", {"num_inference_steps": 12}, z_image, lambda: _embedded("tiny")),
    "qwen-image": Subject("Qwen/Qwen-Image", {"num_inference_steps": 12}, qwen_image, lambda: _embedded("tiny-qwen")),
    "wan": Subject("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", {"num_inference_steps": 8, "num_frames": 33}, wan, tiny_wan),
}


def build(name: str, device: torch.device, *, tiny: bool) -> Any:
    """The pipeline of a subject on a device, the same weights on each rank: bfloat16, or float32 where it is tiny."""
    transformers.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    torch.manual_seed(0)
    if tiny:
        pipe = SUBJECTS[name].tiny().to(device)
    else:
        with _made_on(device, torch.bfloat16):
            pipe = SUBJECTS[name].build()
        for part in pipe.components.values():
            if isinstance(part, torch.nn.Module):
                part.to(device, torch.bfloat16).eval().requires_grad_(False)
    pipe.set_progress_bar_config(disable=True)
    return pipe
