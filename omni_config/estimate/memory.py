"""Peak memory of one rank, part by part, in GiB."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from omni_config.estimate.data import Decoder
from omni_config.estimate.work import Work
from omni_config.mesh import RANKS, degree
from omni_config.reading.safetensors import numbers_of

GIB = 2**30
#: Blocks of a text encoder: those of T5-XXL (24), Qwen2.5-VL 7B (28), Mistral Small (40).
TEXT_BLOCKS = 28


@dataclass(frozen=True, slots=True)
class Memory:
    """GiB on one GPU. ``resident`` stays from the start to the end; of ``phases`` the largest adds to the peak."""

    resident: dict[str, float]
    phases: dict[str, float]
    unknown: tuple[str, ...] = field(default=())

    @property
    def peak(self) -> float:
        """GiB at the moment of most memory."""
        return sum(self.resident.values()) + max(self.phases.values(), default=0.0)

    @property
    def largest_phase(self) -> str:
        """The phase of most memory."""
        return max(self.phases, key=lambda name: self.phases[name], default="")


def memory_of(q: Mapping[str, Any], work: Work | None, decoder: Decoder | None, share: Mapping[str, float]) -> Memory:
    """Memory of a config; ``share`` holds the efficiencies. What the card does not state is left out, and named."""
    size = q["bytes_per_value"]
    dit, text, vae, unknown = _weights(q, work, decoder, size)
    # Some models have two transformers of one size that take turns; offload keeps one of them here.
    turns = _transformers(q, work)
    phases = _loading(q, dit, text, size)
    grown = 1 + share["fragments"]
    if work is not None:
        live = work.live_values * _batch(q, work) / q["sequence_ranks"]
        if q["sequence_ranks"] > 1:  # what is sent, and what arrives
            live += 3 * work.tokens * work.hidden * _batch(q, work) / q["sequence_ranks"]
        live += _gathered(q, work) * work.tokens * work.hidden * _batch(q, work)
        phases["DiT activations"] = live * size * grown / GIB
        if q["cache_dit"] or q["tea_cache"]:  # a residual for each branch, and what it is compared with
            kept = 2 * work.tokens * work.hidden * work.batch / q["sequence_ranks"]
            phases["DiT activations"] += kept * size / GIB
    if decoder is not None and q["width"] and q["height"]:
        phases["VAE decode"] = decode_values(q, decoder) * size * grown / GIB
    communicators = sum(degree(q[name]) > 1 for name in RANKS)
    resident = {"temporaries": share["context"] + communicators * share["communicator"]}
    moved = q["offloaded_components"]
    layered = q["enable_layerwise_offload"] or q["enable_distributed_layerwise_offload"]
    if "dit" not in moved:
        resident["DiT weights"] = dit
        if q["use_hsdp"] and work is not None:  # the block that computes and the next one are gathered
            phases["DiT activations"] += 2 * _dit_gib(q, size) / turns / work.blocks
    elif layered:
        blocks = (2 + q["resident_layers"]) * dit / turns / (work.blocks if work else 40)
        if q["offload_on_demand"]:  # they come when the text encoder has gone
            phases["DiT activations"] = phases.get("DiT activations", 0.0) + blocks
        else:
            resident["DiT blocks at hand"] = blocks
    else:  # one model at a time
        phases["DiT activations"] = phases.get("DiT activations", 0.0) + dit / turns
    if "text_encoder" not in moved:
        resident["text encoder weights"] = text
    elif layered and not q["offload_on_demand"]:
        resident["text encoder blocks"] = 2 * text / TEXT_BLOCKS
    else:
        phases["text encoder weights"] = text
    if "vae" in moved and "VAE decode" in phases:
        phases["VAE decode"] += vae
    else:
        resident["VAE weights"] = vae
    if q["lora"]:
        adapters = _adapters(q, size)
        if adapters is None:
            unknown += ("LoRA adapters",)
        else:
            resident["LoRA adapters"] = adapters
    return Memory({name: value for name, value in resident.items() if value}, phases, unknown)


def _loading(q: Mapping[str, Any], dit: float, text: float, size: int) -> dict[str, float]:
    """GiB beyond what stays, while weights are read; empty where the engine's way is not known.

    A rank of the built-in runtime copies its share to the device, a weight at a time; what is not split is quantized on
    the way. vLLM-Omni (0.26 to 0.32,
    diffusers_loader.py: hsdp_defer_to_cpu) makes a quantized DiT whole on the device before HSDP shards it.
    """
    if q["engine_name"] == "native":
        early = 0.0  # slices are read whole, and quantized then
        if q["tensor_parallel_size"] > 1 and q["quantization"]:
            early += dit * (size - 1)
        if q["tensor_parallel_size"] > 1 and q["text_encoder_tensor_parallel"]:
            early += _text_gib(q, q["text_encoder_whole_bytes"]) - text
        return {"loading": early}
    if q["engine_name"].startswith("vllm-omni") and q["use_hsdp"]:
        whole = q["quantization"] and q["hsdp_weight_load_strategy"] != "pre_sharded"
        return {"loading": _dit_gib(q, size) - dit if whole else 0.0}
    return {}


def _dit_gib(q: Mapping[str, Any], size: int) -> float:
    return float((q["transformer_parameters"] or 0) * 1e6 * (1 if q["quantization"] else size) / GIB)


def _gathered(q: Mapping[str, Any], work: Work) -> float:
    """Hidden vectors a token that a rank keeps of other ranks' tokens, or of the step before."""
    keys, group = 2 * work.kv_heads / work.heads, q["sequence_ranks"] * q["tensor_parallel_size"]
    kept = 0.0
    if q["allgather_degree"] > 1:
        kept += keys * q["allgather_degree"] / group
    if q["attention_2d"]:  # queries and their results of a row, keys and values of a column
        rows, columns = q["attention_2d"]
        kept += (2 * columns + keys * rows) / group
    if q["pipeline_parallel_size"] > 1 and q["engine_name"].startswith("xdit"):  # PipeFusion attends to the step before
        kept += keys * work.blocks / q["pipeline_parallel_size"] / group
    return float(kept)


