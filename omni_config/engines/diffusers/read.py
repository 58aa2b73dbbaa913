"""diffusers: a Python script that loads a pipeline, changes how it runs, and calls it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import get_args

from omni_config.catalog.load import catalog
from omni_config.engines.facts import facts_of
from omni_config.engines.formats.draft import Draft, Key
from omni_config.engines.formats.python import Call, Made, Script, cached_pipelines, plain
from omni_config.findings import Span
from omni_config.reading.nodes import YamlNode
from omni_config.rules.quantities import UNKNOWN, has_unknown
from omni_config.schema.document import AttentionBackend

ENGINE = "diffusers"
PACKAGE = "diffusers"
LOADERS = ("from_pretrained", "from_single_file")

#: Fields of its settings that ours stand for.
SETTINGS = {
    ("ContextParallelConfig", "ulysses_degree"): "ulysses_degree",
    ("ContextParallelConfig", "ring_degree"): "ring_degree",
    ("TensorParallelConfig", "tp_degree"): "tensor_parallel_size",
}
_DEGREES = ("ulysses_degree", "ring_degree", "tensor_parallel_size")

#: Names of arguments by their place, of classes and methods that people call without names.
POSITIONAL = {
    "ContextParallelConfig": ("ring_degree", "ulysses_degree"),
    "TensorParallelConfig": ("tp_degree",),
    "FirstBlockCacheConfig": ("threshold",),
    "MagCacheConfig": ("threshold", "max_skip_steps", "retention_ratio"),
    "TaylorSeerCacheConfig": ("cache_interval", "disable_cache_before_step"),
    "LayerSkipConfig": ("indices", "fqn"),
    "TorchAoConfig": ("quant_type",),
    "QuantoConfig": ("weights_dtype",),
    "NVIDIAModelOptConfig": ("quant_type",),
    "BitsAndBytesConfig": ("load_in_8bit", "load_in_4bit"),
    "PipelineQuantizationConfig": ("quant_backend", "quant_kwargs"),
    "enable_group_offload": ("onload_device", "offload_device", "offload_type", "num_blocks_per_group"),
}

#: Arguments of the pipeline's call by our settings; the guidance's depends on the model.
SAMPLING = {
    "prompt": "prompt",
    "negative_prompt": "negative_prompt",
    "height": "height",
    "width": "width",
    "num_frames": "num_frames",
    "num_inference_steps": "num_inference_steps",
    "num_images_per_prompt": "num_images_per_prompt",
    "true_cfg_scale": "cfg_scale",
}
_TEXTS = ("prompt", "negative_prompt")
_LATER_CALL = ("height", "width", "num_frames", "num_inference_steps", "num_images_per_prompt")

#: What the card of a model says of its own pipeline, and not of another one that a script loads it with.
_OF_THE_PIPELINE = ("task", "cfg_branches", "guided", "needs_negative_prompt", "takes_distilled_guidance")

#: Methods, and what a run alone knows of our settings where a condition decides whether they are called.
METHODS: dict[str, tuple[str, ...]] = {
    "enable_model_cpu_offload": ("enable_cpu_offload",),
    "enable_sequential_cpu_offload": (),
    "enable_group_offload": ("enable_layerwise_offload",),
    "apply_group_offloading": ("enable_layerwise_offload",),
    "enable_parallelism": _DEGREES,
    "enable_cache": (),
    "enable_tiling": ("vae_use_tiling",),
    "enable_slicing": ("vae_use_slicing",),
    "enable_vae_tiling": ("vae_use_tiling",),
    "enable_vae_slicing": ("vae_use_slicing",),
    "set_attention_backend": ("attention_backend",),
    "load_lora_weights": ("lora",),
    "compile_repeated_blocks": ("compile",),
    "compile": ("compile",),
}
#: Methods that change how it runs, for which there is neither a setting nor a rule.
_OTHERS = {
    "enable_xformers_memory_efficient_attention",
    "enable_attention_slicing",
    "enable_layerwise_casting",
    "fuse_qkv_projections",
    "enable_freeu",
    "set_adapters",
    "enable_lora_hotswap",
    "set_attn_processor",
}
#: Arguments of loading that are judged or named; the others say where the files are.
_LOADING = ("device_map", "low_cpu_mem_usage", "quantization_config", "parallel_config", "max_memory")
#: Parts whose settings decide those of the deployment, where several parts have their own.
_DENOISERS = ("", "transformer", "unet", "transformer_2")

#: Packages that change a pipeline or a part of it, of which no setting speaks.
_PACKAGES = ("nunchaku", "para_attn", "torchao")
#: Configurations that need to know the step of their pipeline.
_STEPPED = ("PyramidAttentionBroadcastConfig", "FasterCacheConfig")


def from_python(script: Script) -> list[Draft]:
    """The deployments of a script: every pipeline that it loads and hands to no other engine, or what it has of one."""
    if not script.uses(PACKAGE):
        return []
    others = cached_pipelines(script)
    loaded = [call for call in script.calls if _loads(call)]
    pipelines = [call for call in loaded if _is_pipeline(_class(call))]
    drafts = [draft_of(script, ENGINE, call) for call in pipelines if call not in others]
    if not pipelines:
        parts = [call for call in loaded if _is_denoiser(_class(call)) and call not in others]
        drafts = [draft_of(script, ENGINE, call) for call in parts]
    if not loaded and (configs := [call for call in script.calls if _is_config(call)]):
        draft = Draft(script.file, ENGINE, configs[0].span)
        for call in configs:
            if call.last in _STEPPED:  # given where the pipeline is
                call.keywords.setdefault("current_timestep_callback", YamlNode(UNKNOWN, call.span))
            _config(draft, YamlNode(Made(call), call.span), {})
        drafts = [draft]
    if drafts and script.cut:
        drafts[0].leave_unjudged("the rest of the script (too long to be followed)", drafts[0].place)
    return drafts


def _loads(call: Call) -> bool:
    return call.receiver is None and call.name.startswith("diffusers.") and call.last in LOADERS


def _package(call: Call) -> str:
    return call.name.partition(".")[0]


def _class(call: Call) -> str:
    """``FluxPipeline`` of ``diffusers.FluxPipeline.from_pretrained``."""
    return call.name.split(".")[-2]


def _is_pipeline(name: str) -> bool:
    return (name.endswith("Pipeline") or name.startswith("AutoPipeline")) and "Modular" not in name


def _is_denoiser(name: str) -> bool:
    return "Transformer" in name or name.startswith("UNet") or name == "AutoModel"


def _is_config(call: Call) -> bool:
    return call.receiver is None and call.name.startswith("diffusers.") and call.last.endswith("Config")


def draft_of(script: Script, engine: str, made: Call) -> Draft:
    """The deployment of one pipeline, or of a part of one, in the order in which the script speaks of it."""
    draft = Draft(script.file, engine, made.span)
    name = _class(made)
    if f"pipeline {name}" in registered():
        draft.pipeline = name
    model = made.arguments[0] if made.arguments else made.keywords.get("pretrained_model_name_or_path")
    if model is not None and made.last == "from_pretrained":
        if isinstance(model.value, str):
            draft.set("model", model.value, model.span)
        else:
            draft.leave_unjudged("the model (known only to a run)", model.span)

    parts = {made: ""}
    seen: dict[str, Call] = {}
    for keyword, node in made.keywords.items():
        if isinstance(node.value, Made) and _loads(node.value.call) and not node.value.path:
            parts[node.value.call] = keyword
            if keyword in _DENOISERS:
                _load(draft, node.value.call, seen)
        elif isinstance(node.value, Made) and _package(node.value.call) in _PACKAGES:
            draft.leave_unjudged(f"{keyword} of {_package(node.value.call)}", node.span)
    _load(draft, made, seen)
    draft.unknown.add("image")  # an object, and one that not every pipeline needs
    card = catalog().model(str(draft.get("model"))) if draft.has("model") else None
    if card is not None and draft.pipeline not in ("", card.pipeline):
        draft.unknown.update(_OF_THE_PIPELINE)
    called = False
    for call in script.calls:
        part = _part(call, parts)
        if part is None:
            continue
        if call.receiver is not None and call.name == "" and part == "":
            if not called:
                _sample(draft, call, script)
            called = True
        else:
            _method(draft, call, part, seen)
    _conditions(draft, script.skipped)
    draft.finish()
    if card is not None and "cfg_scale" not in card.defaults and not draft.has("cfg_scale"):
        draft.unknown.add("cfg_scale")  # the pipeline's own default
    return draft


def registered() -> Iterable[str]:
    """The pipelines that the newest version has."""
    facts = facts_of(catalog().versions(ENGINE)[0])
    return facts.pipelines if facts else ()


def _part(call: Call, parts: dict[Call, str]) -> str | None:
    """The part of the pipeline that a call is about: empty for the pipeline itself, None where it is not about it."""
    if call.receiver is not None:
        inner = call.name.rpartition(".")[0]
        return _below(parts, call.receiver, inner)
    first = call.arguments[0].value if call.arguments else None
    if isinstance(first, Made):
        return _below(parts, first.call, first.path)
    return None


def _below(parts: dict[Call, str], owner: Call, path: str) -> str | None:
    if owner not in parts:
        return None
    return ".".join(name for name in (parts[owner], path) if name)


def _load(draft: Draft, call: Call, seen: dict[str, Call]) -> None:
    """The arguments with which a pipeline or a part of it is loaded."""
    for name, node in call.keywords.items():
        if name in ("torch_dtype", "dtype") and not isinstance(node.value, dict):
            draft.set("dtype", plain(node).value, node.span)
        elif isinstance(node.value, Made) and name in _LOADING:
            _config(draft, node, seen)
            _option(draft, name, node)
        elif name in _LOADING:
            _option(draft, name, node)


def _option(draft: Draft, name: str, node: YamlNode) -> None:
    """A setting of the engine's own."""
    node = plain(node)
    if node.value is not None:
        draft.options.setdefault(name, node)


