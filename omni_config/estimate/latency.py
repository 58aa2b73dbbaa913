"""Seconds of one image or video on one replica, term by term: a roofline for the GPU, and bytes over its links."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, prod
from typing import Any

from omni_config.estimate.data import Decoder, Gpu
from omni_config.estimate.measured import Measured, Rate, rate_at
from omni_config.estimate.topology import Class
from omni_config.estimate.work import Work, computed_steps, forwards_a_step
from omni_config.mesh import AXES, RANKS, degree

#: How much faster tensor cores multiply these types than 16 bits.
_RATES = {"bf16": 1, "int8": 2, "fp8": 2, "mxfp8": 2, "nvfp4": 4}


def latency_of(
    q: Mapping[str, Any], work: Work, gpu: Gpu, decoder: Decoder | None, share: Mapping[str, float]
) -> dict[str, float]:
    """Seconds by term, for all images of a prompt; ``share`` holds the efficiencies."""
    passes = computed_steps(q, share["cache_dit_hits"], share["tea_cache_computed"]) * forwards_a_step(q)
    step = {name: value * passes for name, value in pass_of(q, work, gpu, share).items()}
    if gpu.measured and gpu.measured.step:
        step["between steps"] = gpu.measured.step * q["num_inference_steps"]
    return step | _once(q, gpu, decoder, share)


def pass_of(q: Mapping[str, Any], work: Work, gpu: Gpu, share: Mapping[str, float]) -> dict[str, float]:
    """Seconds of one pass through the DiT on one rank, by term."""
    ulysses, ring, tensor = q["ulysses_degree"], q["ring_degree"], q["tensor_parallel_size"]
    gather, ranks = q["allgather_degree"], q["sequence_ranks"]
    rows, columns = q["attention_2d"] or (1, 1)
    group = ranks * tensor
    size = q["bytes_per_value"]
    memory = gpu.bandwidth * 1e9 * share["memory"]
    terms = _computed(q, work, gpu, share)
    hidden_bytes = work.tokens * work.hidden * size * work.batch
    # Half of these passes are over what tensor parallelism splits: heads and the inside of the feed-forward.
    moved = work.blocks * share["passes"] * hidden_bytes / ranks * (0.5 + 0.5 / tensor)
    terms["norms and residuals"] = moved / _bandwidth(gpu, share, hidden_bytes / ranks)
    collectives = 0
    keys = work.kv_heads / work.heads
    if ulysses > 1:  # queries, keys, values, and the result back
        widths = 2 + 2 * keys
        brought = [hidden_bytes / group * width for width in (1, keys, keys, 1)]
        each = [
            _travel(q, "ulysses_degree", "all-to-all", sent, (ulysses - 1) / ulysses, gpu, share) for sent in brought
        ]
        travel = work.blocks * sum(each)
        if q["async_ulysses"]:  # queries, keys and values leave while the next projection is computed
            inwards = travel * (widths - 1) / widths
            travel -= min(inwards, terms["projections"]) * share["ring_overlap"]
        terms["all-to-all"] = travel
        collectives += 4 * work.blocks
    if ring > 1:  # keys and values of a rank go all the way round, hidden behind attention as far as it lasts
        sent = 2 * keys * hidden_bytes / group
        travel = work.blocks * (ring - 1) * _travel(q, "ring_degree", "ring", sent, 1.0, gpu, share)
        merged = work.blocks * (ring - 1) * 5 * hidden_bytes / group / memory
        lasts = 0.0 if gpu.measured and gpu.measured.waits else terms["attention"] * (ring - 1) / ring
        terms["ring"] = travel - min(travel, lasts) * share["ring_overlap"] + merged
        collectives += 2 * (ring - 1) * work.blocks
    if gather > 1:  # all keys and values arrive before attention starts (Llama Team, 2024, section 3.3.2)
        sent = 2 * keys * hidden_bytes / group
        terms["all-gather"] = work.blocks * _travel(q, "allgather_degree", "all-gather", sent, gather - 1, gpu, share)
        collectives += 2 * work.blocks
    if rows * columns > 1:  # queries to a row and their results back, keys and values to a column
        widths = 2 * (columns - 1) + 2 * keys * (rows - 1)
        terms["2D attention"] = work.blocks * widths * hidden_bytes / group / _link(q, "attention_2d", gpu, share)
        collectives += 4 * work.blocks
    if tensor > 1:
        part = 2 * (tensor - 1) / tensor
        alone = _travel(q, "tensor_parallel_size", "all-reduce", hidden_bytes / ranks, part, gpu, share)
        terms["all-reduce"] = work.all_reduces * alone
        collectives += 2 * work.all_reduces  # a reduce-scatter and an all-gather
    busy = sum(terms.values())
    if gpu.measured and gpu.measured.waits:  # who is called computes nothing meanwhile
        split = [axis.name for axis in AXES if q[axis.setting] > 1]
        passes = forwards_a_step(q) if q["batched_guidance"] else 1  # which are one call
        terms["launches"] = gpu.measured.calls(work.calls, split) * share["measured_calls"] / passes
        crowd = gpu.measured.crowd(q["world_size"])
        terms = {name: value * crowd for name, value in terms.items()}
    else:
        launched = work.blocks * share["block"]
        terms["launches"] = max(0.0, launched - busy) + collectives * share["collective"]
    weights = _moved_weights(q, work, gpu, share, size)
    if weights:
        terms["weights"] = max(weights * (1 - share["weights_overlap"]), weights - busy)
    stages = q["pipeline_parallel_size"]
    if stages > 1:
        patches = q["engine_name"].startswith("xdit")
        terms = {name: value * _share_of_stages(q, stages, patches) for name, value in terms.items()}
        handed_on = (1 if patches else stages - 1) * hidden_bytes / ranks  # patches travel while others are computed
        terms["stages"] = handed_on / _link(q, "pipeline_parallel_size", gpu, share)
    return terms


def _computed(q: Mapping[str, Any], work: Work, gpu: Gpu, share: Mapping[str, float]) -> dict[str, float]:
    """Seconds of the matrix products and of attention in one pass, on one rank."""
    ranks, tensor, size = q["sequence_ranks"], q["tensor_parallel_size"], q["bytes_per_value"]
    group = ranks * tensor
    quantized = 2 if q["quantization"] in ("fp8", "int8") else 1  # weight-only, they are multiplied as they would be
    known = gpu.measured
    if known is not None and known.matmul:
        rows = work.tokens * work.batch / ranks
        shapes = {
            "projections": (rows, work.hidden, work.hidden / tensor),
            "FFN": (rows, work.hidden, work.ffn / tensor),
        }
        rates = {name: _measured(known, known.matmul, size, shape) for name, shape in shapes.items()}
        rates = {name: rate * quantized * share["measured_matmul"] for name, rate in rates.items()}
    else:
        peak = gpu.tflops * 1e12 * quantized * (2 / size)
        rates = dict.fromkeys(("projections", "FFN"), peak * share[f"matmul_{gpu.architecture}"])
    flops = {"projections": work.projection_flops, "FFN": work.ffn_flops}
    terms = {name: flops[name] * work.batch / group / rate for name, rate in rates.items()}
    weights = work.block_weights * size / tensor / (gpu.bandwidth * 1e9 * share["memory"])
    if weights > sum(terms.values()):  # few tokens: the weights are waited for
        terms = {name: weights * value / sum(flops.values()) for name, value in flops.items()}
    if known is not None and known.attention:
        shape = (work.tokens / q["ring_degree"], work.heads / tensor / q["ulysses_degree"], work.hidden / work.heads)
        backends = known.attention
        by_size = backends.get(q["attention_backend"] or "native") or next(iter(backends.values()))
        rate = _measured(known, by_size, size, shape) * share["measured_attention"]
    else:
        rate = gpu.tflops * 1e12 * (2 / size) * share[f"attention_{gpu.architecture}"]
    terms["attention"] = work.attention_flops * work.batch / group / rate * _narrowed(q)
    return terms


def _measured(known: Measured, by_size: Mapping[int, Sequence[Rate]], size: int, shape: Sequence[float]) -> float:
    """A measured rate at a shape; of a type that was not measured by the bytes of its values, on a CPU the same."""
    near = size if size in by_size else next(iter(by_size))
    return rate_at(by_size[near], shape) * (1.0 if known.waits else near / size)


def _bandwidth(gpu: Gpu, share: Mapping[str, float], size: float) -> float:
    """Bytes a second that norms and residuals read and write, of activations of so many bytes."""
    if gpu.measured is not None and gpu.measured.norm:
        return rate_at(gpu.measured.norm, (size,)) * share["measured_norm"]
    return gpu.bandwidth * 1e9 * share["memory"]


def _travel(
    q: Mapping[str, Any], axis: str, kind: str, brought: float, part: float, gpu: Gpu, share: Mapping[str, float]
) -> float:
    """Seconds of a collective to which each rank of an axis brings so many bytes, and sends a ``part`` of them."""
    if gpu.measured is not None and not _crosses(q, axis, gpu):
        taken = gpu.measured.seconds_of(kind, degree(q[axis]), brought)
        if taken is not None:
            return taken / share["measured_link"]
    return brought * part / _link(q, axis, gpu, share)


def _share_of_stages(q: Mapping[str, Any], stages: int, patches: bool) -> float:
    """The share of a pass's time that it takes on so many stages.

    With patches (PipeFusion, Fang et al., 2024) all stages work all the time after one step without. Else the branches
    of guidance follow each other, and stages wait at both ends (GPipe, Huang et al., 2019).
    """
    if patches:
        steps = int(q["num_inference_steps"])
        return (1 + (steps - 1) / stages) / steps
    branches = forwards_a_step(q)
    return (branches + stages - 1) / (branches * stages)


def _narrowed(q: Mapping[str, Any]) -> float:
    """The part of attention's time that is left where it is quantized: both of its products take half the flops, and
    tensor cores multiply 8 bits twice as fast as 16, and 4 bits twice as fast as 8.
    """
    if not q["attention_quantization"]:
        return 1.0
    return sum(0.5 / _RATES[q[name]] for name in ("qk_dtype", "v_dtype"))


def _moved_weights(q: Mapping[str, Any], work: Work, gpu: Gpu, share: Mapping[str, float], size: int) -> float:
    """Seconds that the blocks' weights travel in one pass: from the CPU (layerwise offload) or other ranks (HSDP)."""
    held = work.block_weights * (1 if q["quantization"] else size)
    if q["enable_distributed_layerwise_offload"] and "dit" in q["offloaded_components"]:  # both behind the blocks
        ranks = q["gathering_ranks"]
        fetched: float = held / ranks / (gpu.host * 1e9 * share["host"])
        gathered: float = held * (ranks - 1) / ranks / _link(q, "ulysses_degree", gpu, share)
        return max(fetched, gathered)
    if q["enable_layerwise_offload"] and "dit" in q["offloaded_components"]:
        return held / (gpu.host * 1e9 * share["host"])
    if q["use_hsdp"] and q["other_ranks"] > 1:
        return held / _link(q, "cfg_parallel_size", gpu, share)
    return 0.0


