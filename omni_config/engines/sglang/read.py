"""SGLang-diffusion: ``sglang generate`` and ``sglang serve``, its config files, and its variables for Cache-DiT."""

from __future__ import annotations

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
    """``--sp-degree``: all of it is Ulysses where neither Ulysses nor Ring is said (the engine's own default)."""
    draft.later.append(lambda: _shared(draft, int(word.value), span) if word.value.isdigit() else None)


def _shared(draft: Draft, degree: int, span: Span) -> None:
    if not draft.has("ulysses_degree") and not draft.has("ring_degree"):
        draft.set("ulysses_degree", degree, span)


FLAGS = Flags(
    settings=SETTINGS,
    special={"sp-degree": _sequence, "sp-size": _sequence, "guidance-scale": guidance, "lora-path": lora_path},
    quiet={
        **dict.fromkeys(("save-output", "trust-remote-code", "return-frames", "pin-cpu-memory", "log-level"), 0),
        **dict.fromkeys(("host", "port", "output-path", "output-file-name", "fps", "lora-nickname"), 1),
    },
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
        FLAGS.read(draft, command.words[at + 2 :])
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
    """GPUs beyond the degrees that are said go to the sequence; where none is said, the engine chooses by itself."""
    draft.finish()
    gpus = draft.root.find(("hardware", "gpus"))
    if gpus is None or not isinstance(gpus.value, int):
        return
    said = {name: draft.get(name) for name in (*DEGREES, "data_parallel_size") if draft.has(name)}
    if gpus.value > 1 and all(size == 1 for size in said.values()):
        draft.drop("gpus")
        draft.leave_unjudged(f"{gpus.value} GPUs (the engine chooses how to share them)", gpus.span)
    elif all(isinstance(size, int) and size > 0 for size in said.values()):
        left, rest = divmod(gpus.value, prod(said.values()))
        if left > 1 and not rest:
            _shared(draft, left, gpus.span)
