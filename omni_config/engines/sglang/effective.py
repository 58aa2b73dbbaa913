"""What SGLang makes of a deployment where nothing is said: the sharing of its GPUs, its pipeline's own defaults.

One method decides about ranks, and is the same from 0.5.18 to 0.5.23 (``ServerArgs._adjust_parallelism``).
"""

from __future__ import annotations

from typing import Any

from omni_config.engines.facts import Facts
from omni_config.engines.formats.draft import Draft
from omni_config.engines.sglang.registry import entry_of
from omni_config.rules.quantities import UNKNOWN
from omni_config.schema.settings import FIELDS

_ARGUMENTS = "ServerArgs"
#: What requests may leave to the class of the model's requests.
_REQUEST = (
    *("num_inference_steps", "width", "height", "num_frames"),
    *("negative_prompt", "guidance_scale", "true_cfg_scale"),
)
_DEGREES = ("tensor_parallel_size", "data_parallel_size", "cfg_parallel_size", "ulysses_degree", "ring_degree")

#: Degrees of a worker that computes the transformer alone, which count for it instead of the general ones.
_DENOISER = {
    "denoiser_tp": "tensor_parallel_size",
    "denoiser_ulysses": "ulysses_degree",
    "denoiser_ring": "ring_degree",
}


def decide(draft: Draft, facts: Facts) -> None:
    """Add what the engine chooses to a deployment."""
    entry = entry_of(draft, facts)
    _role(draft)
    if not draft.has("gpus") and (found := facts.default(_ARGUMENTS, "num_gpus")):
        draft.decide("gpus", found[0], "default", found[1])
    backend = draft.options.get("backend")
    if backend is not None and backend.value == "diffusers":
        _repeat(draft)
    elif not draft.unknown.intersection((*_DEGREES, "gpus", "allgather_degree")):
        _share(draft, facts, entry)
    _place(draft, facts, entry)
    for name in _REQUEST:
        found = facts.default(entry.get("sampling_params", ""), name)
        says = found is not None and found[0] is not None and (name, found[0]) != ("num_frames", 1)
        if found and says and name not in draft.options:
            draft.decide(name, found[0], "default", found[1])


def _role(draft: Draft) -> None:
    """The degrees of a worker's own role (``ServerArgs.for_disagg_role``)."""
    role = draft.options.get("disagg_role")
    if role is None or role.value is UNKNOWN or role.value not in ("denoiser", "denoising"):
        return
    for name, setting in _DENOISER.items():
        degree = draft.options.get(name)
        if degree is not None and isinstance(degree.value, int):
            draft.drop(setting)
            draft.set(setting, degree.value, degree.span)
    if (sequence := draft.options.get("denoiser_sp")) is not None:
        draft.options["sp_degree"] = sequence


def _share(draft: Draft, facts: Facts, entry: dict[str, Any]) -> None:
    """CFG-parallelism where nothing else is named, and the sequence over the ranks that are left."""
    at = facts.method(_ARGUMENTS, "_adjust_parallelism")
    gpus = draft.get("gpus") or 1
    said = {name: draft.get(name) for name in (*_DEGREES, "allgather_degree") if draft.has(name)}
    sequence = draft.options.get("sp_degree")
    if sequence is not None and not isinstance(sequence.value, int):
        return
    if not all(isinstance(size, int) and size > 0 for size in (gpus, *said.values())):
        return
    ranks = said.get("tensor_parallel_size", 1) * said.get("data_parallel_size", 1)
    branches = said.get("cfg_parallel_size", 1)
    if not {"cfg_parallel_size", "ulysses_degree", "ring_degree"} & said.keys() and sequence is None:
        chosen = _branches(draft, facts, entry, gpus, ranks)
        if chosen is None:
            draft.ranks_not_known(f"{gpus} GPUs (how the engine shares them for this model is not known)", draft.place)
            return
        if chosen > 1:
            draft.decide("cfg_parallel_size", chosen, "inferred", at, "the model's requests use guidance by default")
            branches = chosen
    left, rest = divmod(gpus, ranks * branches)
    left = sequence.value if sequence is not None else 1 if rest else left
    if left > 1 and not {"ulysses_degree", "ring_degree", "allgather_degree"} & said.keys():
        setting = "allgather_degree" if left == 2 else "ulysses_degree"
        draft.decide(setting, left, "inferred", at, "for the ranks that are left")
    degrees = [draft.get(name) or 1 for name in (*_DEGREES, "allgather_degree")]
    if not draft.has("gpus") and any(size > 1 for size in degrees):
        draft.set("gpus", gpus, draft.place)  # it starts one, and refuses the degrees


