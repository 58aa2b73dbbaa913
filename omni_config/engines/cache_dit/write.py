"""cache-dit: the YAML of ``cache_dit.load_configs``; what its program sets itself stands in a comment."""

from __future__ import annotations

import json
from typing import Any

import yaml

from omni_config.engines.cache_dit.read import DEFAULTS, PARALLEL
from omni_config.engines.formats.unwritten import Unwritten
from omni_config.schema.settings import FIELDS

_QUANT_TYPES = {
    "fp8": "float8_per_row",
    "int8": "int8_per_row",
    "fp8_weight_only": "float8_weight_only",
    "int8_weight_only": "int8_weight_only",
}
_PROGRAM = ("sampling", "memory", "vae", "lora", "hardware", "model")


def write(unwritten: Unwritten) -> str:
    """The file of a config."""
    world = unwritten.world_size
    tree: dict[str, Any] = {}
    if unwritten.take("cache_dit"):
        resolved = unwritten.resolution.settings
        names = [*DEFAULTS, *(name for name in unwritten.settings if FIELDS[name][:-1] == FIELDS["cache_dit"])]
        tree["cache_config"] = {name: resolved[name] for name in dict.fromkeys(names) if not name.startswith("scm_")}
        for name in tree["cache_config"]:
            unwritten.take(name)
    sizes = {key: unwritten.take(name) for key, name in PARALLEL.items()}
    parallel: dict[str, Any] = {key: size for key, size in sizes.items() if size is not None and size > 1}
    if unwritten.take("ulysses_mode") == "advanced_uaa":
        parallel["ulysses_anything"] = True
    if unwritten.take("async_ulysses"):
        parallel["ulysses_async"] = True
    if unwritten.settings.get("vae_patch_parallel_size") == world > 1:
        unwritten.take("vae_patch_parallel_size")
        parallel["extra_parallel_modules"] = ["vae"]
    if parallel.get("tp_size") and unwritten.take("text_encoder_tensor_parallel"):
        parallel.setdefault("extra_parallel_modules", []).insert(0, "text_encoder")
    if (backend := unwritten.take("attention_backend")) is not None:
        tree["attention_backend"] = backend
    if parallel:
        tree["parallelism_config"] = parallel
    if (quantization := unwritten.take("quantization")) is not None:
        tree["quantize_config"] = {"quant_type": _QUANT_TYPES[quantization]}
    if not tree.keys() - {"attention_backend"}:
        tree["parallelism_config"] = {"ulysses_size": 1}  # by which a reader knows what the file is
    program = [name for name in unwritten.settings if FIELDS[name][0] in _PROGRAM or name == "compile"]
    lines = [f"# {'.'.join(FIELDS[name])}: {json.dumps(unwritten.take(name))}" for name in program]
    head = "# The program that loads this file sets these itself:\n" if lines else ""
    return head + "".join(f"{line}\n" for line in lines) + yaml.safe_dump(tree, sort_keys=False)