def _arguments(call: Call, owner: str) -> Iterator[tuple[str, YamlNode]]:
    """The arguments of a call with their names."""
    yield from zip(POSITIONAL.get(owner, ()), call.arguments, strict=False)
    yield from call.keywords.items()


def _config(draft: Draft, node: YamlNode, seen: dict[str, Call]) -> None:
    """An object of the engine's settings, and those in it; a second one of a class is of another part, and named."""
    call = node.value.call if isinstance(node.value, Made) else None
    if call is None or not _is_config(call) or node.value.path:
        if node.value is UNKNOWN:
            draft.not_known((), "a config", node.span)
        return
    if seen.setdefault(call.last, call) is not call:
        draft.leave_unjudged(f"a further {call.last}", node.span)
        return
    if call.last == "ContextParallelConfig" and "mesh" in call.keywords:
        draft.not_known(_DEGREES[:2], "mesh", call.keywords["mesh"].span)
    later = {name: child for name, child in call.attributes.items() if "." not in name}
    for name, child in {**dict(_arguments(call, call.last)), **later}.items():
        inner = [child, *(child.children.values() if isinstance(child.value, dict) else ())]
        for each in inner:
            if isinstance(each.value, Made) and _is_config(each.value.call):
                _config(draft, each, seen)
        if isinstance(child.value, Made) and _is_config(child.value.call):
            continue
        known = not has_unknown(
            child.value
        )  # an object or a function that the script makes is none that only a run knows
        child = plain(child if child.key is not None else _keyed(child, name))
        setting = SETTINGS.get((call.last, name))
        if setting is not None:
            if child.value is not None:
                draft.set(setting, child.value, child.span)
        elif name == "ulysses_anything" and child.value is True:
            draft.set("ulysses_mode", "advanced_uaa", child.span)
        else:
            if not known:
                draft.leave_unjudged(f"{name} (known only to a run)", child.span)
            draft.keys.append(Key(call.last, name, child))
    if call.open:
        unsaid = tuple(setting for (owner, _), setting in SETTINGS.items() if owner == call.last)
        draft.not_known(unsaid, f"arguments of {call.last}", call.span)


