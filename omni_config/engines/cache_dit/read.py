"""cache-dit: the YAML of ``cache_dit.load_configs`` (it names no model), and ``cache_dit.generate EXAMPLE ...``."""

from __future__ import annotations

import difflib
from dataclasses import replace
from math import prod
from pathlib import PurePosixPath
from typing import Any

from omni_config.catalog.load import catalog
from omni_config.engines.facts import facts_of, plain_name
from omni_config.engines.formats.common import by_torchrun, lora_path, torchrun
from omni_config.engines.formats.draft import Draft, Key, plain
from omni_config.engines.formats.flags import Flags
from omni_config.engines.formats.python import Call, Made, Script, cached_pipelines, known, tree
from omni_config.engines.formats.shell import Command, Word
from omni_config.engines.formats.text import File
from omni_config.findings import Span
from omni_config.reading.nodes import YamlNode
from omni_config.schema.settings import PARAMETERS

ENGINE = "cache-dit"
SECTIONS = ("cache_config", "parallelism_config", "quantize_config")

#: Sizes of its parallelism, by their settings.
PARALLEL = {"ulysses_size": "ulysses_degree", "ring_size": "ring_degree", "tp_size": "tensor_parallel_size"}

#: Beginnings of the quantizations that a setting of ours stands for.
QUANTIZATIONS = ("float8", "int8")

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


#: What enable_cache switches on without a cache (cache_interface.py:274 of 1.5.3).
_ALONE = ("parallelism_config", "attention_backend", "quantize_config")


def from_python(script: Script) -> list[Draft]:
    """The deployments of a script that switches its caches or its parallelism on."""
    from omni_config.engines.diffusers.read import LOADERS, draft_of

    drafts = []
    for owner, call in cached_pipelines(script).items():
        loaded = owner.name.startswith("diffusers.") and owner.last in LOADERS
        draft = draft_of(script, ENGINE, owner) if loaded else Draft(script.file, ENGINE, call.span)
        said = tree(call.keywords, "cache_dit")
        if len(call.arguments) > 1:
            said.setdefault("cache_config", tree({"cache_config": call.arguments[1]}, "cache_dit")["cache_config"])
        cache = said.get("cache_config")
        if cache is not None and cache.value is None:
            cache = None
        if cache is None and any(said[name].value is not None for name in _ALONE if name in said):
            pass  # without the cache, which it has by default
        elif cache is not None and not isinstance(cache.value, dict):
            draft.not_known(("cache_dit",), "cache_config", cache.span)
        else:
            names = {name: name for name in PARAMETERS["cache_dit"]}
            section = known(draft, cache or YamlNode({}, call.span), names)
            for name in [name for name in section.children if name not in {*names, *OTHER_PARAMETERS}]:
                draft.keys.append(Key("DBCacheConfig", name, section.children.pop(name)))  # refused, in Python
            _cache(draft, section, call.span)
        calibrator = call.keywords.get("calibrator_config")
        if calibrator is not None and isinstance(calibrator.value, Made):
            _calibrator(draft, calibrator.value.call, calibrator.span)
        parallel = said.get("parallelism_config")
        if parallel is not None and isinstance(parallel.value, dict):
            _parallel(draft, known(draft, parallel, PARALLEL))
        elif parallel is not None and parallel.value is not None:
            draft.not_known(PARALLEL.values(), "parallelism_config", parallel.span)
        if (quantize := said.get("quantize_config")) is not None and isinstance(quantize.value, dict):
            _quantize(draft, known(draft, quantize, {"quant_type": "quantization"}))
        if call.open:
            draft.not_known(("cache_dit", *PARALLEL.values()), "arguments of enable_cache", call.span)
        drafts.append(draft)
    return drafts


def _calibrator(draft: Draft, call: Call, span: Span) -> None:
    if call.last != "TaylorSeerCalibratorConfig":
        draft.leave_unjudged(call.last, span)
        return
    draft.set("enable_taylorseer", True, span)
    order = call.keywords.get("taylorseer_order") or next(iter(call.arguments), None)
    if order is not None:
        draft.set("taylorseer_order", order.value, order.span)


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
            draft.options[key] = child
            draft.set(key, child.value, child.span)
        elif key in OTHER_PARAMETERS:
            draft.keys.append(Key("", key, child))
        else:
            draft.note("OMNI608", f"cache_config has no '{key}'; cache-dit drops it silently", place)


