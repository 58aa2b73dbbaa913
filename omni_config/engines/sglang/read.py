"""SGLang-diffusion: ``sglang generate`` and ``sglang serve``, its config files, and its variables for Cache-DiT."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from functools import partial
from math import prod
from pathlib import PurePosixPath
from typing import Any

from omni_config.catalog.identify import same_model
from omni_config.catalog.load import catalog
from omni_config.engines.facts import Facts, facts_of
from omni_config.engines.formats.common import lora_path
from omni_config.engines.formats.draft import Draft, Key, Typed, plain
from omni_config.engines.formats.flags import Flags
from omni_config.engines.formats.python import Script, words
from omni_config.engines.formats.shell import Command, Word
from omni_config.engines.formats.text import File
from omni_config.engines.sglang.offload import COMPONENT_FLAGS, name_components
from omni_config.engines.sglang.registry import is_registered, native_pipeline
from omni_config.engines.theirs import asked_of
from omni_config.findings import Span
from omni_config.mesh import DEGREES
from omni_config.reading.nodes import YamlNode
from omni_config.schema.settings import DEFAULTS

ENGINE = "sglang"

SETTINGS: dict[str, str | tuple[str, Any]] = {
    "model-path": "model",
    "model": "model",
    "num-gpus": "gpus",
    "tp-size": "tensor_parallel_size",
    "tp": "tensor_parallel_size",
    "dp-size": "data_parallel_size",
    "dp": "data_parallel_size",
    "ulysses-degree": "ulysses_degree",
    "ring-degree": "ring_degree",
    "kv-gather-degree": "allgather_degree",
    "enable-cfg-parallel": ("cfg_parallel_size", 2),
    "cfg-parallel-size": "cfg_parallel_size",
    "use-fsdp-inference": "use_hsdp",
    "dit-cpu-offload": "enable_cpu_offload",
    "dit-layerwise-offload": "enable_layerwise_offload",
    "pin-cpu-memory": "pin_cpu_memory",
    "vae-tiling": "vae_use_tiling",
    "vae-slicing": "vae_use_slicing",
    "quantization": "quantization",
    "dit-precision": "dtype",
    "precision": "dtype",
    "enable-teacache": "tea_cache",
    "enable-torch-compile": "compile",
    "prompt": "prompt",
    "negative-prompt": "negative_prompt",
    "image-path": "image",
    "num-inference-steps": "num_inference_steps",
    "num-frames": "num_frames",
    "num-outputs-per-prompt": "num_images_per_prompt",
    "true-cfg-scale": "cfg_scale",
    "seed": "seed",
    "height": "height",
    "width": "width",
}

#: Variables of the environment that set Cache-DiT.
VARIABLES = {
    "SGLANG_CACHE_DIT_FN": "Fn_compute_blocks",
    "SGLANG_CACHE_DIT_BN": "Bn_compute_blocks",
    "SGLANG_CACHE_DIT_WARMUP": "max_warmup_steps",
    "SGLANG_CACHE_DIT_RDT": "residual_diff_threshold",
    "SGLANG_CACHE_DIT_MC": "max_continuous_cached_steps",
    "SGLANG_CACHE_DIT_TAYLORSEER": "enable_taylorseer",
    "SGLANG_CACHE_DIT_TS_ORDER": "taylorseer_order",
    "SGLANG_CACHE_DIT_SCM_PRESET": "scm_steps_mask_policy",
    "SGLANG_CACHE_DIT_SCM_POLICY": "scm_steps_policy",
}
#: How ranks share the VAE decode, by its words (configs/models/vaes/base.py:237 of 0.5.23); the first is written.
DECODE_MODES = {
    "auto": "auto",
    "tiled": "tile",
    "patch": "patch",
    "spatial_shard": "spatial_shard",
    "spatial": "spatial_shard",
}
SWITCH = "SGLANG_CACHE_DIT_ENABLED"


def _decode_mode(draft: Draft, word: Word, span: Span) -> None:
    """``--vae-config.parallel-decode-mode``; the facts of the version refuse other words."""
    if word.value in DECODE_MODES:
        draft.set("vae_parallel_mode", DECODE_MODES[word.value], span)


def _guidance(draft: Draft, word: Word, span: Span) -> None:
    """``--guidance-scale``: of a model without a card, the argument by its own name."""

    def read() -> None:
        value = plain(word.value)
        if draft.has("model") and catalog().model(str(draft.get("model"))) is None:
            draft.set("guidance_scale", value, span)
        else:
            draft.guidance(value, span)

    draft.later.append(read)


def _sequence(draft: Draft, word: Word, span: Span) -> None:
    """``--sp-degree``: how its ranks share the sequence, ``effective.py`` says."""


FLAGS = Flags(
    engine=ENGINE,
    model_first=True,
    settings=SETTINGS,
    special={
        "sp-degree": _sequence,
        "sp-size": _sequence,
        "guidance-scale": _guidance,
        "vae-config.parallel-decode-mode": _decode_mode,
        "lora-path": lora_path,
    },
    quiet={
        **dict.fromkeys(("save-output", "trust-remote-code", "return-frames", "log-level"), 0),
        **dict.fromkeys(("host", "port", "output-path", "output-file-name", "fps", "lora-nickname"), 1),
    },
)
#: Those that are on or off, and take either as a word.
_SWITCHES = {flag for flag, setting in SETTINGS.items() if isinstance(setting, str) and DEFAULTS[setting] is False}
_SWITCHES |= {"pin-cpu-memory", *COMPONENT_FLAGS}
#: By these a worker of Dynamo (``python3 -m dynamo.sglang``) makes images or videos; it has further flags of its own.
_WORKERS = {"--image-diffusion-worker", "--video-generation-worker"}
#: What it takes by component, as ``--NAME.COMPONENT``, and as ``--COMPONENT-SUFFIX`` (server_args.py:3451 to 3670 of
#: 0.5.23); a more specific suffix stands in front.
_BY_COMPONENT = {
    "component_weights_paths": "-weights-path",
    "component_paths": "-path",
    "component_quantizations": "-quantization",
    "component_precisions": "",
    "component_direct_gpu_weight_loading": "",
    "component_quantization_ignored_layers": "",
    "component_attention_backends": "",
}
_PRECISIONS = ("fp32", "fp16", "bf16", "float32", "float16", "bfloat16")
_DIFFUSION_ONLY = {
    "--num-gpus",
    "--ulysses-degree",
    "--ring-degree",
    "--enable-cfg-parallel",
    "--dit-layerwise-offload",
}


def from_command(command: Command, file: File) -> Draft | None:
    """The deployment of a command; None where the command does not start this engine."""
    names = [PurePosixPath(word.value).name for word in command.words]
    for at, name in enumerate(names):
        following = names[at + 1 : at + 2]
        worker = name == "dynamo.sglang" and {word.value for word in command.words} & _WORKERS
        if not worker and (name != "sglang" or following not in (["generate"], ["serve"])):
            continue
        draft = Draft(file, ENGINE, command.words[at].text.span)
        draft.own_parser = not worker
        arguments = command.words[at + 1 if worker else at + 2 :]
        for number, word in enumerate(FLAGS.read(draft, arguments)):
            if number == 0 and word is command.words[at + 2] and following == ["serve"]:  # sglang serve MODEL
                if word.names_model:
                    draft.set("model", word.value, word.text.span)
            elif not word.unknown and word.value.strip():
                draft.note("OMNI611", f"no flag takes the word {word.value}", word.text.span)
        flags = {word.value.partition("=")[0] for word in command.words}
        known = _is_known(draft) or _serves_known(draft)
        if following == ["serve"] and not known and not flags & _DIFFUSION_ONLY:
            return None  # a language model
        name_components(draft)
        _environment(draft, command.environment)
        draft.of_version = partial(_of_version, draft, command.environment)
        draft.finish()
        if worker and not draft.has("gpus"):
            _count(draft)
        return draft
    return None


def _count(draft: Draft) -> None:
    """The GPUs of Dynamo's worker, which counts them by the degrees (dynamo/sglang/init_diffusion.py)."""
    degrees = [draft.get(name) for name in (*DEGREES, "data_parallel_size") if draft.has(name)]
    if degrees and all(isinstance(size, int) for size in degrees):
        draft.set("gpus", prod(degrees), draft.place)