def _keyed(node: YamlNode, name: str) -> YamlNode:
    return YamlNode(node.value, node.place, node.children, key=YamlNode(name, node.place))


def _method(draft: Draft, call: Call, part: str, seen: dict[str, Call]) -> None:
    """One call that changes how the pipeline runs."""
    name, span = call.last, call.span
    if name == "enable_model_cpu_offload":
        _after(draft, span)
        if "model_offload_after_group_offload" not in draft.options:
            draft.set("enable_cpu_offload", True, span)
    elif name == "enable_sequential_cpu_offload":
        draft.options["enable_sequential_cpu_offload"] = YamlNode(True, span)
        draft.leave_unjudged("enable_sequential_cpu_offload", span)
        _after(draft, span)
    elif name in ("enable_group_offload", "apply_group_offloading"):
        _group_offload(draft, call, part, seen)
    elif name == "enable_parallelism":
        if part in _DENOISERS[1:] and seen.setdefault(f"parallelism of {part}", call) is not call:
            draft.options["parallelism_twice"] = YamlNode(True, span)
        for key, node in call.keywords.items():
            if key == "config":
                _config(draft, node, seen)
            else:
                _option(draft, key, node)
    elif name in ("enable_tiling", "enable_vae_tiling") and part in ("vae", ""):
        draft.set("vae_use_tiling", True, span)
    elif name in ("enable_slicing", "enable_vae_slicing") and part in ("vae", ""):
        draft.set("vae_use_slicing", True, span)
    elif name == "set_attention_backend" and part in _DENOISERS and call.arguments:
        _attention(draft, plain(call.arguments[0]))
    elif name == "load_lora_weights" and call.arguments:
        _lora(draft, plain(call.arguments[0]))
    elif name == "compile_repeated_blocks":
        draft.set("compile", True, span)
        draft.options["compile_repeated_blocks"] = YamlNode(True, span)
    elif name == "compile" and part in _DENOISERS:
        draft.set("compile", True, span)
    elif name == "enable_cache" or (name.startswith("apply_") and call.name.startswith("diffusers.")):
        for node in (*call.arguments, *call.keywords.values()):
            _config(draft, node, seen)
    elif name in _OTHERS:
        draft.leave_unjudged(name, span)
    elif call.receiver is None and _package(call) in _PACKAGES:
        draft.leave_unjudged(f"{name} of {_package(call)}", span)