def _once(q: Mapping[str, Any], gpu: Gpu, decoder: Decoder | None, share: Mapping[str, float]) -> dict[str, float]:
    """Seconds of what happens once an image: the text encoder, the VAE decode, and models fetched from the CPU."""
    size = q["bytes_per_value"]
    terms = {}
    text = (q["text_encoder_parameters"] or 0) * 1e6 / q["text_encoder_ranks"]
    peak = gpu.tflops * 1e12 * share[f"matmul_{gpu.architecture}"] * (2 / size)
    if text:
        reading = text * size / (gpu.bandwidth * 1e9 * share["memory"])
        terms["text encoder"] = forwards_a_step(q) * max(2 * text * (q["text_tokens"] or 0) / peak, reading)
    if decoder is not None:
        terms["VAE decode"] = decode_flops(q, decoder) / (gpu.tflops * 1e12 * (2 / size) * share["decode"])
    layered = q["enable_layerwise_offload"] or q["enable_distributed_layerwise_offload"]
    if q["enable_cpu_offload"] and not layered:
        moved, split = q["offloaded_components"], q["tensor_parallel_size"] * q["pipeline_parallel_size"]
        held = text * ("text_encoder" in moved)
        held += (q["transformer_parameters"] or 0) * 1e6 / split * ("dit" in moved)
        terms["weights"] = held * size / (gpu.host * 1e9 * share["host"])
    return terms