def from_python(script: Script) -> list[Draft]:
    """The deployments of a script: each generator that it makes, with what it is to make."""
    drafts = []
    for call in script.calls:
        if call.receiver is not None or not call.name.startswith("sglang.") or call.last != "from_pretrained":
            continue
        if call.name.split(".")[-2] != "DiffGenerator":
            continue
        draft = Draft(script.file, ENGINE, call.span)
        said = call.keywords | dict(zip(("local_mode",), call.arguments, strict=False))
        said = {name: node for name, node in said.items() if name != "local_mode"}
        FLAGS.read(draft, words(said, script.file, _SWITCHES))
        name_components(draft)
        for made in script.of(call):
            if made.last == "generate":
                sampling = made.keywords.get("sampling_params_kwargs") or next(iter(made.arguments), None)
                FLAGS.read(draft, words(sampling.children if sampling else {}, script.file))
                break
        draft.finish()
        drafts.append(draft)
    return drafts


def from_yaml(node: YamlNode, file: File) -> list[Draft]:
    """A file for ``--config``; empty where the mapping is none."""
    if not isinstance(node.value, dict) or not node.value.get("model_path") or not _is_config(node):
        return []
    draft = Draft(file, ENGINE, node.children["model_path"].span)
    for key, child in node.children.items():
        name, span = str(key).replace("_", "-"), child.key_span or child.span
        target = SETTINGS.get(name)
        if isinstance(target, tuple):
            if child.value is True:
                draft.set(*target, span)
        elif target is not None:
            draft.set(target, child.value, child.span)
        elif name in FLAGS.special:
            FLAGS.special[name](draft, Word(file.scalar(child)), span)
        elif name in FLAGS.quiet:
            draft.left_out.append(str(key))
        taken = target is not None or name in FLAGS.special or name in FLAGS.quiet
        draft.keys.append(Key("", str(key).replace("-", "_"), child, taken))
    name_components(draft)
    draft.of_version = partial(_of_version, draft, {})
    draft.finish()
    return [draft]