def _after(draft: Draft, span: Span) -> None:
    """Note that the offload of whole models or layers comes after what forbids it."""
    if "offload_type" in draft.options:
        draft.options["model_offload_after_group_offload"] = YamlNode(True, span)
    if draft.has("tensor_parallel_size") and draft.get("tensor_parallel_size") != 1:
        draft.options["model_offload_after_tensor_parallel"] = YamlNode(True, span)


def _group_offload(draft: Draft, call: Call, part: str, seen: dict[str, Call]) -> None:
    span = call.span
    if seen.setdefault("group offload", call) is not call:
        draft.leave_unjudged(f"group offload of {part or 'the pipeline'}", span)
        return
    arguments = call.arguments[1:] if call.receiver is None else call.arguments
    said = dict(zip(POSITIONAL["enable_group_offload"], arguments, strict=False)) | call.keywords
    said.setdefault("offload_type", YamlNode("block_level", span))
    if call.open:
        draft.not_known((), "arguments of group offload", span)
        for name in ("num_blocks_per_group", "use_stream", "record_stream"):
            said.setdefault(name, YamlNode(UNKNOWN, span))
    for name, node in said.items():
        if name != "low_cpu_mem_usage":  # another one than that of loading
            _option(draft, name, node)
    if part == "transformer" and (draft.get("tensor_parallel_size") or 1) > 1:
        draft.options["group_offload_after_tensor_parallel"] = YamlNode(True, span)
    if part not in _DENOISERS:
        return
    if draft.get("enable_cpu_offload") or "enable_sequential_cpu_offload" in draft.options:
        draft.options["group_offload_after_model_offload"] = YamlNode(True, span)
    else:
        draft.set("enable_layerwise_offload", True, span)


