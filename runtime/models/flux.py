"""FLUX.1: blocks of two streams, then blocks of one; a T5 encoder beside a CLIP, which is small."""

# mypy: allow-untyped-calls
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omni_config.plan import Plan
from runtime.errors import CannotRunError
from runtime.models.family import Family, tokens_out

if TYPE_CHECKING:
    import torch


def _modulated_input(block: Any, hidden_states: torch.Tensor, temb: torch.Tensor, **_: Any) -> Any:
    return block.norm1(hidden_states, emb=temb)[0]


def flux(tile: int = 32) -> Any:
    """Distilled guidance, as FLUX.1-dev. ``tile``: pixels of a tile of the decoder."""
    import diffusers

    return diffusers.FluxPipeline(**_parts(tile))


def flux_kontext() -> Any:
    """A latent stands for 32 pixels in each direction, as the pipeline makes a million pixels of any input image."""
    import diffusers

    from runtime.models import random_parts as parts

    made = _parts(tile=256, levels=6)
    return diffusers.FluxKontextPipeline(**made | {"transformer": parts.calmed(made["transformer"])})


def flux_fill() -> Any:
    """Its transformer gets the latents, those of the image without what is filled, and the mask, of 64 values each."""
    import diffusers

    return diffusers.FluxFillPipeline(**_parts(tile=64, in_channels=16 + 16 + 4 * 64, out_channels=16))


def _parts(tile: int, levels: int = 4, **changes: Any) -> dict[str, Any]:
    """What the pipelines have in common; ``changes`` are of the transformer."""
    import diffusers
    import transformers

    from runtime.models import random_parts as parts

    clip = {"vocab_size": len(parts.vocabulary()), **parts.ENCODER, "max_position_embeddings": 77, "projection_dim": 32}
    sizes: dict[str, Any] = {
        "in_channels": 16,
        "num_layers": 2,
        "num_single_layers": 2,
        "attention_head_dim": 16,
        "num_attention_heads": 4,
        "joint_attention_dim": 32,
        "pooled_projection_dim": 32,
        "guidance_embeds": True,
        "axes_dims_rope": (4, 6, 6),
    }
    transformer = diffusers.FluxTransformer2DModel(**sizes | changes)
    return {
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        "vae": parts.autoencoder_kl(levels, tile=tile),
        "text_encoder": transformers.CLIPTextModel(transformers.CLIPTextConfig(**clip)),
        "tokenizer": parts.byte_tokenizer(77),
        "text_encoder_2": transformers.T5EncoderModel(transformers.T5Config(**parts.T5)),
        "tokenizer_2": parts.byte_tokenizer(),
        "transformer": transformer,
    }


def _of_the_asked_size(_: Plan, arguments: dict[str, Any]) -> dict[str, Any]:
    """Kontext makes an image of a million pixels unless it is told the number."""
    return arguments | {"max_area": arguments["width"] * arguments["height"]}


def _with_a_mask(_: Plan, arguments: dict[str, Any]) -> dict[str, Any]:
    """Fill makes new what is transparent in the input image.

    Raises:
        CannotRunError: nothing of it is.
    """
    image = arguments["image"]
    if image.getchannel("A").getextrema()[0] == 255:
        raise CannotRunError(
            "FluxFillPipeline fills what is transparent in the input image, and nothing is; "
            "next: erase what is to be made new, and save it as PNG"
        )
    mask = image.getchannel("A").point(lambda opacity: 255 - opacity)
    kept = {name: value for name, value in arguments.items() if name != "negative_prompt"}  # it has no second branch
    return kept | {"image": image.convert("RGB"), "mask_image": mask}


FAMILY = Family(
    transformer="FluxTransformer2DModel",
    blocks=("transformer_blocks", "single_transformer_blocks"),
    image_tokens="hidden_states",
    text_tokens="encoder_hidden_states",
    output_shape=tokens_out,
    modulated_input=_modulated_input,
    transparent=("FluxFillPipeline",),
    without_contexts=("FluxKontextPipeline", "FluxFillPipeline"),
    text_encoder="text_encoder_2",
    call={"FluxKontextPipeline": _of_the_asked_size, "FluxFillPipeline": _with_a_mask},
    random={
        "FluxPipeline": lambda: flux(tile=64),
        "FluxKontextPipeline": flux_kontext,
        "FluxFillPipeline": flux_fill,
    },
)
