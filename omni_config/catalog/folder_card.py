"""The model card of a local diffusers folder: its pipeline class and dimensions are read, nothing is imported or run.

What a folder cannot say (its guidance, what engines claim of it) is what the catalog says of the same pipeline class.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from omni_config.cards import ModelCard
from omni_config.catalog.load import Catalog

MAX_BYTES = 1_000_000
PIXELS_OF_A_TILE = 1024  # of the decoders in estimate/vaes.yaml that state a sample_size


def card_of_folder(folder: Path, known: Catalog) -> ModelCard:
    """The card of the pipeline in a folder.

    Raises:
        ValueError: there is no readable model_index.json, or no card has its pipeline class.
    """
    pipeline = _read(folder / "model_index.json").get("_class_name")
    if not isinstance(pipeline, str):
        raise ValueError("its model_index.json names no pipeline class")
    alike = known.model_of_pipeline(pipeline)
    if alike is None:
        raise ValueError(f"its pipeline, {pipeline}, is on no model card")
    transformer = _read(folder / "transformer" / "config.json")
    dims = _transformer(transformer) | _vae(folder / "vae" / "config.json")
    dims |= {"two_transformers": 1} if (folder / "transformer_2").is_dir() else {}
    encoders = (folder / name / "config.json" for name in ("text_encoder_2", "text_encoder"))
    dims |= next((_text_encoder(path) for path in encoders if path.is_file()), {})
    if alike.guidance and alike.guidance.distilled_argument and not transformer.get("guidance_embeds"):
        defaults = {name: value for name, value in alike.defaults.items() if name != "guidance_scale"}
        alike = replace(alike, guidance=replace(alike.guidance, distilled_argument=None), defaults=defaults)
    vae = _read(folder / "vae" / "config.json") if (folder / "vae").is_dir() else {}
    known_vae = vae.get("_class_name") == alike.vae and vae.get("sample_size") in (None, PIXELS_OF_A_TILE)
    splits = tuple(name for name in alike.tensor_parallel_splits if name in dims)
    return replace(
        alike,
        id=str(folder),
        dims=dims,
        vae=alike.vae if known_vae else None,
        tensor_parallel_splits=splits,
        sources=(str(folder),),
        notes=(),
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        data = path.read_bytes()
        content = json.loads(data) if len(data) <= MAX_BYTES else None
    except OSError as error:
        raise ValueError(f"{path.name} of {path.parent.name}: {(error.strerror or 'unreadable').lower()}") from None
    except ValueError:
        raise ValueError(f"{path.name} of {path.parent.name} is not JSON") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} of {path.parent.name} is not a configuration")
    return content


def _transformer(config: dict[str, Any]) -> dict[str, int]:
    """Dimensions from a transformer's configuration, by the names that diffusers' classes use."""

    def first(*names: str) -> int | None:
        return next((config[name] for name in names if _is_size(config.get(name))), None)

    heads, head_dim = first("num_attention_heads", "n_heads"), first("attention_head_dim")
    hidden = first("dim") or (heads * head_dim if heads and head_dim else None)
    patch = first("patch_size")
    for name in ("all_patch_size", "patch_size"):
        if isinstance(config.get(name), list) and config[name] and _is_size(config[name][-1]):
            patch = config[name][-1]
    layers, flux = first("num_layers", "n_layers"), config.get("_class_name") == "FluxTransformer2DModel"
    if flux:  # its pipeline makes the patches, and it has two kinds of blocks
        patch, layers = 2, (layers or 0) + (first("num_single_layers") or 0)
    z_image = config.get("_class_name") == "ZImageTransformer2DModel"  # whose feed-forward follows from its width
    channels = first("out_channels", "in_channels")
    found = {
        "num_layers": layers,
        "num_attention_heads": heads,
        "num_kv_heads": first("num_key_value_heads", "n_kv_heads") or heads,
        "hidden_size": hidden,
        "ffn_dim": first("ffn_dim") or (hidden and (int(hidden / 3 * 8) if z_image else 4 * hidden)),
        "patch_size": patch,
        "output_dim": channels * (1 if flux else patch * patch) if channels and patch else None,
    }
    return {name: size for name, size in found.items() if size}


def _vae(path: Path) -> dict[str, int]:
    """How many pixels, and frames, a latent stands for: each level but the last halves the picture."""
    if not path.is_file():
        return {}
    config = _read(path)
    stated = {"vae_scale_factor": "scale_factor_spatial", "vae_temporal_factor": "scale_factor_temporal"}
    if all(_is_size(config.get(name)) for name in stated.values()):
        return {factor: config[name] for factor, name in stated.items()}
    levels, halvings = config.get("block_out_channels"), config.get("temperal_downsample")
    if isinstance(halvings, list):
        return {"vae_scale_factor": 2 ** min(len(halvings), 8)}
    return {"vae_scale_factor": 2 ** min(len(levels) - 1, 8)} if isinstance(levels, list) and levels else {}


def _text_encoder(path: Path) -> dict[str, int]:
    """Dimensions of a language model, or of the language part of one that also sees; a T5 has names of its own."""
    config = _read(path)
    text = config.get("text_config")
    config = text if isinstance(text, dict) else config
    names = {
        "heads": ("num_attention_heads", "num_heads"),
        "kv_heads": ("num_key_value_heads", "num_heads"),
        "ffn_dim": ("intermediate_size", "d_ff"),
    }
    return {
        f"text_encoder_{ours}": config[name]
        for ours, theirs in names.items()
        for name in reversed(theirs)
        if _is_size(config.get(name))
    }


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1_000_000