def _attention(draft: Draft, node: YamlNode) -> None:
    if node.value in get_args(AttentionBackend) if isinstance(node.value, str) else node.value is UNKNOWN:
        draft.set("attention_backend", node.value, node.span)
    else:
        draft.options["attention_backend"] = node


def _lora(draft: Draft, source: YamlNode) -> None:
    """One more adapter."""
    if not isinstance(source.value, str):
        draft.not_known(("lora",), "a LoRA adapter", source.span)
        return
    path = YamlNode(source.value, source.span)
    node = YamlNode({"path": source.value}, source.span, children={"path": path})
    have = draft.root.children.get("lora")
    if have is None:
        draft.root.value["lora"] = []
        have = draft.root.children["lora"] = YamlNode(draft.root.value["lora"], source.span)
    have.children[len(have.value)] = node
    have.value.append(node.value)


def _sample(draft: Draft, call: Call, script: Script) -> None:
    """The call of the pipeline: what it is to make."""
    arguments = dict(zip(("prompt",), call.arguments, strict=False)) | call.keywords
    for name, node in arguments.items():
        setting = SAMPLING.get(name)
        if name == "guidance_scale":
            draft.later.append(partial(_guidance, draft, plain(node)))
        elif name == "generator" and isinstance(node.value, Made):
            _seed(draft, node.value.call, script)
        elif setting is not None and node.value is not None:
            value = plain(node).value
            if name in _TEXTS and isinstance(value, list) and len(value) == 1:
                value = value[0]  # a batch of one
            card = catalog().model(str(draft.get("model"))) if draft.has("model") else None
            if name == "num_frames" and card is not None and not card.task.endswith("_to_video"):
                draft.leave_unjudged(name, node.span)  # the pipeline takes it all the same
                continue
            fits = isinstance(value, str) if name in _TEXTS else isinstance(value, int | float)
            if fits:
                draft.set(setting, value, node.span)
            elif name != "prompt":
                draft.not_known((setting,), name, node.span)
    if call.open:
        unsaid = [setting for name, setting in SAMPLING.items() if name not in arguments and name != "prompt"]
        draft.not_known([*unsaid, "guidance_scale"], "arguments of the pipeline", call.span)


def _guidance(draft: Draft, node: YamlNode) -> None:
    if isinstance(node.value, int | float):
        draft.guidance(node.value, node.span)
    elif node.value is not None:
        draft.not_known(("guidance_scale", "cfg_scale"), "guidance_scale", node.span)


def _seed(draft: Draft, generator: Call, script: Script) -> None:
    for call in (generator, *script.of(generator)):
        if call.last == "manual_seed" and call.arguments and isinstance(call.arguments[0].value, int):
            draft.set("seed", call.arguments[0].value, call.arguments[0].span)


def _conditions(draft: Draft, skipped: list[tuple[str, Span]]) -> None:
    """Calls that are made only where a condition holds which a run knows."""
    for name, span in skipped:
        if name in METHODS:
            unsaid = [setting for setting in METHODS[name] if not draft.has(setting)]
            draft.not_known(unsaid, f"whether {name} is called", span)
