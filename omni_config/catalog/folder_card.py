"""The model card of a local diffusers folder: its pipeline class and dimensions are read, nothing is imported or run.

What a folder cannot say (its guidance, what engines claim of it) is what the catalog says of the same pipeline class.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from omni_config.cards import ModelCard
from omni_config.catalog.load import Catalog

MAX_BYTES = 1_000_000
PIXELS_OF_A_TILE = 1024  # of the decoders in estimate/vaes.yaml that state a sample_size
WIDE = "48"  # latent channels of the decoder of Wan 2.2's 5B, which has the class of the others
TEXT_ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3", "text_encoder_4")
#: Dimensions that the classes of a pipeline decide, not their configurations.
OF_THE_CLASS = ("cross_attention", "linear_attention", "ffn_matrices", "vae_only_tiles", "without_text_encoder")


def card_of_folder(folder: Path, known: Catalog) -> ModelCard:
    """The card of the pipeline in a folder.

    Raises:
        ValueError: there is no readable model_index.json, or no card has its pipeline class.
    """
    alike = alike_of(folder, known)
    of_a_unet = (folder / "unet").is_dir() and not (folder / "transformer").is_dir()
    transformer = {} if of_a_unet else read_config(folder / "transformer" / "config.json")
    dims = _transformer(transformer, alike.dims) | _vae(folder / "vae" / "config.json", alike.dims)
    dims |= {"two_transformers": 1} if (folder / "transformer_2").is_dir() else {}
    paths = (folder / name / "config.json" for name in TEXT_ENCODERS)
    encoders: list[dict[str, int]] = [_text_encoder(path) for path in paths if path.is_file()]
    # Where a small one reads the prompt, too, the large one decides.
    dims.update(sorted(encoders, key=lambda found: found.get("text_encoder_ffn_dim", 0))[-1] if encoders else {})
    if alike.guidance and alike.guidance.distilled_argument and not transformer.get("guidance_embeds"):
        defaults = {name: value for name, value in alike.defaults.items() if name != "guidance_scale"}
        alike = replace(alike, guidance=replace(alike.guidance, distilled_argument=None), defaults=defaults)
    vae = read_config(folder / "vae" / "config.json") if (folder / "vae").is_dir() else {}
    decoder = _decoder(vae)
    of_a_kind = decoder.removesuffix(WIDE) == (alike.vae or "").removesuffix(WIDE)
    known_vae = of_a_kind and vae.get("sample_size") in (None, PIXELS_OF_A_TILE)
    splits = tuple(name for name in alike.tensor_parallel_splits if name in dims)
    # Wan 2.2's 5B, whose folder names the pipeline that takes none.
    from_image = read_config(folder / "model_index.json").get("expand_timesteps") is True
    return replace(
        alike,
        id=str(folder),
        takes_image=alike.takes_image or from_image,
        dims=dims,
        vae=decoder if known_vae else None,
        tensor_parallel_splits=splits,
        sources=(str(folder),),
        notes=(),
        aliases=(),
    )


def alike_of(folder: Path, known: Catalog) -> ModelCard:
    """The first card with the pipeline class of a folder.

    Raises:
        ValueError: there is no readable model_index.json, or no card has its pipeline class.
    """
    pipeline = read_config(folder / "model_index.json").get("_class_name")
    if not isinstance(pipeline, str):
        raise ValueError("its model_index.json names no pipeline class")
    alike = known.model_of_pipeline(pipeline)
    if alike is None:
        raise ValueError(f"its pipeline, {pipeline}, is on no model card")
    return alike


def read_config(path: Path) -> dict[str, Any]:
    """A component's configuration.

    Raises:
        ValueError: it is not there, larger than a configuration, or no JSON object.
    """
    if path.exists() and not path.is_file():
        raise ValueError(f"{path.name} of {path.parent.name} is no file")  # a pipe would be waited for
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        content = json.loads(data) if len(data) <= MAX_BYTES else None
    except OSError as error:
        raise ValueError(f"{path.name} of {path.parent.name}: {(error.strerror or 'unreadable').lower()}") from None
    except (ValueError, RecursionError):
        raise ValueError(f"{path.name} of {path.parent.name} is not JSON") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} of {path.parent.name} is not a configuration")
    return content


def _transformer(config: dict[str, Any], alike: Mapping[str, int]) -> dict[str, int]:
    """Dimensions from a transformer's configuration, by the names that diffusers' classes use.

    What the class decides and its configuration does not say is as on the card ``alike``, of the same pipeline.
    """

    def first(*names: str) -> int:
        return next((config[name] for name in names if _is_size(config.get(name))), 0)

    def last(name: str) -> int:
        value = config.get(name)
        value = value[-1] if isinstance(value, list) and value else value
        return value if isinstance(value, int) and _is_size(value) else 0

    axes, ratio = config.get("axes_dims"), config.get("mlp_ratio")
    hidden = first("hidden_size", "dim", "model_dim")
    heads, head_dim = first("num_attention_heads", "n_heads", "num_heads"), first("attention_head_dim", "head_dim")
    if not heads and isinstance(axes, list) and all(map(_is_size, axes)) and axes:
        heads = hidden // sum(axes)
    hidden = hidden or heads * head_dim
    ffn = first("ffn_dim", "ffn_hidden_size", "intermediate_size", "ff_dim")
    if not ffn and _is_size(alike.get("ffn_dim")) and _is_size(alike.get("hidden_size")):
        ffn = hidden * alike["ffn_dim"] // alike["hidden_size"]
    elif not ffn and isinstance(ratio, int | float) and 0 < ratio < 100:
        ffn = int(hidden * ratio)
    double, single = first("num_layers", "num_mmdit_layers"), first("num_single_layers", "num_single_dit_layers")
    layers = double + single or first("n_layers", "num_visual_blocks", "num_hidden_layers", "depth")
    if "double_stream_layers" in alike:
        double = double if single else first("mmdit_layers") or layers
    patch, channels = last("all_patch_size") or last("patch_size"), first("out_channels", "in_channels")
    found = {
        "num_layers": layers,
        "num_attention_heads": heads,
        "num_kv_heads": first("num_key_value_heads", "n_kv_heads", "num_kv_heads") or heads,
        "hidden_size": hidden,
        "ffn_dim": ffn,
        "patch_size": max(patch, alike.get("patch_size", 1)) if patch == 1 else patch,  # a pipeline may make them, too
        "output_dim": channels * patch * patch if "output_dim" in alike else 0,
        "attention_width": heads * head_dim if "attention_width" in alike else 0,
        "double_stream_layers": double if "double_stream_layers" in alike else 0,
        "refiner_layers": first("num_refiner_layers", "n_refiner_layers") if "refiner_layers" in alike else 0,
    }
    found |= {name: alike[name] for name in OF_THE_CLASS if name in alike}
    return {name: size for name, size in found.items() if size}


def _decoder(config: Mapping[str, Any]) -> str:
    """The name that a VAE has among the known decoders: its class, with the latent channels of one of another size."""
    return f"{config.get('_class_name')}{WIDE if config.get('z_dim') == int(WIDE) else ''}"


def _vae(path: Path, alike: Mapping[str, int]) -> dict[str, int]:
    """How many pixels, and frames, a latent stands for: each level but the last halves the image."""
    if not path.is_file():
        return {}
    config = read_config(path)

    def stated(*names: str) -> int:
        return next((config[name] for name in names if _is_size(config.get(name))), 0)

    halvings, both = config.get("temperal_downsample"), config.get("spatio_temporal_scaling")
    names = ("block_out_channels", "decoder_block_out_channels")
    levels = next((value for name in names if isinstance(value := config.get(name), list) and value), [])
    pixels = stated("scale_factor_spatial", "spatial_compression_ratio")
    frames = stated("scale_factor_temporal", "temporal_compression_ratio")
    if isinstance(both, list):
        times = 2 ** min(sum(halving is True for halving in both), 8)
        pixels, frames = pixels or times * (stated("patch_size") or 1), frames or times * (stated("patch_size_t") or 1)
    elif isinstance(halvings, list):
        pixels = pixels or 2 ** min(len(halvings), 8)
        frames = frames or 2 ** min(sum(halving is True for halving in halvings), 8)
    elif levels:
        pixels = pixels or 2 ** min(len(levels) - 1, 8)
    patch = config.get("patch_size")
    if isinstance(patch, list) and patch and _is_size(patch[-1]) and alike.get("patch_size") == 1:
        pixels *= patch[-1]  # the pipeline packs latents for a transformer that makes no patches
    found = {"vae_scale_factor": pixels, "vae_temporal_factor": frames if "vae_temporal_factor" in alike else 0}
    return {name: size for name, size in found.items() if size}


def _text_encoder(path: Path) -> dict[str, int]:
    """Dimensions of a language model, or of the language part of one that also sees; a T5 has names of its own."""
    config = read_config(path)
    text = config.get("text_config")
    config = text if isinstance(text, dict) else config
    names = {
        "heads": ("num_attention_heads", "num_heads"),
        "kv_heads": ("num_key_value_heads", "num_attention_heads", "num_heads"),
        "ffn_dim": ("intermediate_size", "d_ff"),
    }
    found = {
        f"text_encoder_{ours}": next((config[name] for name in theirs if _is_size(config.get(name))), 0)
        for ours, theirs in names.items()
    }
    return {name: size for name, size in found.items() if size}


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1_000_000
