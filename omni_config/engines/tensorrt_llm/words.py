"""How files and commands of TensorRT-LLM VisualGen say our settings."""

from __future__ import annotations

from collections.abc import Iterator

from omni_config.engines.formats.draft import Draft
from omni_config.engines.formats.way import Way, of_flags
from omni_config.engines.tensorrt_llm.read import BACKENDS, CACHES, FLAGS, SECTIONS, SETTINGS

_SWITCHES = {"teacache": "tea_cache", "cache_dit": "cache_dit"}


def ways(draft: Draft) -> Iterator[Way]:
    """The ways of its commands and files."""
    if draft.form == "command":
        yield from of_flags(FLAGS)
        return
    attention = ("attention_config", "quant_attention_config")
    sections = {owner: (section,) for section, owner in SECTIONS.items()} | {"QuantAttentionConfig": attention}
    sections |= dict.fromkeys(CACHES.values(), ("cache_config",))
    for owner, keys in SETTINGS.items():
        yield from (Way(setting, (*sections.get(owner, ()), key)) for key, setting in keys.items())
    yield from (Way(setting, ("cache_config",), True, cache) for cache, setting in _SWITCHES.items())
    yield Way("attention_quantization", attention)
    yield Way("offload_components", ("cpu_offload_config", "stages"))
    yield from (
        Way("attention_backend", ("attention_config", "backend"), ours, said) for said, ours in BACKENDS.items()
    )