def _is_config(node: YamlNode) -> bool:
    """Whether a mapping with a ``model_path`` may be one for ``--config``: most of its keys are the engine's."""
    facts = facts_of(catalog().versions(ENGINE)[0])
    keys = [str(key).replace("-", "_") for key in node.value]
    known = [key for key in keys if facts is None or key in facts.names or key.replace("_", "-") in SETTINGS]
    return 2 * len(known) >= len(keys)


def _environment(draft: Draft, environment: Mapping[str, Word]) -> None:
    enabled = environment.get(SWITCH)
    on = enabled is not None and enabled.value.lower() in ("1", "true")
    if on and enabled is not None:
        draft.set("cache_dit", True, enabled.text.span)
    for name, word in environment.items():
        if name in VARIABLES and on and word.unknown:
            draft.not_known((VARIABLES[name],), name, draft.place)
        elif name in VARIABLES and on and word.value != "none":
            value = word.value.lower() in ("1", "true") if name.endswith("TAYLORSEER") else None
            span = word.text.span
            if value is None:
                draft.words(VARIABLES[name], word.text, span)
            else:
                draft.set(VARIABLES[name], value, span)


def _is_known(draft: Draft) -> bool:
    """Whether the model is one of ours, or one that the newest version registers: no language model."""
    model, facts = str(draft.get("model")) if draft.has("model") else "", facts_of(catalog().versions(ENGINE)[0])
    return bool(model) and (
        same_model(model, catalog()) is not None or (facts is not None and is_registered(model, facts))
    )


def _serves_known(draft: Draft) -> bool:
    """Whether a model in words that only a run knows is served under the name of one of ours."""
    names = [word.value for typed in draft.typed if typed.name == "--served-model-name" for word in typed.words[:1]]
    return not draft.has("model") and any(catalog().model(name) is not None for name in names)


