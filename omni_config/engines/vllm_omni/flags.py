"""vLLM-Omni's flags, and the keys of its caches and parallel sizes, into settings of ours."""

from __future__ import annotations

from collections.abc import Callable

from omni_config.engines.formats.common import guidance, lora_path
from omni_config.engines.formats.draft import Draft, Key, plain
from omni_config.engines.formats.flags import REST, Flags
from omni_config.engines.formats.shell import Word
from omni_config.engines.formats.text import Text
from omni_config.findings import Span
from omni_config.reading.nodes import YamlNode
from omni_config.schema.flag_names import ALIASES, dashed
from omni_config.schema.settings import FIELDS, PARAMETERS

ENGINE = "vllm-omni"

#: Settings of the diffusion stage under ``parallel_config``.
PARALLEL = tuple(name for name, path in FIELDS.items() if path[0] == "parallel")

#: Other parallel settings of the engine, which no setting of ours stands for.
OTHER_PARALLEL = ("pipeline_parallel_size", "sequence_parallel_size", "allgather_degree", "text_encoder_tp_size")

#: Those of them that are factors of the number of ranks (0.26.0, diffusion/data.py:266; 0.30.0, data.py:395).
OTHER_AXES = ("pipeline_parallel_size", "allgather_degree")

_SAME = [name for name in FIELDS if FIELDS[name][0] in ("parallel", "memory", "vae", "execution", "sampling")]


def _cache_backend(draft: Draft, word: Word, span: Span) -> None:
    cache_backend(draft, word.value, span)


def cache_backend(draft: Draft, name: str, span: Span) -> None:
    """Switch a cache on by its name; caches that are not ours are passed by."""
    if name in ("tea_cache", "cache_dit"):
        for other in ("tea_cache", "cache_dit"):
            if other != name:
                draft.drop(other)
        draft.set(name, True, span)
    elif name != "none":
        draft.leave_unjudged(f"cache backend {name}", span)


def _cache_config(draft: Draft, word: Word, span: Span) -> None:
    node = draft.json(word.text, "--cache-config")
    if node is not None:
        draft.later.append(lambda: cache_config(draft, node, span))


def cache_config(draft: Draft, node: YamlNode, span: Span) -> None:
    """The parameters of the cache that is on."""
    backend = next((name for name in ("tea_cache", "cache_dit") if draft.has(name)), None)
    if backend is None:
        draft.leave_unjudged("cache config of no known backend", span)
        return
    for key, child in node.children.items():
        if key in PARAMETERS[backend]:
            draft.set(key, child.value, child.key_span or child.span)
        else:
            draft.keys.append(Key("DiffusionCacheConfig", str(key), child))


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


def other_axis(draft: Draft, name: str, value: object, span: Span) -> None:
    """Ranks that no setting of ours stands for, with a share of the GPUs: no degrees are held against these."""
    if value not in (1, None):
        draft.leave_unjudged(f"{name} {value}", span)
        draft.later.append(lambda: draft.drop("gpus"))


def _other_axis(name: str) -> Callable[[Draft, Word, Span], None]:
    return lambda draft, word, span: other_axis(draft, f"--{name}", plain(word.value), span)


def _additional_config(draft: Draft, word: Word, span: Span) -> None:
    node = draft.json(word.text, "--additional-config")
    for key, child in node.children.items() if node else ():
        inner = child.children if key == "parallel_config" else {key: child}
        for name, leaf in inner.items():
            if name in FIELDS or name in OTHER_PARALLEL:
                message = f"{name} in --additional-config never reaches the diffusion stage"
                draft.note("OMNI606", message, leaf.key_span or leaf.span)


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
    **dict.fromkeys(("trust-remote-code", "enforce-eager", "log-stats", "disable-log-stats"), 0),
    **dict.fromkeys(("served-model-name", "output", "output-dir", "fps", "stage-id"), 1),
    **dict.fromkeys(("uvicorn-log-level", "stage-init-timeout", "init-timeout", "download-dir"), 1),
    "allowed-local-media-path": REST,
}

FLAGS = Flags(
    engine=ENGINE,
    settings={
        **{dashed(name)[2:]: name for name in _SAME if name != "guidance_scale"},
        **{alias[2:]: name for name, aliases in ALIASES.items() for alias in aliases},
        "model": "model",
        **{dashed(name)[2:]: name for name in ("host", "port", "api_key")},
        "num-gpus": "gpus",
        "cache-dit-enable-taylorseer": "enable_taylorseer",
        "tp": "tensor_parallel_size",
        "dp": "data_parallel_size",
    },
    special={
        **_PARAMETERS,
        "cache-backend": _cache_backend,
        "cache-config": _cache_config,
        "additional-config": _additional_config,
        "lora-path": lora_path,
        "lora-scale": _lora_scale,
        "guidance-scale": guidance,
        **{name: _other_axis(name) for name in (axis.replace("_", "-") for axis in OTHER_AXES)},
    },
    quiet=_QUIET,
)
