"""How files of vLLM-Omni say our settings."""

from __future__ import annotations

from collections.abc import Iterator

from omni_config.engines.formats.draft import Draft
from omni_config.engines.formats.way import Way, guidance, of_flags
from omni_config.engines.vllm_omni.arguments import INSIDE, PARALLEL, SAMPLING, STRATEGY
from omni_config.engines.vllm_omni.flags import FLAGS
from omni_config.schema.settings import FIELDS, PARAMETERS

_CACHES = ("tea_cache", "cache_dit")
#: Settings inside of mappings, each with its key.
_INSIDE = {
    "diffusion_offload_config": [("offload_components", "components")],
    "diffusion_attention_config": [
        ("attention_quantization", "quant"),
        ("qk_dtype", "dtype_qk"),
        ("v_dtype", "dtype_vo"),
        ("q_block_size", "q_block_size"),
        ("k_block_size", "k_block_size"),
    ],
}


def ways(draft: Draft) -> Iterator[Way]:
    """The ways of its commands, scripts and files; a file of flags has typed ones."""
    if draft.form == "yaml" and not draft.typed:
        yield from _of_stages()
        return
    python = draft.form == "python"
    for way in (*of_flags(FLAGS), guidance(draft)):
        owner = "DiffusionParallelConfig" if way.setting in PARALLEL else ""
        yield Way(way.setting, (owner, way.path[0].replace("-", "_")), way.value) if python else way
    for outer, inside in _INSIDE.items():
        where = outer if python else outer.replace("_", "-")
        yield from (Way(name, (where, key)) for name, key in inside)
    yield Way(STRATEGY, ("", STRATEGY) if python else (STRATEGY.replace("_", "-"),))
    backend = "cache_backend" if python else "cache-backend"
    for cache in _CACHES:
        yield Way(cache, ("", backend) if python else (backend,), True, cache)
        for name in PARAMETERS[cache]:
            if python:
                yield Way(name, ("cache_config", name))
            else:
                yield Way(name, ("cache-config", name))
                yield Way(name, (f"{cache}-{name}".lower().replace("_", "-"),))


def _of_stages() -> Iterator[Way]:
    yield from (Way(name, ("parallel_config", name)) for name in PARALLEL)
    sections = ("memory", "vae", "execution")
    yield from (Way(name, (name,)) for name in FIELDS if FIELDS[name][0] in sections and name not in INSIDE)
    for outer, inside in _INSIDE.items():
        yield from (Way(name, (outer, key)) for name, key in inside)
    yield Way(STRATEGY, (STRATEGY,))
    yield from (Way(name, (key,)) for key, name in {"model": "model", "num_gpus": "gpus"}.items())
    yield from (Way(name, ("default_sampling_params", key)) for key, name in SAMPLING.items())
    for cache in _CACHES:
        yield Way(cache, ("cache_backend",), True, cache)
        yield from (Way(name, ("cache_config", name)) for name in PARAMETERS[cache])