def _parallel(draft: Draft, section: YamlNode) -> None:
    inner = section.children.get("parallel_kwargs")
    modules: list[YamlNode] = []
    for key, child in [*section.children.items(), *(inner.children.items() if inner else ())]:
        if key in PARALLEL and child.value not in ("auto", None):
            draft.options[key] = child
            draft.set(PARALLEL[key], child.value, child.span)
        elif key in PARALLEL:
            draft.options[key] = child
            if child.value is not None:
                draft.leave_unjudged(f"{key} auto", child.key_span or child.span)
        elif key == "ulysses_anything":
            draft.options[key] = child
            if child.value is True and section.value.get("ulysses_size") == "auto":
                draft.leave_unjudged(str(key), child.key_span or child.span)
            elif child.value is True:
                draft.set("ulysses_mode", "advanced_uaa", child.span)
        elif key == "ulysses_async" and isinstance(child.value, bool):
            draft.set("async_ulysses", child.value, child.span)
        elif key == "extra_parallel_modules" and isinstance(child.value, list):
            modules += child.children.values()
        elif key != "parallel_kwargs" and child.value is not None:
            draft.keys.append(Key("", str(key), child))
    _parallel_modules(draft, [(str(module.value), module.span) for module in modules])


def _parallel_modules(draft: Draft, modules: list[tuple[str, Span]]) -> None:
    """Modules beside the transformer that its ranks share."""
    ranks = prod(size if isinstance(size := draft.get(name), int) else 1 for name in PARALLEL.values())
    for module, span in modules:
        if module == "vae" and ranks > 1:  # all ranks share the decode
            draft.set("vae_patch_parallel_size", ranks, span)
        elif module == "text_encoder" and (draft.get("tensor_parallel_size") or 1) > 1:
            draft.set("text_encoder_tensor_parallel", True, span)
        else:
            draft.leave_unjudged(f"parallel {module}", span)


def _quantize(draft: Draft, section: YamlNode) -> None:
    for key, child in section.children.items():
        kind = str(child.value)
        if key == "quant_type" and kind.startswith(QUANTIZATIONS):
            draft.options[key] = child
            draft.set("quantization", _ours(kind), child.span)
        elif key == "precision_plan" and isinstance(child.value, dict):
            draft.options[key] = child
            other = [node for node in child.children.values() if str(node.value).lower() not in _quantization_types()]
            if other:
                draft.options["precision_plan_other"] = other[0]
        elif key != "verbose":
            draft.keys.append(Key("", str(key), child))


def _quantization_types() -> tuple[str, ...]:
    """The quantizations of torchao that the newest version knows."""
    facts = facts_of(catalog().versions(ENGINE)[0])
    return facts.registry("quantization _ALLOWED_QUANTIZE_TYPES") if facts else ()