def _weights(
    q: Mapping[str, Any], work: Work | None, decoder: Decoder | None, size: int
) -> tuple[float, float, float, tuple[str, ...]]:
    """GiB of the DiT's share, the text encoders' share and the VAE."""
    dit, text = q["transformer_parameters"], q["text_encoder_parameters"]
    missing = [name for name, value in (("DiT", dit), ("text encoder", text), ("VAE", decoder)) if value is None]
    total = (dit or 0) * 1e6
    # Tensor parallelism splits the matrices of blocks; modulation, embeddings and norms are whole on each rank.
    split = min(total, work.block_weights * _transformers(q, work)) if work and total else total
    on_rank = (split / q["tensor_parallel_size"] + (total - split)) / q["pipeline_parallel_size"]
    if q["use_hsdp"]:
        on_rank = total / q["hsdp_shards"]
    bytes_of_dit = on_rank * (1 if q["quantization"] else size)
    vae = decoder.parameters * 1e6 * size if decoder else 0.0
    return bytes_of_dit / GIB, _text_gib(q, q["text_encoder_bytes"]), vae / GIB, tuple(missing)


def _text_gib(q: Mapping[str, Any], size: int) -> float:
    """GiB of a rank's share of the text encoders; embeddings, heads and vision are neither shared nor quantized."""
    text, whole = q["text_encoder_parameters"] or 0, q["text_encoder_whole_parameters"] or 0
    if not text:
        return 0.0
    shared = (text - whole) / q["text_encoder_ranks"] * size
    return float((shared + whole * q["text_encoder_whole_bytes"]) * 1e6 / GIB)


def _adapters(q: Mapping[str, Any], size: int) -> float | None:
    """GiB of LoRA adapters beside the weights; None where a file is not here, or it is not known what an engine keeps.

    The built-in runtime keeps them in the pipeline's precision, whole on each rank: tensor parallelism takes them off
    its slices again. HSDP shards them with the layers that they are beside.
    """
    if q["engine_name"] != "native":
        return None
    paths = [Path(item["path"] if isinstance(item, dict) else item.path) for item in q["lora"]]
    try:
        numbers = sum(_numbers(path, path.stat().st_mtime_ns) for path in paths)  # read again where it has changed
    except (OSError, ValueError):
        return None
    return numbers * size / (q["hsdp_shards"] if q["use_hsdp"] else 1) / GIB


@cache
def _numbers(path: Path, _: int) -> int:
    return sum(numbers_of(path)[0].values())


def _transformers(q: Mapping[str, Any], work: Work | None) -> int:
    """Whole transformers that the card's number of parameters makes room for; modulation is less than another one."""
    return max(1, int((q["transformer_parameters"] or 0) * 1e6 / work.block_weights)) if work else 1


def _batch(q: Mapping[str, Any], work: Work) -> int:
    """Images that pass through the DiT together: a pipeline that calls once batches the branches of guidance."""
    return work.batch * (-(-q["cfg_branches"] // q["cfg_parallel_size"]) if q["batched_guidance"] else 1)


def decode_values(q: Mapping[str, Any], decoder: Decoder) -> float:
    """Numbers that are live when one rank decodes: those of the tile or the frames at hand, and the result."""
    frames = (q["num_frames"] or 1) if q["vae_temporal_factor"] else 1
    pixels = q["width"] * q["height"]
    images = 1 if q["vae_use_slicing"] else q["images"]
    result = 3 * pixels * frames * q["images"]
    at_once = pixels * images
    if (q["vae_parallel_mode"] or "").startswith("spatial_shard"):  # each rank has a strip
        at_once /= q["vae_patch_parallel_size"]
    elif q["vae_use_tiling"] or decoder.always_tiled:
        at_once = min(at_once, decoder.tile**2 * images)
    if decoder.first_frame is not None and frames == 1:
        return float(decoder.first_frame * at_once + result)
    return float(decoder.values * at_once * min(frames, decoder.frames_at_once or frames) + result)
