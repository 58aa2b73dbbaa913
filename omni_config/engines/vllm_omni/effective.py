"""What vLLM-Omni makes of a deployment where nothing is said: its GPUs, what it compiles, its caches' parameters.

What it changes of what is said, rules know that adjust (``rules.yaml``).
"""

from __future__ import annotations

from math import prod

from omni_config.engines.facts import Facts
from omni_config.engines.formats.draft import Draft
from omni_config.mesh import RANKS, degree
from omni_config.schema.settings import PARAMETERS

_CONFIG = "OmniDiffusionConfig"
#: Settings that mean something where one of others is on.
_OF_OTHERS = {
    "pin_cpu_memory": ("enable_cpu_offload", "enable_layerwise_offload", "enable_distributed_layerwise_offload"),
    "hsdp_weight_load_strategy": ("use_hsdp",),
}


def decide(draft: Draft, facts: Facts) -> None:
    """Add what the engine chooses to a deployment."""
    sizes = [draft.get(name) for name in (*RANKS, "data_parallel_size")]
    if not all(size is None or isinstance(size, int | list | tuple) for size in sizes):
        return
    *degrees, replicated = map(degree, sizes)
    if not draft.has("gpus"):
        at = facts.method(_CONFIG, "__post_init__")
        product = prod(degrees) * replicated
        if draft.get("use_hsdp") is True and product == 1 and isinstance(shards := draft.get("hsdp_shard_size"), int):
            product = max(shards, 1) * (draft.get("hsdp_replicate_size") or 1)
        draft.decide("gpus", product, "default", at, "the product of its degrees")
    replicas = facts.method("DiffusionParallelConfig", "resolve_data_parallel_size")
    gpus, ranks = draft.get("gpus"), prod(degrees)
    whole = draft.has("gpus") and not draft.has("data_parallel_size") and isinstance(gpus, int)
    if replicas and whole and not draft.get("use_hsdp") and gpus > ranks and gpus % ranks == 0:
        why = "spare GPUs become replicas"
        draft.decide("data_parallel_size", gpus // ranks, "inferred", replicas, why, judged=False)  # OMNI121 says so
    eager = facts.default(_CONFIG, "enforce_eager")
    if eager and eager[0] is False and not draft.has("compile") and "enforce_eager" not in draft.options:
        draft.decide("compile", True, "default", eager[1], "unless --enforce-eager")
    for setting, switches in _OF_OTHERS.items():
        found = facts.default(_CONFIG, setting)
        if found and not draft.has(setting) and any(draft.get(switch) is True for switch in switches):
            draft.decide(setting, found[0], "default", found[1])
    for backend in ("tea_cache", "cache_dit"):
        for name in PARAMETERS[backend] if draft.has(backend) else ():
            found = facts.default("DiffusionCacheConfig", name)
            if found and found[0] is not None and not draft.has(name):
                draft.decide(name, found[0], "default", found[1])