#: Examples of ``cache_dit.generate``, and the model of each.
EXAMPLES = {
    "flux": "black-forest-labs/FLUX.1-dev",
    "flux_nunchaku": "black-forest-labs/FLUX.1-dev",
    "flux_fill": "black-forest-labs/FLUX.1-Fill-dev",
    "flux2": "black-forest-labs/FLUX.2-dev",
    "flux2_klein_4b": "black-forest-labs/FLUX.2-klein-4B",
    "flux2_klein_9b": "black-forest-labs/FLUX.2-klein-9B",
    "flux2_klein_base_4b": "black-forest-labs/FLUX.2-klein-base-4B",
    "flux2_klein_base_9b": "black-forest-labs/FLUX.2-klein-base-9B",
    "flux2_klein_4b_edit": "black-forest-labs/FLUX.2-klein-4B",
    "flux2_klein_9b_edit": "black-forest-labs/FLUX.2-klein-9B",
    "flux2_klein_base_4b_edit": "black-forest-labs/FLUX.2-klein-base-4B",
    "flux2_klein_base_9b_edit": "black-forest-labs/FLUX.2-klein-base-9B",
    "flux2_klein_9b_kv_edit": "black-forest-labs/FLUX.2-klein-9b-kv",
    "qwen_image": "Qwen/Qwen-Image",
    "qwen_image_2512": "Qwen/Qwen-Image-2512",
    "qwen_image_lightning": "Qwen/Qwen-Image",
    "qwen_image_controlnet": "Qwen/Qwen-Image",
    "qwen_image_edit": "Qwen/Qwen-Image-Edit-2509",
    "qwen_image_edit_lightning": "Qwen/Qwen-Image-Edit-2509",
    "qwen_image_edit_2511": "Qwen/Qwen-Image-Edit-2511",
    "qwen_image_edit_2511_lightning": "Qwen/Qwen-Image-Edit-2511",
    "qwen_image_layered": "Qwen/Qwen-Image-Layered",
    "skyreels_v2": "Skywork/SkyReels-V2-T2V-14B-720P-Diffusers",
    "ltx2_t2v": "Lightricks/LTX-2",
    "ltx2_i2v": "Lightricks/LTX-2",
    "wan2.1_t2v": "Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
    "wan2.2_t2v": "Wan-AI/Wan2.2-T2V-A14B-Diffusers",
    "wan2.1_i2v": "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers",
    "wan2.2_i2v": "Wan-AI/Wan2.2-I2V-A14B-Diffusers",
    "wan2.1_vace": "Wan-AI/Wan2.1-VACE-1.3B-diffusers",
    "wan2.2_vace": "linoyts/Wan2.2-VACE-Fun-14B-diffusers",
    "ovis_image": "AIDC-AI/Ovis-Image-7B",
    "zimage": "Tongyi-MAI/Z-Image",
    "zimage_turbo": "Tongyi-MAI/Z-Image-Turbo",
    "zimage_turbo_nunchaku": "Tongyi-MAI/Z-Image-Turbo",
    "zimage_turbo_controlnet_2.0": "Tongyi-MAI/Z-Image-Turbo",
    "zimage_turbo_controlnet_2.1": "Tongyi-MAI/Z-Image-Turbo",
    "longcat_image": "meituan-longcat/LongCat-Image",
    "longcat_image_edit": "meituan-longcat/LongCat-Image-Edit",
    "glm_image": "zai-org/GLM-Image",
    "glm_image_edit": "zai-org/GLM-Image",
    "firered_image_edit_1.0": "FireRedTeam/FireRed-Image-Edit-1.0",
    "firered_image_edit_1.1": "FireRedTeam/FireRed-Image-Edit-1.1",
    "helios_t2v": "BestWishYsh/Helios-Base",
    "helios_t2v_distill": "BestWishYsh/Helios-Distilled",
    "cosmos3_omni_t2v": "nvidia/Cosmos3-Nano",
    "cosmos3_omni_t2i": "nvidia/Cosmos3-Nano",
    "boogu_image_edit": "BOOGU-IMAGE/Boogu-Image-0.1-Edit",
    "ernie_image": "baidu/ERNIE-Image",
    "ernie_image_turbo": "baidu/ERNIE-Image-Turbo",
    "krea2": "krea/Krea-2-Turbo",
    "joy_image_edit": "jdopensource/JoyAI-Image-Edit-Diffusers",
    "bria_fibo": "briaai/FIBO",
    "anyflow_t2v": "nvidia/AnyFlow-Wan2.1-T2V-14B-Diffusers",
    "anyflow_far": "nvidia/AnyFlow-FAR-Wan2.1-1.3B-Diffusers",
}

#: Parameters of the cache by their flags, each with the default of the command, which is not the library's.
CACHE_FLAGS: dict[str, tuple[str, Any]] = {
    "Fn-compute-blocks": ("Fn_compute_blocks", 1),
    "Bn-compute-blocks": ("Bn_compute_blocks", 0),
    "residual-diff-threshold": ("residual_diff_threshold", 0.12),
    "max-warmup-steps": ("max_warmup_steps", 8),
    "max-cached-steps": ("max_cached_steps", -1),
    "max-continuous-cached-steps": ("max_continuous_cached_steps", 3),
    "taylorseer": ("enable_taylorseer", False),
    "taylorseer-order": ("taylorseer_order", 1),
}

#: Settings of ``--parallel-type``: one has all ranks, of two the first has half of them.
PARALLEL_TYPES = {
    "tp": ("tensor_parallel_size",),
    "ulysses": ("ulysses_degree",),
    "ring": ("ring_degree",),
    "usp": ("ulysses_degree", "ring_degree"),
    "ulysses_tp": ("ulysses_degree", "tensor_parallel_size"),
    "tp_ulysses": ("tensor_parallel_size", "ulysses_degree"),
    "ring_tp": ("ring_degree", "tensor_parallel_size"),
    "tp_ring": ("tensor_parallel_size", "ring_degree"),
    "usp_tp": ("ulysses_degree", "ring_degree", "tensor_parallel_size"),
}

#: Modules beside the transformer, by the flags that let its ranks share them.
MODULES = {"parallel-text-encoder": "text_encoder", "parallel-vae": "vae"}

FLAGS = Flags(
    engine=ENGINE,
    settings={
        "model-path": "model",
        "prompt": "prompt",
        "negative-prompt": "negative_prompt",
        "image-path": "image",
        "num-inference-steps": "num_inference_steps",
        "steps": "num_inference_steps",
        "num-frames": "num_frames",
        "frames": "num_frames",
        "height": "height",
        "width": "width",
        "seed": "seed",
        "cpu-offload": "enable_cpu_offload",
        "cpu-offload-model": "enable_cpu_offload",
        "vae-tiling": "vae_use_tiling",
        "vae-slicing": "vae_use_slicing",
        "compile": "compile",
        "ulysses-async": "async_ulysses",
    },
    special={"lora-path": lora_path},
)


