"""cache-dit: the YAML of ``cache_dit.load_configs`` (it names no model)."""

from __future__ import annotations

from math import prod

from omni_config.engines.formats.draft import Draft
from omni_config.engines.formats.text import File
from omni_config.findings import Span
from omni_config.reading.nodes import YamlNode
from omni_config.schema.settings import PARAMETERS

ENGINE = "cache-dit"
SECTIONS = ("cache_config", "parallelism_config", "quantize_config")

#: Sizes of its parallelism, by their settings.
PARALLEL = {"ulysses_size": "ulysses_degree", "ring_size": "ring_degree", "tp_size": "tensor_parallel_size"}

#: Parameters of its caches that no setting of ours stands for.
OTHER_PARAMETERS = {
    "warmup_interval",
    "num_inference_steps",
    "max_accumulated_residual_diff_threshold",
    "enable_separate_cfg",
    "cfg_compute_first",
    "cfg_diff_compute_separate",
    "force_refresh_step_hint",
    "force_refresh_step_policy",
    "enable_foca",
    "enable_dmd",
    "dmd_history",
    "dmd_svd_precision",
    "enable_encoder_taylorseer",
    "taylorseer_cache_type",
    "steps_computation_mask",
    "steps_computation_policy",
    "cache_type",
}


def from_yaml(node: YamlNode, file: File) -> list[Draft]:
    """The deployment of a file; empty where it is none of this library."""
    known = [key for key in node.children if key in SECTIONS] if isinstance(node.value, dict) else []
    if not known:
        return []
    draft = Draft(file, ENGINE, node.children[known[0]].key_span or node.span)
    for key, child in node.children.items():
        span = child.key_span or child.span
        if key == "cache_config" and isinstance(child.value, dict):
            _cache(draft, child, span)
        elif key == "parallelism_config" and isinstance(child.value, dict):
            _parallel(draft, child)
        elif key == "quantize_config" and isinstance(child.value, dict):
            _quantize(draft, child)
        else:
            draft.leave_unjudged(str(key), span)
    return [draft]


#: The library's own defaults, where they are not ours.
DEFAULTS = {
    "Fn_compute_blocks": 8,
    "max_warmup_steps": 8,
    "residual_diff_threshold": 0.08,
    "max_continuous_cached_steps": -1,
}


def _cache(draft: Draft, section: YamlNode, span: Span) -> None:
    draft.set("cache_dit", True, span)
    for name, value in DEFAULTS.items():
        draft.set(name, value, span)
    for key, child in section.children.items():
        place = child.key_span or child.span
        if key in PARAMETERS["cache_dit"]:
            draft.set(key, child.value, child.span)
        elif key in OTHER_PARAMETERS:
            draft.leave_unjudged(f"cache_config {key}", place)
        else:
            draft.note("OMNI608", f"cache_config has no '{key}'; cache-dit drops it silently", place)


def _parallel(draft: Draft, section: YamlNode) -> None:
    inner = section.children.get("parallel_kwargs")
    modules: list[YamlNode] = []
    for key, child in [*section.children.items(), *(inner.children.items() if inner else ())]:
        if key in PARALLEL and child.value not in ("auto", None):
            draft.set(PARALLEL[key], child.value, child.span)
        elif key == "ulysses_anything":
            if child.value is True and section.value.get("ulysses_size") == "auto":
                draft.leave_unjudged(str(key), child.key_span or child.span)
            elif child.value is True:
                draft.set("ulysses_mode", "advanced_uaa", child.span)
        elif key == "extra_parallel_modules" and isinstance(child.value, list):
            modules += child.children.values()
        elif key != "parallel_kwargs" and child.value is not None:
            value = f" {child.value}" if child.value == "auto" else ""
            draft.leave_unjudged(f"{key}{value}", child.key_span or child.span)

    ranks = prod(size if isinstance(size := draft.get(name), int) else 1 for name in PARALLEL.values())
    for module in modules:
        if module.value == "vae" and ranks > 1:  # all ranks share the decode
            draft.set("vae_patch_parallel_size", ranks, module.span)
        elif module.value == "text_encoder" and (draft.get("tensor_parallel_size") or 1) > 1:
            draft.set("text_encoder_tensor_parallel", True, module.span)
        else:
            draft.leave_unjudged(f"parallel {module.value}", module.span)


def _quantize(draft: Draft, section: YamlNode) -> None:
    for key, child in section.children.items():
        kind = str(child.value)
        if key == "quant_type" and kind.startswith(("float8", "int8")):
            draft.set("quantization", "fp8" if kind.startswith("float8") else "int8", child.span)
        elif key != "verbose":
            draft.leave_unjudged(f"quantize_config {key}", child.key_span or child.span)
