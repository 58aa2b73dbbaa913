"""Quantities of offload: what waits on the CPU, and who fetches it."""

from __future__ import annotations

from omni_config.rules.quantities import Quantities, count, quantity

#: Pipelines of vLLM-Omni whose text encoder and VAE come when they are used, whole, if the DiT is offloaded block by
#: block (on_demand_component_paths, diffusion/models/minimax_h3/pipeline_minimax_h3.py:618 of 0.30.0).
_ON_DEMAND = ("MiniMaxH3Pipeline", "MiniMaxH3ModularPipeline")


@quantity
def offload_on_demand(q: Quantities) -> bool:
    """Whether layerwise offload brings the text encoder and the VAE when they are used, too."""
    layered = q["enable_layerwise_offload"] or q["enable_distributed_layerwise_offload"]
    named = q["engine_name"].startswith("vllm-omni") and q["pipeline_name"] in _ON_DEMAND
    return bool(layered and named and q["offload_components"] is None)


@quantity
def resident_layers(q: Quantities) -> int:
    """Blocks of the DiT that distributed layerwise offload keeps on the GPU."""
    return count(q, "their_dlo_resident_layers")


@quantity
def offloaded_components(q: Quantities) -> tuple[str, ...]:
    """What waits on the CPU: what the config names, else what the kind of offload moves by itself."""
    if q["offload_on_demand"]:
        usual: tuple[str, ...] = ("dit", "text_encoder", "vae")
    elif q["enable_layerwise_offload"] or q["enable_distributed_layerwise_offload"]:
        usual = ("dit",)
    elif q["enable_cpu_offload"]:
        usual = ("dit", "text_encoder", "image_encoder")
    else:
        return ()
    return tuple(q["offload_components"] or usual)


@quantity
def gathering_ranks(q: Quantities) -> int:
    """Ranks that share a block of distributed layerwise offload: replicas, else those of a sequence."""
    return int(q["replicas"] if q["replicas"] > 1 else q["sequence_ranks"])