def from_command(command: Command, file: File) -> Draft | None:
    """The deployment of ``cache_dit.generate``; None where the command is none, or only lists the examples."""
    words = command.words
    for at, word in enumerate(words):
        path = PurePosixPath(word.value)
        if word.value == "cache_dit.generate" or path.parts[-2:] == ("cache_dit", "generate.py"):
            return _generate(words[:at], words[at:], file)
    return None


def _generate(launcher: list[Word], words: list[Word], file: File) -> Draft | None:
    draft = Draft(file, ENGINE, words[0].text.span)
    draft.own_parser = True
    names = [word for word in FLAGS.read(draft, words[1:]) if word.value != "generate"]
    if any(word.value == "list" for word in names):
        return None
    if names and not names[0].unknown:
        name, place = names[0].value, names[0].text.span
        draft.options["example"] = YamlNode(name, place)
        if name not in EXAMPLES:
            near = difflib.get_close_matches(name, EXAMPLES, 1, 0.6)
            next_step = f"did you mean {near[0]}?" if near else "cache_dit.generate list shows them"
            draft.note("OMNI612", f"cache-dit has no example {name}", place, next_step=next_step)
        elif not draft.has("model"):
            draft.set("model", EXAMPLES[name], place)
    said = _said(draft)
    if found := torchrun(launcher):
        draft.set("gpus", found.processes, found.span)
        draft.nodes = found.nodes
    if "cache" in said:
        draft.set("cache_dit", True, said["cache"][1])
        for name, (setting, default) in CACHE_FLAGS.items():
            draft.set(setting, *said.get(name, (default, said["cache"][1])))
    if found or not by_torchrun(launcher):
        _parallel_flags(draft, said, found.processes if found else 1)
    else:
        draft.unknown.add("gpus")
    if not found and by_torchrun(launcher) and "parallel-type" in said:
        draft.leave_unjudged("--parallel-type (its ranks are known only to a run)", said["parallel-type"][1])
    _quantize_flags(draft, said)
    draft.finish()
    return draft


def _parallel_flags(draft: Draft, said: dict[str, tuple[Any, Span]], ranks: int) -> None:
    kind, span = said.get("parallel-type", (None, draft.place))
    settings = PARALLEL_TYPES.get(kind, ())
    half = max(1, ranks // 2)
    degrees = {1: (ranks,), 2: (half, ranks // half), 3: (2, 2, 2)}.get(len(settings), ())
    for setting, degree in zip(settings, degrees, strict=True):
        if degree > 1 and ranks > 1:
            draft.set(setting, degree, span)
    if settings:
        if "ulysses-anything" in said:
            draft.set("ulysses_mode", "advanced_uaa", said["ulysses-anything"][1])
        _parallel_modules(draft, [(module, said[flag][1]) for flag, module in MODULES.items() if flag in said])


def _quantize_flags(draft: Draft, said: dict[str, tuple[Any, Span]]) -> None:
    kinds = {name.replace("_", "-"): name for name in _quantization_types() if name.startswith(QUANTIZATIONS)}
    found = [(kinds[name], place) for name, (_, place) in said.items() if name in kinds]
    kind, span = said.get("quantize-type", (None, draft.place))
    if kind is None and not found and "quantize" in said:
        kind, span = "float8_per_row", said["quantize"][1]
    for name, place in [*found, *([(str(kind), span)] if kind in kinds.values() else [])]:
        draft.set("quantization", _ours(name), place)


def _ours(kind: str) -> str:
    """Our word for one of its quantizations."""
    return ("fp8" if kind.startswith("float8") else "int8") + ("_weight_only" if kind.endswith("weight_only") else "")


def _said(draft: Draft) -> dict[str, tuple[Any, Span]]:
    """The flags of a command by their full names, each with its value, or True, and its place.

    Those that are read here are taken.
    """
    facts = facts_of(catalog().versions(ENGINE)[0])
    said: dict[str, tuple[Any, Span]] = {}
    for at, typed in enumerate(draft.typed):
        flag = facts.flag(typed.name) if facts else None
        if flag is None or any(word.unknown for word in typed.words):
            continue
        name = plain_name(flag.name)
        said[name] = (plain(typed.words[0].value) if typed.words and flag.most_values else True, typed.span)
        if name in ("cache", "parallel-type", "ulysses-anything", *CACHE_FLAGS, *MODULES):
            draft.typed[at] = replace(typed, taken=True)
    return said
