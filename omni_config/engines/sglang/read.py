"""SGLang-diffusion: ``sglang generate`` and ``sglang serve``, its config files, and its variables for Cache-DiT."""

from __future__ import annotations

import re
from math import prod
from pathlib import PurePosixPath
from typing import Any

from omni_config.catalog.load import catalog
from omni_config.engines.formats.common import guidance, lora_path
from omni_config.engines.formats.draft import Draft
from omni_config.engines.formats.flags import Flags
from omni_config.engines.formats.shell import Command, Word
from omni_config.engines.formats.text import File
from omni_config.findings import Span
from omni_config.mesh import DEGREES
from omni_config.reading.nodes import YamlNode

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
    "enable-cfg-parallel": ("cfg_parallel_size", 2),
    "cfg-parallel-size": "cfg_parallel_size",
    "use-fsdp-inference": "use_hsdp",
    "dit-cpu-offload": "enable_cpu_offload",
    "dit-layerwise-offload": "enable_layerwise_offload",
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
SWITCH = "SGLANG_CACHE_DIT_ENABLED"


def _sequence(draft: Draft, word: Word, span: Span) -> None:
    """``--sp-degree``: the engine shares it among Ulysses and Ring, or takes K/V gather, where neither is said."""
    draft.later.append(lambda: _shared(draft, int(word.value), span) if word.value.isdigit() else None)


def _shared(draft: Draft, degree: int, span: Span) -> None:
    """A sequence of so many ranks, as the engine shares it (server_args.py:1735 of 0.5.23): 2 by K/V gather."""
    if draft.has("ulysses_degree") or draft.has("ring_degree") or degree == 1:
        return
    if degree == 2:
        _unjudged(draft, "a sequence of 2 ranks (the engine takes K/V gather)", span)
    else:
        draft.set("ulysses_degree", degree, span)


def _gather(draft: Draft, word: Word, span: Span) -> None:
    """``--kv-gather-degree``: a third way to share the sequence, which no setting of ours stands for."""
    if word.value != "1":
        draft.later.append(lambda: _unjudged(draft, f"--kv-gather-degree {word.value}", span))


def _unjudged(draft: Draft, name: str, span: Span) -> None:
    """Ranks that no setting stands for: the GPUs cannot be held against the degrees."""
    draft.leave_unjudged(name, span)
    draft.drop("gpus")


FLAGS = Flags(
    engine=ENGINE,
    settings=SETTINGS,
    special={
        "sp-degree": _sequence,
        "sp-size": _sequence,
        "kv-gather-degree": _gather,
        "guidance-scale": guidance,
        "lora-path": lora_path,
    },
    quiet={
        **dict.fromkeys(("save-output", "trust-remote-code", "return-frames", "pin-cpu-memory", "log-level"), 0),
        **dict.fromkeys(("host", "port", "output-path", "output-file-name", "fps", "lora-nickname"), 1),
    },
)
#: Flags that its parser takes by their form (server_args.py:3451 to 3670 of 0.5.23), or with a prefix that may be empty
#: (configs/pipeline_configs/base.py:802); ``--model-type`` is that of the program around it.
_FORMS = re.compile(
    r".+-(path|weights-path|quantization|attention-backend)|component-.+|model-type|(vae|dit|t5)-config\..+"
    r"|vae-(tiling|sp|slicing|precision|decode-precision)|(text-encoder|image-encoder|dit)-precisions?|flow-shift"
    r"|(streaming|scheduler-class-override|resolution|refiner-chunked|num-frame-per-block|embedded-cfg-scale)"
    r"|(dmd-denoising-steps|realtime-causal-.+|diffusion-decoder-.+)"
)
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
        if name != "sglang" or following not in (["generate"], ["serve"]):
            continue
        draft = Draft(file, ENGINE, command.words[at].text.span)
        draft.own_parser, draft.forms = True, _FORMS
        for number, word in enumerate(FLAGS.read(draft, command.words[at + 2 :])):
            if number == 0 and word is command.words[at + 2] and following == ["serve"]:  # sglang serve MODEL
                if not word.unknown:
                    draft.set("model", word.value, word.text.span)
            elif not word.unknown and word.value.strip():
                draft.note("OMNI611", f"no flag takes the word {word.value}", word.text.span)
        known = catalog().model(str(draft.get("model"))) if draft.has("model") else None
        flags = {word.value.partition("=")[0] for word in command.words}
        if following == ["serve"] and known is None and not flags & _DIFFUSION_ONLY:
            return None  # a language model
        _environment(draft, command.environment)
        _finish(draft)
        return draft
    return None


def from_yaml(node: YamlNode, file: File) -> list[Draft]:
    """A file for ``--config``; empty where the mapping is none."""
    if not isinstance(node.value, dict) or "model_path" not in node.value:
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
        else:
            draft.leave_unjudged(str(key), span)
    _finish(draft)
    return [draft]


def _environment(draft: Draft, environment: dict[str, Word]) -> None:
    enabled = environment.get(SWITCH)
    on = enabled is not None and enabled.value.lower() in ("1", "true")
    if on and enabled is not None:
        draft.set("cache_dit", True, enabled.text.span)
    for name, word in environment.items():
        if name in VARIABLES and on and word.value != "none":
            value = word.value.lower() in ("1", "true") if name.endswith("TAYLORSEER") else None
            span = word.text.span
            if value is None:
                draft.words(VARIABLES[name], word.text, span)
            else:
                draft.set(VARIABLES[name], value, span)
        elif name.startswith("SGLANG_CACHE_DIT_") and name != SWITCH:
            draft.leave_unjudged(name, word.text.span)


def _finish(draft: Draft) -> None:
    """The ranks that are not said: the engine starts one, and shares further ones by itself."""
    said = {name: draft.get(name) for name in (*DEGREES, "data_parallel_size") if draft.has(name)}
    ranks = prod(said.values()) if all(isinstance(size, int) and size > 0 for size in said.values()) else 1
    if ranks > 1 and not draft.has("gpus"):
        draft.set("gpus", 1, draft.place)
    before = len(draft.not_judged)
    draft.finish()
    gpus = draft.root.find(("hardware", "gpus"))
    if gpus is None or not isinstance(gpus.value, int) or draft.has("ulysses_degree") or draft.has("ring_degree"):
        return
    left, rest = divmod(gpus.value, ranks)
    if rest or left <= 1 or len(draft.not_judged) > before:
        return
    if draft.has("cfg_parallel_size"):
        _shared(draft, left, gpus.span)
    else:  # it may take CFG-parallel for some of them
        _unjudged(draft, f"{gpus.value} GPUs (the engine chooses how to share them)", gpus.span)