def _repeat(draft: Draft) -> None:
    """With diffusers every GPU runs the whole pipeline: degrees are taken, and split nothing."""
    gpus = draft.get("gpus")
    if not isinstance(gpus, int) or gpus < 2 or "cache_dit_config" in draft.options:
        return  # a file of cache-dit may say how its ranks share the work
    degrees = (*_DEGREES, "allgather_degree")
    said = [draft.root.find(FIELDS[name]) for name in degrees if draft.has(name) and draft.get(name) != 1]
    message = f"SGLang runs this model with diffusers, whole on each of the {gpus} GPUs"
    place = said[0].span if said and said[0] else draft.place
    draft.note("OMNI643", message, place, "error" if said else "warning")
    for name in (*degrees, "gpus"):
        draft.drop(name)


def _branches(draft: Draft, facts: Facts, entry: dict[str, Any], gpus: int, ranks: int) -> int | None:
    """The branches of guidance that it computes side by side unasked; None where that is not known."""
    off = (draft.options.get("enable_cfg_parallel"), draft.options.get("cfg_parallel_degree"))
    mode = draft.options.get("performance_mode")
    deployment = entry.get("deployment", {})
    degree = dict(map(tuple, deployment.get("auto_cfg_parallel_degree_by_num_gpus", ()))).get(gpus, 2)
    if any(off) or (mode and mode.value == "manual") or not deployment.get("auto_enable_cfg_parallel", True):
        return 1
    if gpus < 2 or gpus % (ranks * degree):
        return 1
    if mode and mode.value is UNKNOWN:
        return None
    owner = entry.get("sampling_params", "")
    negative, scale = facts.default(owner, "negative_prompt"), facts.default(owner, "guidance_scale")
    if negative is None or scale is None or scale[0] is None:
        return None
    return degree if negative[0] is not None and scale[0] > 1 else 1


def _place(draft: Draft, facts: Facts, entry: dict[str, Any]) -> None:
    """Where the weights are, by the performance mode, and that ranks share the decode."""
    stated = draft.options.get("performance_mode")
    mode = stated.value if stated else (facts.default(_ARGUMENTS, "performance_mode") or ("auto",))[0]
    deployment = entry.get("deployment", {})
    at = facts.method(_ARGUMENTS, "_adjust_offload")
    if not stated and (found := facts.default(_ARGUMENTS, "performance_mode")):
        draft.decide("performance_mode", found[0], "default", found[1])
    if mode == "auto":
        least = deployment.get("keep_resident_min_available_gb")
        known = isinstance(least, int | float)
        why = f"resident from {least} GiB of free memory" if known else "by the free memory of its GPUs"
        draft.decide("component_residency", "decided at the start", "inferred", at, why)
    elif mode == "speed":
        draft.decide("component_residency", "all resident", "inferred", at)
    elif mode == "memory":
        draft.decide("component_residency", "offloaded, layer by layer on CUDA", "inferred", at)
    offloads = mode != "speed" or draft.get("enable_cpu_offload") or draft.get("enable_layerwise_offload")
    if offloads and not draft.has("pin_cpu_memory") and (found := facts.default(_ARGUMENTS, "pin_cpu_memory")):
        draft.decide("pin_cpu_memory", found[0], "default", found[1])
    decode = facts.default("VAEConfig", "use_parallel_decode")
    gpus = draft.get("gpus")
    several = isinstance(gpus, int) and gpus > 1
    if decode and decode[0] is True and several and "use_parallel_decode" not in draft.options:
        draft.decide("vae_config.use_parallel_decode", True, "switched on", decode[1], "its ranks share the decode")
