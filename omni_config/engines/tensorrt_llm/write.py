"""TensorRT-LLM VisualGen: the YAML of ``--visual_gen_args``, with the command that takes it in a comment."""

from __future__ import annotations

import json
import shlex
from typing import Any

import yaml

from omni_config.engines.formats.unwritten import Unwritten
from omni_config.engines.tensorrt_llm.read import BACKENDS, SETTINGS, SPLIT_DIM, STAGES
from omni_config.engines.tensorrt_llm.recipes import backend_for
from omni_config.mesh import degree
from omni_config.schema.settings import FIELDS

_QUANT_ALGOS = {"fp8": "FP8"}
FILE = "visual_gen.yaml"


def write(unwritten: Unwritten) -> str:
    """The file of a config, with its command, and what requests say, in comments."""
    model = unwritten.take("model")
    command = ["trtllm-serve", model, "--visual_gen_args", FILE]
    for name in ("host", "port"):
        if (value := unwritten.take(name)) is not None:
            command += [f"--{name}", str(value)]
    unwritten.take("server")  # the command is one
    if unwritten.settings.get("gpus") == unwritten.world_size:
        unwritten.take("gpus")  # as many processes are started as the degrees ask for
    tree: dict[str, Any] = {"model": model}
    merges = any(degree(unwritten.settings.get(name)) > 1 for name in ("ring_degree", "attention_2d"))
    if unwritten.settings.get("attention_quantization") and not unwritten.settings.get("attention_backend"):
        recipe = {name: unwritten.resolution.settings[name] for name in SETTINGS["QuantAttentionConfig"]}
        if (chosen := backend_for(recipe, merges=merges)) is not None:
            unwritten.take("attention_quantization")
            said = _said(unwritten, "QuantAttentionConfig")
            tree["attention_config"] = {"backend": chosen, "quant_attention_config": said or recipe}
    elif (backend := unwritten.settings.get("attention_backend")) in BACKENDS.values():
        unwritten.take("attention_backend")
        tree["attention_config"] = {"backend": next(ours for ours, named in BACKENDS.items() if named == backend)}
    elif backend is None and merges:
        tree["attention_config"] = {"backend": "FA4"}  # parts are merged by a log-sum-exp that VANILLA does not return
    parallel = _said(unwritten, "ParallelConfig")
    if (mode := unwritten.settings.get("vae_parallel_mode")) in ("spatial_shard_height", "spatial_shard_width"):
        unwritten.take("vae_parallel_mode")
        parallel[SPLIT_DIM] = mode.removeprefix("spatial_shard_")
    tree["parallel_config"] = parallel or {"ulysses_size": 1}  # a sign of what it is
    for section, owner in (
        ("torch_compile_config", "TorchCompileConfig"),
        ("cpu_offload_config", "CpuOffloadConfig"),
    ):
        if said := _said(unwritten, owner):
            tree[section] = said
    if stages := _stages(unwritten):
        unwritten.take("offload_components")
        tree.setdefault("cpu_offload_config", {})["stages"] = stages
    for switch, cache, owner in (
        ("tea_cache", "teacache", "TeaCacheConfig"),
        ("cache_dit", "cache_dit", "CacheDiTConfig"),
    ):
        if unwritten.take(switch):
            tree["cache_config"] = {"cache_backend": cache, **_said(unwritten, owner)}
    if unwritten.settings.get("quantization") in _QUANT_ALGOS:
        tree["quant_config"] = {"quant_algo": _QUANT_ALGOS[unwritten.take("quantization")], "dynamic": True}
    if len(unwritten.settings.get("lora") or ()) == 1:
        (adapter,) = unwritten.take("lora")
        tree["runtime_lora_config"] = dict(adapter)
    requests = [name for name in unwritten.settings if FIELDS[name][0] == "sampling"]
    lines = [f"# {shlex.join(command)}"]
    lines += ["# Requests say these:"] if requests else []
    lines += [f"# {'.'.join(FIELDS[name])}: {json.dumps(unwritten.take(name))}" for name in requests]
    return "".join(f"{line}\n" for line in lines) + yaml.safe_dump(tree, sort_keys=False)


def _stages(unwritten: Unwritten) -> list[str]:
    """The components of offload, in the order in which they run; Cosmos 3 has other names, which no setting has."""
    moved = unwritten.settings.get("offload_components") or ()
    card = unwritten.resolution.card
    if card.pipeline.startswith("Cosmos3"):
        return []
    both = ["transformer", "transformer_2"] if card.dims.get("two_transformers") else ["transformer"]
    return [
        name for component, ours in STAGES.items() if ours in moved for name in (both if ours == "dit" else [component])
    ]


def _said(unwritten: Unwritten, owner: str) -> dict[str, Any]:
    """The keys of a class that stand for settings which the config says."""
    values = {key: unwritten.take(name) for key, name in SETTINGS[owner].items()}
    return {
        key: list(value) if isinstance(value, tuple) else value for key, value in values.items() if value is not None
    }
