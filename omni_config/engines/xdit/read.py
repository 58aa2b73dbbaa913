"""xDiT: ``xdit --model ...`` and its example scripts under torchrun."""

from __future__ import annotations

import difflib
from functools import cache, partial
from math import prod
from pathlib import PurePosixPath
from typing import Any

from omni_config.catalog.load import catalog
from omni_config.engines.facts import facts_of
from omni_config.engines.formats.common import by_torchrun, torchrun
from omni_config.engines.formats.draft import Draft, plain
from omni_config.engines.formats.flags import Flags
from omni_config.engines.formats.python import Script, words
from omni_config.engines.formats.shell import Command, Word
from omni_config.engines.formats.text import File
from omni_config.findings import Span
from omni_config.mesh import RANKS, degree
from omni_config.rules.quantities import UNKNOWN

ENGINE = "xdit"

SETTINGS: dict[str, str | tuple[str, Any]] = {
    "ulysses-degree": "ulysses_degree",
    "ring-degree": "ring_degree",
    "pipefusion-parallel-degree": "pipeline_parallel_size",
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

#: The classes of the runner, which its example scripts go without: they use its pipelines.
RUNNER = "xfuser/model_executor/models/runner_models/"
CACHES = {"dbcache": "cache_dit", "teacache": "tea_cache"}


@cache
def models() -> dict[str, str]:
    """Short names of the runner's models, of all versions, each with the id that the same class registers for it.

    A class that registers several checkpoints and none by that name chooses it by the task: such a name stays.
    """
    found: dict[str, str] = {}
    for engine in catalog().versions(ENGINE):
        facts = facts_of(engine)
        for pipeline in facts.pipelines.values() if facts else ():
            names = pipeline.get("names", ())
            ids = [name for name in names if "/" in name]
            for name in names:
                same = [
                    model
                    for model in ids
                    if model.rpartition("/")[2].lower() in (name.lower(), f"{name.lower()}-diffusers")
                ]
                if "/" not in name and (same or len(ids) == 1):
                    found.setdefault(name, (same or ids)[0])
    return found


def _model(draft: Draft, word: Word, span: Span) -> None:
    draft.set("model", models().get(word.value, word.value), span)


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
        draft.later.append(lambda: _shards(draft, degree, span))


def _shards(draft: Draft, degree: int, span: Span) -> None:
    """The ranks that share a copy of the weights, where they are not all."""
    if degree != prod(size for name in RANKS if isinstance(size := draft.get(name), int)):
        draft.set("hsdp_shard_size", degree, span)


def _text_encoder(draft: Draft, word: Word, span: Span) -> None:
    """``--text_encoder_tp_degree``, of which 0 means 1."""
    draft.set("text_encoder_tensor_parallel_size", plain(word.value) or 1, span)


def _guidance(draft: Draft, word: Word, span: Span) -> None:
    """``--guidance_scale``, which Qwen-Image's runners pass on as ``true_cfg_scale`` (runner_models/qwen.py:115)."""
    draft.later.append(lambda: draft.guidance(plain(word.value), span, is_true=True))


def _parallel_vae(draft: Draft, span: Span) -> None:
    """``--use_parallel_vae`` takes every rank of the DiT."""
    sizes = [draft.get(name) for name in RANKS]
    if all(size is None or isinstance(size, int) for size in sizes):
        draft.set("vae_patch_parallel_size", prod(map(degree, sizes)), span)


FLAGS = Flags(
    engine=ENGINE,
    settings=SETTINGS,
    special={
        "model": _model,
        "guidance-scale": _guidance,
        "fully-shard-degree": _fully_shard,
        "text-encoder-tp-degree": _text_encoder,
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
        launched = by_torchrun(words[:at]) or "python" in names[0]
        if name == "xdit" or (launched and (_is_example(words, at) or _is_runner(words[at].value))):
            draft = Draft(file, ENGINE, words[at].text.span)
            draft.own_parser = not _is_example(words, at)  # of which some have parsers of their own
            draft.not_run = "" if draft.own_parser else RUNNER
            FLAGS.read(draft, words[at + 1 :])
            draft.finish()
            for word in words[at + 1 :]:
                if word.value.replace("-", "_") == "__use_parallel_vae":
                    _parallel_vae(draft, word.text.span)
            if found := torchrun(words[:at]):
                draft.set("gpus", found.processes, found.span)
                draft.nodes = found.nodes
            elif by_torchrun(words[:at]):
                draft.unknown.add("gpus")
            if draft.own_parser:
                draft.of_version = partial(_of_version, draft)
            return draft
    return None


def from_python(script: Script) -> list[Draft]:
    """The deployments of a script that fills xDiT's arguments itself; those of its command line are unknown."""
    drafts = []
    for call in script.calls:
        if call.receiver is not None or call.name.split(".")[0] != "xfuser":
            continue
        if call.last == "xFuserArgs":
            said = call.keywords
        elif call.last == "xFuserModelRunner":
            config = call.keywords.get("config") or next(iter(call.arguments), None)
            said = config.children if config is not None and isinstance(config.value, dict) else {}
        else:
            continue
        if not said:
            continue  # from a command line
        draft = Draft(script.file, ENGINE, call.span)
        FLAGS.read(draft, words(said, script.file))
        draft.finish()
        if (parallel_vae := said.get("use_parallel_vae")) and parallel_vae.value is True:
            _parallel_vae(draft, parallel_vae.span)
        drafts.append(draft)
    return drafts


def _of_version(draft: Draft, engine: str) -> None:
    """What the runner refuses of a model: one that no class is registered for, and what its class does not declare."""
    facts, model = facts_of(engine), draft.options.get("model")
    card = catalog().engine(engine)
    if facts is None or card is None or model is None or not isinstance(model.value, str):
        return
    classes = {name: one for one in facts.pipelines.values() for name in one.get("names", ())}
    if model.value not in classes:
        near = difflib.get_close_matches(model.value, classes, 1, 0.6)
        next_step = f"did you mean {near[0]}?" if near else "name one that it registers"
        draft.note("OMNI614", f"{engine} registers no model {model.value}", model.span, next_step=next_step)
        return
    declared = classes[model.value].get("capabilities", {})
    judged = {"supports_step_caching"}
    if card.pipelines.get(str(draft.get("model"))):
        by_card = [one if isinstance(one, dict) else {"": one} for one in card.capabilities.values()]
        judged.update(*(one.values() for one in by_card))
    for capability in facts.fields("ModelCapabilities"):
        option, unsaid = draft.options.get(capability), facts.default("ModelCapabilities", capability)
        if option is None or capability in judged or declared.get(capability, unsaid and unsaid[0]):
            continue
        asked = option.value is True or (option.value is not UNKNOWN and option.value not in (False, None, "", 0, 1))
        if asked:
            message = f"{capability} is not supported for {model.value} by engine {engine}: it refuses it"
            draft.note("OMNI503", message, option.span)


def _is_example(words: list[Word], at: int) -> bool:
    """Whether a word of a command is an example script, or, with xDiT's flags, one whose name only a run knows."""
    if words[at].unknown and "examples/" in words[at].value:
        return any(word.value in ("--ulysses_degree", "--pipefusion_parallel_degree") for word in words[at:])
    return words[at].value.endswith("_example.py")


def _is_runner(word: str) -> bool:
    """Whether a word of a command is the file or the module of the runner."""
    return word == "xfuser.runner" or PurePosixPath(word).parts[-2:] == ("xfuser", "runner.py")
