"""Quantities of the hardware and of the estimate for it. The estimate is imported only by a config that asks for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omni_config.rules.expressions import parse
from omni_config.rules.quantities import Quantities, quantity

if TYPE_CHECKING:
    from omni_config.estimate.data import Decoder, Gpu
    from omni_config.estimate.estimate import Estimate
    from omni_config.estimate.work import Work


@quantity
def ranks_per_node(q: Quantities) -> int:
    """Ranks of each machine: as many as it has GPUs for, with whole Ulysses and tensor groups, and the same on each."""
    ranks, inner = q["world_size"], q["ulysses_degree"] * q["tensor_parallel_size"]
    most = q["gpus_per_node"] or ranks
    return max((size for size in range(inner, min(most, ranks) + 1, inner) if ranks % size == 0), default=inner)


@quantity
def nodes(q: Quantities) -> int:
    """Machines that hold the ranks."""
    return int(q["world_size"] // q["ranks_per_node"])


@quantity
def known_gpu(q: Quantities) -> Gpu | None:
    """The machine of hardware.machine, else the datasheet of hardware.gpu; None where neither is said and known."""
    if q["machine"] is not None:
        from omni_config.estimate.machine import machine_of
        from omni_config.reading.nodes import Unreadable

        try:
            return machine_of(q["machine"])
        except Unreadable:
            return None  # the check says what is wrong with it
    from omni_config.estimate.estimate import gpus

    return gpus().get(q["gpu"]) if q["gpu"] else None


@quantity
def gpu_multiplies_fp8(q: Quantities) -> bool:
    """Whether the known GPU multiplies in float8; true where none is said."""
    return q["known_gpu"] is None or q["known_gpu"].architecture != "ampere"


@quantity
def known_gpus(q: Quantities) -> str:
    """Names of all known GPUs, for people."""
    from omni_config.estimate.estimate import gpus

    return ", ".join(gpus())


@quantity
def gpu_memory(q: Quantities) -> float | None:
    """GiB that a GPU has: hardware.memory, else the known machine's or GPU's; None where neither is said."""
    if q["memory"] is not None:
        return float(q["memory"])
    gpu = q["known_gpu"]
    return None if gpu is None else float(gpu.memory)


@quantity
def decoder(q: Quantities) -> Decoder | None:
    """The VAE's decoder, with the tiles that it is used with here; None where it is unknown."""
    from omni_config.estimate.data import decoders

    known = decoders().get(q.card.vae or "")
    shares = q["engine_name"] == "native" and q["vae_patch_parallel_size"] > 1
    return known.shared_by_ranks(q["width"], q["height"]) if known and shares and q["width"] and q["height"] else known


@quantity
def vae_tiles(q: Quantities) -> int | None:
    """Tiles of an image, each decoded by one rank; None where the decoder or the size of the image is unknown."""
    known = q["decoder"]
    return known.tiles(q["width"], q["height"]) if known and q["width"] and q["height"] else None


@quantity
def work(q: Quantities) -> Work | None:
    """What a pass through the DiT computes; None where the card or the size of the image leaves it open."""
    from omni_config.estimate.work import unknown, work_of

    return None if unknown(q) else work_of(q)


@quantity
def estimated(q: Quantities) -> Estimate | None:
    """Estimated memory and seconds; None where the card does not state how large the transformer is."""
    from omni_config.estimate.estimate import estimate

    return None if q["transformer_parameters"] is None else estimate(q, q["known_gpu"])


@quantity
def estimated_gib(q: Quantities) -> float | None:
    """Best guess of the peak memory of a GPU in GiB."""
    result = q["estimated"]
    return None if result is None else round(result.gib.value, 1)


@quantity
def least_gib(q: Quantities) -> float | None:
    """Best guess of the peak memory in GiB, offloaded as far as the engine may do by itself where memory is short: the
    DiT and the text encoder block by block.
    """
    ours: float | None = q["estimated_gib"]
    offloads = q.engine_card.offloads
    said = q["enable_cpu_offload"] or q["enable_layerwise_offload"]
    if ours is None or not offloads or said or not parse(offloads)(q):
        return ours
    layer_by_layer = q.changed(enable_layerwise_offload=True, vae_use_tiling=True)["estimated"]
    text = layer_by_layer.memory.resident.get("text encoder weights", 0.0)
    return float(min(ours, round(layer_by_layer.gib.value - text, 1)))


@quantity
def most_gib(q: Quantities) -> float | None:
    """Peak memory in GiB at the upper end of the estimate."""
    result = q["estimated"]
    return None if result is None else round(result.gib.high, 1)


@quantity
def memory_breakdown(q: Quantities) -> str:
    """What the memory goes to, for people; the decode also with tiling, where it is off."""
    memory = q["estimated"].memory
    parts = [f"{name} {size:.1f}" for name, size in sorted(memory.resident.items(), key=lambda item: -item[1])]
    for name, size in memory.phases.items():
        note = f" ({_tiled(q):.1f} with tiling)" if name == "VAE decode" and not q["vae_use_tiling"] else ""
        parts.append(f"{'then ' if name == memory.largest_phase else 'or '}{name} {size:.1f}{note}")
    missing = f"; not counted, as nothing here states it: {', '.join(memory.unknown)}" if memory.unknown else ""
    return f"{', '.join(parts)}{missing}"


def _tiled(q: Quantities) -> float:
    from omni_config.estimate.estimate import memory

    return memory(q.changed(vae_use_tiling=True)).phases["VAE decode"]


@quantity
def estimated_seconds(q: Quantities) -> float | None:
    """Best guess of the seconds of an image; None without a known GPU or dimensions."""
    result = q["estimated"]
    return None if result is None or result.seconds is None else result.seconds.value


def _speedup(q: Quantities, **changes: Any) -> float | None:
    """How many times as fast the config is as the same with changes."""
    ours, other = q["estimated_seconds"], q.changed(**changes)["estimated_seconds"]
    return None if ours is None or other is None else float(round(other / ours, 2))


@quantity
def gain_of_last_doubling(q: Quantities) -> float | None:
    """How many times as fast the sequence ranks are as half of them; None where odd, or without an estimate."""
    for axis in ("ring_degree", "ulysses_degree"):
        if q[axis] % 2 == 0:
            return _speedup(q, **{axis: q[axis] // 2})
    return None


@quantity
def loss_against_ring(q: Quantities) -> float | None:
    """Seconds with Ulysses over seconds with the same number of ranks as a ring; None where there is no estimate."""
    speedup = _speedup(q, ulysses_degree=1, ring_degree=q["sequence_ranks"])
    return float(round(1 / speedup, 2)) if speedup else None


@quantity
def dominant_term(q: Quantities) -> str:
    """The term that takes most of the estimated time, with its share."""
    return str(q["estimated"].dominant) if q["estimated"] else ""


@quantity
def tokens_at_once(q: Quantities) -> int | None:
    """Tokens that one rank multiplies with a weight at once: its part of the sequence, times the batch."""
    return None if q["tokens_per_rank"] is None else int(q["tokens_per_rank"] * q["images"])


@quantity
def saturating_tokens(q: Quantities) -> int | None:
    """Tokens below which a GPU waits for weights rather than computes: its flops over its bytes a second (bfloat16)."""
    gpu = q["known_gpu"]
    return None if gpu is None else int(gpu.tflops * 1e12 / (gpu.bandwidth * 1e9))