def decode_flops(q: Mapping[str, Any], decoder: Decoder) -> float:
    """Flops of decoding on the busiest rank: tiles overlap, and are dealt out whole to the ranks that share them."""
    frames = (q["num_frames"] or 1) if q["vae_temporal_factor"] else 1
    pixels = q["width"] * q["height"] * frames * q["images"] * decoder.flops
    if (q["vae_parallel_mode"] or "").startswith("spatial_shard"):  # strips, whose edges the ranks exchange
        return float(pixels / q["vae_patch_parallel_size"])
    tiles = decoder.tiles(q["width"], q["height"])
    if not q["vae_use_tiling"] or tiles == 1:
        return float(pixels)
    overlap = (decoder.tile / decoder.stride) ** 2
    return float(pixels * overlap * ceil(tiles / q["vae_patch_parallel_size"]) / tiles)


def _link(q: Mapping[str, Any], axis: str, gpu: Gpu, share: Mapping[str, float]) -> float:
    """Bytes a second that one rank of an axis sends, over the slowest link between ranks of a group."""
    known = gpu.measured
    if _crosses(q, axis, gpu):
        name: Class = "network"
    elif known is not None and known.topology is not None:
        name = known.topology.slowest(degree(q[axis]), _stride(q, axis))
    elif known is not None and known.waits:
        name = "memory"
    else:
        name = "pcie" if gpu.link_kind == "pcie" else "nvlink"
    if known is not None and name in known.links:
        return known.links[name] * share["measured_link"]
    if name == "network":
        return 1e9 * share["network"]
    if name in ("nvlink", "memory") or gpu.link_kind == "pcie":
        return 1e9 * gpu.link * share[gpu.link_kind] * (share["socket"] if name == "socket" else 1.0)
    return 1e9 * gpu.host * share["pcie"] * (share["socket"] if name == "socket" else 1.0)


def _crosses(q: Mapping[str, Any], axis: str, gpu: Gpu) -> bool:
    """Whether the ranks of an axis are on several machines."""
    extent = _stride(q, axis) * degree(q[axis])
    return bool(extent > (q["gpus_per_node"] or gpu.gpus_per_node))


def _stride(q: Mapping[str, Any], axis: str) -> int:
    """How far apart neighbours of an axis stand in the order of ranks: the ranks of the axes inside of it."""
    inner = RANKS[RANKS.index(axis) + 1 :]
    return prod([degree(q[name]) for name in inner])
