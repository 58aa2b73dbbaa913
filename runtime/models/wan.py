"""Wan: videos; Wan 2.2 has two transformers that take turns."""

# mypy: allow-untyped-calls
from __future__ import annotations

from typing import Any

from omni_config.plan import Plan
from runtime.models.family import Family, latents_out


def wan(**changes: Any) -> Any:
    """One transformer, as Wan 2.1."""
    import diffusers

    return diffusers.WanPipeline(**_parts() | changes)


def wan_image_to_video() -> Any:
    """From a first frame, as Wan 2.1: its latents and a mask of four frames come beside those of the video, and what a
    CLIP makes of it beside the text."""
    import diffusers
    import transformers

    eye = transformers.CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=56, patch_size=14
    )
    return diffusers.WanImageToVideoPipeline(
        **_parts() | {"transformer": wan_transformer(in_channels=4 + 4 + 4, image_dim=32, added_kv_proj_dim=64)},
        image_encoder=transformers.CLIPVisionModel(eye),
        image_processor=transformers.CLIPImageProcessorPil(
            size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56}
        ),
    )


def wan_vace() -> Any:
    """With blocks beside the others, for frames, masks and images to keep to."""
    import diffusers

    transformer = diffusers.WanVACETransformer3DModel(
        **_SIZES, vace_layers=[0, 2], vace_in_channels=2 * 4 + 64, **_CHANNELS
    )
    return diffusers.WanVACEPipeline(**_parts() | {"transformer": transformer})


def _parts() -> dict[str, Any]:
    """What the pipelines have in common."""
    import diffusers
    import transformers

    from runtime.models import random_parts as parts

    return {
        "tokenizer": parts.byte_tokenizer(),
        "text_encoder": transformers.UMT5EncoderModel(transformers.UMT5Config(**parts.T5)),
        "vae": wan_vae(z_dim=4, dim_mult=[1, 1, 1, 1]),
        "scheduler": diffusers.UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
        "transformer": wan_transformer(),
    }


_SIZES: dict[str, Any] = {
    "num_attention_heads": 4,
    "attention_head_dim": 16,
    "text_dim": 32,
    "freq_dim": 32,
    "ffn_dim": 128,
    "num_layers": 3,
    "cross_attn_norm": True,
}
_CHANNELS: dict[str, Any] = {"in_channels": 4, "out_channels": 4}


def wan_transformer(**changes: Any) -> Any:
    """With the text by cross-attention."""
    import diffusers

    return diffusers.WanTransformer3DModel(**_SIZES | _CHANNELS | changes)


def wan_vae(**changes: Any) -> Any:
    """Its latents need no rescaling."""
    import diffusers

    return diffusers.AutoencoderKLWan(
        base_dim=8, num_res_blocks=1, latents_mean=[0.0] * 4, latents_std=[1.0] * 4, **changes
    )


FAMILY = Family(
    transformer="WanTransformer3DModel",
    blocks=("blocks",),
    image_tokens="hidden_states",
    text_tokens=None,
    output_shape=latents_out,
    random={"WanPipeline": wan, "WanImageToVideoPipeline": wan_image_to_video},
)


def _with_a_reference(_: Plan, arguments: dict[str, Any]) -> dict[str, Any]:
    """An input image is one that the video is to refer to."""
    image = {"reference_images": [arguments["image"]]} if "image" in arguments else {}
    return {name: value for name, value in arguments.items() if name != "image"} | image


#: VACE: a further list of blocks, of which the others add what they make.
VACE = Family(
    transformer="WanVACETransformer3DModel",
    blocks=("blocks",),
    image_tokens="hidden_states",
    text_tokens=None,
    output_shape=latents_out,
    text_stays_whole=True,
    call={"WanVACEPipeline": _with_a_reference},
    random={"WanVACEPipeline": wan_vace},
)