def _of_version(draft: Draft, environment: Mapping[str, Word], engine: str) -> None:
    """What only the facts of the version say: the pipeline, its variables, and what it takes by component."""
    facts = facts_of(engine)
    if facts is None:
        return
    asked = asked_of(engine)
    for name, word in environment.items():
        if (name.startswith("SGLANG_") or facts.reads_variable(name)) and not word.unknown:
            draft.options[name] = YamlNode(plain(word.value), word.text.span)
            if name.startswith("SGLANG_CACHE_DIT_") and name not in (*VARIABLES, SWITCH, *asked):
                draft.leave_unjudged(name, word.text.span)
    config = draft.options.get("attention_backend_config")
    if config and isinstance(config.value, str):
        for name, equals, value in (part.strip().partition("=") for part in config.value.split(",")):
            if equals:
                draft.options.setdefault(name, YamlNode(plain(value), config.span))
    for typed in draft.typed:
        if not facts.declares(typed.name) and facts.flag(typed.name):
            _by_component(draft, typed)
    for key in draft.keys:
        if key.name not in facts.names:
            place = key.node.key_span or key.node.span
            near = difflib.get_close_matches(key.name, facts.names, 1, 0.6)
            next_step = f"did you mean {near[0]}?" if near else "remove the key"
            draft.note("OMNI608", f"{engine} has no '{key.name}' and drops it silently", place, next_step=next_step)
            draft.not_judged = [one for one in draft.not_judged if one[0] != key.name]
    _pipeline(draft, engine, facts)


def _by_component(draft: Draft, typed: Typed) -> None:
    """One flag for a component: a part of a mapping, or of the text that names attention backends."""
    name, dot, component = typed.name.lstrip("-").partition(".")
    name = name.replace("-", "_")
    if not dot:
        plainly = typed.name.lstrip("-").replace("_", "-")
        found = ((setting, suffix) for setting, suffix in _BY_COMPONENT.items() if suffix and plainly.endswith(suffix))
        name, suffix = next(found, ("", ""))
        component = plainly.removesuffix(suffix)
    if name not in _BY_COMPONENT or any(word.unknown for word in typed.words):
        return
    words = [plain(word.value) for word in typed.words]
    if name == "component_precisions" and str(words[0] if words else "").lower() not in _PRECISIONS:
        choices = ", ".join(_PRECISIONS)
        draft.note(
            "OMNI612", f"{typed.name} takes one of {choices}, not {words[0] if words else 'nothing'}", typed.span
        )
        return
    value = words if name == "component_quantization_ignored_layers" else words[0] if words else True
    said = draft.options.get(name)
    component = component.replace("-", "_")
    if name == "component_attention_backends":
        text = f"{component}={value}"
        before = f"{said.value}," if said and isinstance(said.value, str) else ""
        draft.options[name] = YamlNode(before + text, typed.span)
    else:
        mapping = said.value if said and isinstance(said.value, dict) else {}
        draft.options[name] = YamlNode({**mapping, component: value}, said.span if said else typed.span)
    if name in ("component_paths", "component_weights_paths"):
        draft.options.setdefault(f"{component}_{name[10:-1]}", YamlNode(value, typed.span))


def _pipeline(draft: Draft, engine: str, facts: Facts) -> None:
    """The class that runs the model: its own, or that of diffusers, which it takes where it has none."""
    if not draft.has("model"):
        return
    name, backend = str(draft.get("model")), draft.options.get("backend")
    asked = backend.value if backend else "auto"
    if not isinstance(asked, str):
        return  # only a run knows it
    card = catalog().model(name)
    said = draft.options.get("pipeline_class_name")
    if said and isinstance(said.value, str) and facts.registers(said.value):
        native: str | None = said.value
    else:
        native = native_pipeline(name, card.pipeline if card else "", facts)
    place = draft.root.children["model"].span
    if asked == "diffusers" or native:
        draft.pipeline = "" if asked == "diffusers" else native or ""
    elif native == "" and asked == "sglang":
        message = f"{engine} registers no pipeline of its own for {name}"
        draft.note("OMNI614", message, place, next_step="remove --backend sglang: diffusers runs it then")
    elif native == "":
        draft.options["backend"] = YamlNode("diffusers", place)
