"""xDiT: ``xdit --model ...`` and its example scripts under torchrun."""

from __future__ import annotations

from math import prod
from pathlib import PurePosixPath
from typing import Any

from omni_config.engines.formats.common import guidance
from omni_config.engines.formats.draft import Draft, plain
from omni_config.engines.formats.flags import Flags
from omni_config.engines.formats.shell import Command, Word
from omni_config.engines.formats.text import File
from omni_config.findings import Span
from omni_config.mesh import DEGREES

ENGINE = "xdit"

SETTINGS: dict[str, str | tuple[str, Any]] = {
    "ulysses-degree": "ulysses_degree",
    "ring-degree": "ring_degree",
    "tensor-parallel-degree": "tensor_parallel_size",
    "data-parallel-degree": "data_parallel_size",
    "use-cfg-parallel": ("cfg_parallel_size", 2),
    "use-teacache": "tea_cache",
    "enable-model-cpu-offload": "enable_cpu_offload",
    "enable-tiling": "vae_use_tiling",
    "enable-slicing": "vae_use_slicing",
    "use-fp8-gemms": ("quantization", "fp8"),
    "use-int8-gemms": ("quantization", "int8"),
    "use-torch-compile": "compile",
    "prompt": "prompt",
    "negative-prompt": "negative_prompt",
    "input-images": "image",
    "img-file-path": "image",
    "num-inference-steps": "num_inference_steps",
    "num-frames": "num_frames",
    "seed": "seed",
    "height": "height",
    "width": "width",
}

CACHES = {"dbcache": "cache_dit", "teacache": "tea_cache"}

#: Short names of the runner, and the model that each stands for.
MODELS = {
    "FLUX.1-dev": "black-forest-labs/FLUX.1-dev",
    "FLUX.1-Kontext-dev": "black-forest-labs/FLUX.1-Kontext-dev",
    "FLUX.2-dev": "black-forest-labs/FLUX.2-dev",
    "FLUX.2-klein-9B": "black-forest-labs/FLUX.2-klein-9B",
    "Wan2.2-I2V": "Wan-AI/Wan2.2-I2V-A14B-Diffusers",
    "Wan2.2-T2V": "Wan-AI/Wan2.2-T2V-A14B-Diffusers",
    "SD3.5": "stabilityai/stable-diffusion-3.5-large",
    "Z-Image-Turbo": "Tongyi-MAI/Z-Image-Turbo",
    "LTX-2": "Lightricks/LTX-2",
    "Qwen-Image": "Qwen/Qwen-Image",
    "Qwen-Image-2512": "Qwen/Qwen-Image-2512",
    "Qwen-Image-Edit": "Qwen/Qwen-Image-Edit",
    "Qwen-Image-Edit-2509": "Qwen/Qwen-Image-Edit-2509",
    "Qwen-Image-Edit-2511": "Qwen/Qwen-Image-Edit-2511",
}


def _model(draft: Draft, word: Word, span: Span) -> None:
    draft.set("model", MODELS.get(word.value, word.value), span)


def _cache(draft: Draft, word: Word, span: Span) -> None:
    """``--cache_method``: dbcache is Cache-DiT's, with the model's own preset."""
    if word.value in CACHES:
        draft.set(CACHES[word.value], True, span)
    else:
        draft.leave_unjudged(f"cache method {word.value}", span)


def _fully_shard(draft: Draft, word: Word, span: Span) -> None:
    degree = plain(word.value)
    if isinstance(degree, int) and degree > 1:
        draft.set("use_hsdp", True, span)
        draft.set("hsdp_shard_size", degree, span)


def _parallel_vae(draft: Draft, span: Span) -> None:
    """``--use_parallel_vae`` takes every rank of the DiT."""
    sizes = [draft.get(name) for name in DEGREES]
    if all(isinstance(size, int) for size in sizes):
        draft.set("vae_patch_parallel_size", prod(sizes), span)


FLAGS = Flags(
    engine=ENGINE,
    settings=SETTINGS,
    special={
        "model": _model,
        "guidance-scale": guidance,
        "fully-shard-degree": _fully_shard,
        "cache-method": _cache,
    },
    quiet={
        **dict.fromkeys(("no-use-resolution-binning", "trust-remote-code", "profile", "use-profiler"), 0),
        **dict.fromkeys(("warmup-steps", "warmup-calls", "output-directory", "output-type", "num-iterations"), 1),
        **dict.fromkeys(("max-sequence-length", "batch-size"), 1),
        "use-parallel-vae": 0,
    },
)


def from_command(command: Command, file: File) -> Draft | None:
    """The deployment of a command; None where the command does not start this engine."""
    words = command.words
    names = [PurePosixPath(word.value).name for word in words]
    for at, name in enumerate(names):
        if name == "xdit" or (name.endswith("_example.py") and ("torchrun" in names or "python" in names[0])):
            draft = Draft(file, ENGINE, words[at].text.span)
            FLAGS.read(draft, words[at + 1 :])
            draft.finish()
            for word in words[at + 1 :]:
                if word.value.replace("-", "_") == "__use_parallel_vae":
                    _parallel_vae(draft, word.text.span)
            _gpus(draft, words[:at])
            return draft
    return None


def _gpus(draft: Draft, launcher: list[Word]) -> None:
    """The processes of torchrun, where no pipeline stage of PipeFusion takes a share of them."""
    if any("pipefusion" in typed.name for typed in draft.typed):
        return
    for at, word in enumerate(launcher):
        name, equals, value = word.value.replace("-", "_").partition("=")
        if name == "__nproc_per_node":
            given = word.text[len(word.value) - len(value) :] if equals else None
            count = given.value if given else launcher[at + 1].value if at + 1 < len(launcher) else ""
            if count.isdigit():
                draft.set("gpus", int(count), word.text.span)
