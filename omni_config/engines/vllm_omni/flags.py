"""vLLM-Omni's flags, and the keys of its caches and parallel sizes, into settings of ours."""

from __future__ import annotations

from collections.abc import Callable

from omni_config.engines.formats.common import guidance, lora_path
from omni_config.engines.formats.draft import Draft
from omni_config.engines.formats.flags import REST, Flags
from omni_config.engines.formats.shell import Word
from omni_config.engines.formats.text import Text
from omni_config.engines.vllm_omni.arguments import (
    INSIDE,
    LACKING,
    OTHER_PARALLEL,
    PARALLEL,
    RENAMED,
    STRATEGY,
    attention_backend,
    attention_config,
    cache_backend,
    cache_config,
    offload_config,
    sampling,
    strategy,
    take,
)
from omni_config.findings import Span
from omni_config.reading.nodes import YamlNode
from omni_config.schema.flag_names import ALIASES, dashed
from omni_config.schema.settings import FIELDS, PARAMETERS

ENGINE = "vllm-omni"

_SECTIONS = ("parallel", "memory", "vae", "execution", "sampling")
_OTHERS = (*LACKING, *INSIDE, STRATEGY, "attention_backend")  # --attention-backend is vLLM's, for its language models
_SAME = [name for name in FIELDS if FIELDS[name][0] in _SECTIONS and name not in _OTHERS]


def _cache_backend(draft: Draft, word: Word, span: Span) -> None:
    cache_backend(draft, word.value, span)


def _cache_config(draft: Draft, word: Word, span: Span) -> None:
    node = draft.json(word.text, "--cache-config")
    if node is not None:
        draft.later.append(lambda: cache_config(draft, node, span))


def _parameter(name: str, backend: str) -> Callable[[Draft, Word, Span], None]:
    """A reader of one parameter of a cache, as the offline scripts spell it."""

    def take(draft: Draft, text: Text, span: Span) -> None:
        if draft.has(backend):
            draft.words(name, text, span)
        else:
            draft.leave_unjudged(f"{name} without {backend}", span)

    return lambda draft, word, span: draft.later.append(lambda: take(draft, word.text, span))


_PARAMETERS = {
    f"{backend.replace('_', '-')}-{name.lower().replace('_', '-')}": _parameter(name, backend)
    for backend in ("tea_cache", "cache_dit")
    for name in PARAMETERS[backend]
    if name != "enable_taylorseer"
}


def _additional_config(draft: Draft, word: Word, span: Span) -> None:
    node = draft.json(word.text, "--additional-config")
    for key, child in node.children.items() if node else ():
        inner = child.children if key == "parallel_config" else {key: child}
        for name, leaf in inner.items():
            if name in FIELDS or name in (*PARALLEL, *OTHER_PARALLEL):
                message = f"{name} in --additional-config never reaches the diffusion stage"
                draft.note("OMNI606", message, leaf.key_span or leaf.span)


def _stages(draft: Draft, word: Word, name: str) -> dict[str, YamlNode]:
    """The stages of ``--stage-overrides`` and ``--default-sampling-params``, by their number."""
    node = draft.json(word.text, name)
    stages = node.children if node else {}
    for number, stage in stages.items():
        if not isinstance(stage.value, dict):
            draft.note("OMNI905", f"{name}: expected a JSON object for stage {number}", stage.span)
            return {}
    return stages


def _stage_overrides(draft: Draft, word: Word, span: Span) -> None:
    stages = _stages(draft, word, "--stage-overrides")
    if len(stages) == 1:  # of several, which one is the diffusion stage depends on the model
        (stage,) = stages.values()
        draft.later.append(lambda: take(draft, stage.children, of_command=True))


def _default_sampling(draft: Draft, word: Word, span: Span) -> None:
    stages = _stages(draft, word, "--default-sampling-params")
    if len(stages) == 1:
        (stage,) = stages.values()
        draft.later.append(lambda: sampling(draft, stage))


def _attention_config(draft: Draft, word: Word, span: Span) -> None:
    if (node := draft.json(word.text, "--diffusion-attention-config")) is not None:
        attention_config(draft, node)


def _attention_backend(draft: Draft, word: Word, span: Span) -> None:
    attention_backend(draft, YamlNode(word.value, span))


def _offload_config(draft: Draft, word: Word, span: Span) -> None:
    if (node := draft.json(word.text, "--diffusion-offload-config", any_value=True)) is not None:
        offload_config(draft, node)


def _strategy(draft: Draft, word: Word, span: Span) -> None:
    strategy(draft, word.value, span)


def _lora_scale(draft: Draft, word: Word, span: Span) -> None:
    draft.later.append(lambda: _scale(draft, word, span))


def _scale(draft: Draft, word: Word, span: Span) -> None:
    found = draft.root.find(("lora", 0))
    try:
        scale = float(word.value)
    except ValueError:
        found = None
    if found is None:
        draft.leave_unjudged("lora scale without an adapter", span)
        return
    found.value["scale"] = scale
    found.children["scale"] = YamlNode(scale, span)


_QUIET = {
    **dict.fromkeys(("trust-remote-code", "log-stats", "disable-log-stats"), 0),
    **dict.fromkeys(("served-model-name", "output", "output-dir", "fps", "stage-id"), 1),
    **dict.fromkeys(("uvicorn-log-level", "stage-init-timeout", "init-timeout", "download-dir"), 1),
    "allowed-local-media-path": REST,
}

FLAGS = Flags(
    engine=ENGINE,
    model_first=True,
    settings={
        **{dashed(RENAMED.get(name, name))[2:]: name for name in _SAME if name != "guidance_scale"},
        **{alias[2:]: name for name, aliases in ALIASES.items() for alias in aliases},
        "model": "model",
        **{dashed(name)[2:]: name for name in ("host", "port", "api_key")},
        "num-gpus": "gpus",
        "enforce-eager": ("compile", False),
        "cache-dit-enable-taylorseer": "enable_taylorseer",
        "tp": "tensor_parallel_size",
        "dp": "data_parallel_size",
    },
    special={
        **_PARAMETERS,
        "cache-backend": _cache_backend,
        "cache-config": _cache_config,
        "additional-config": _additional_config,
        "diffusion-attention-config": _attention_config,
        "diffusion-attention-backend": _attention_backend,
        "diffusion-offload-config": _offload_config,
        dashed(STRATEGY)[2:]: _strategy,
        "stage-overrides": _stage_overrides,
        "default-sampling-params": _default_sampling,
        "lora-path": lora_path,
        "lora-scale": _lora_scale,
        "guidance-scale": guidance,
    },
    quiet=_QUIET,
)
