"""Which components SGLang offloads, where its flags say it of each (``ServerArgs.residency_mode``, 0.5.18 to 0.5.23).

What is said of no component is decided at the start, so our settings are said only where the transformer and the text
encoder are spoken of, and those that wait on the CPU do so in one way.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

from omni_config.engines.facts import plain_name
from omni_config.engines.formats.draft import Draft
from omni_config.findings import Span
from omni_config.schema.components import COMPONENTS

RESIDENT, WHOLE, LAYERED = "resident", "component-offload", "layerwise-offload"
#: The switches for whole components.
COMPONENT_FLAGS = {f"{name.replace('_', '-')}-cpu-offload": name for name in COMPONENTS}
#: From what yields to what wins.
_RESIDENCY, _LAYERS, _WHOLE, _DIT_LAYERS = (
    "component-residency",
    "layerwise-offload-components",
    "cpu-offload-components",
    "dit-layerwise-offload",
)
_ALIASES = {"layerwise-offload-modules": _LAYERS}
_DEFAULT_LAYERS = ("text_encoder", "image_encoder", "vae")
#: Our switches, by its ways.
SWITCHES = {WHOLE: "enable_cpu_offload", LAYERED: "enable_layerwise_offload"}


def name_components(draft: Draft) -> None:
    """Say which components are offloaded, if flags name them."""
    said = {}
    for name, words, span in _said(draft):
        said[_ALIASES.get(name, name)] = (words, span)
    known = {_RESIDENCY, _LAYERS, _WHOLE, *COMPONENT_FLAGS} & said.keys()
    modes = _modes({name: words for name, (words, _) in said.items()}) if known else None
    if not modes or not {"dit", "text_encoder"} <= modes.keys():
        return
    moved = [name for name in COMPONENTS if modes.get(name, RESIDENT) != RESIDENT]
    ways = {modes[name] for name in moved}
    if "dit" not in moved or len(ways) > 1 or modes["dit"] not in SWITCHES:
        return
    span = said[min(known, key=[_RESIDENCY, _LAYERS, _WHOLE, *COMPONENT_FLAGS].index)][1]
    if not draft.get(SWITCHES[modes["dit"]]):
        draft.set(SWITCHES[modes["dit"]], True, span)
    _take(draft, known)
    usual = modes["dit"] == WHOLE and "vae" not in moved and RESIDENT not in modes.values()
    if not usual:
        draft.set("offload_components", moved, span)


def _take(draft: Draft, names: Collection[str]) -> None:
    """Settings of ours stand for these flags or keys."""
    for typed in draft.typed:
        typed.taken |= _ALIASES.get(_name(typed.name), _name(typed.name)) in names
    draft.keys = [
        replace(key, taken=key.taken or _ALIASES.get(_name(key.name), _name(key.name)) in names) for key in draft.keys
    ]


def _name(name: str) -> str:
    return plain_name(name).removeprefix("--").replace("_", "-")


def _said(draft: Draft) -> Iterator[tuple[str, list[str], Span]]:
    """What flags or keys say, as words: of a switch, true or false."""
    names = {_RESIDENCY, _LAYERS, _WHOLE, _DIT_LAYERS, *_ALIASES, *COMPONENT_FLAGS}
    for typed in draft.typed:
        if (name := _name(typed.name)) in names:
            words = [word.value for word in typed.words if not word.unknown]
            if len(words) == len(typed.words):
                yield name, words or ["true"], typed.span
    for key in draft.keys:
        if (name := _name(key.name)) in names and key.node.value is not None:
            value = key.node.value
            pairs = [f"{one}={mode}" for one, mode in value.items()] if isinstance(value, dict) else value
            yield name, [str(one) for one in (pairs if isinstance(pairs, list) else [pairs])], key.node.span


def _modes(said: dict[str, list[str]]) -> dict[str, str] | None:
    """How each component is kept that is spoken of; None where a word names another component, or another way."""
    modes: dict[str, str] = {}
    for flag, name in COMPONENT_FLAGS.items():
        if flag in said:
            modes[name] = WHOLE if _on(said[flag]) else RESIDENT
    if _WHOLE in said:
        named = _split(said[_WHOLE])
        named = [*COMPONENTS] if named == ["all"] else [] if named == ["none"] else named
        modes |= dict.fromkeys(named, WHOLE)
    if _DIT_LAYERS in said and _on(said[_DIT_LAYERS]):
        modes["dit"] = LAYERED
    if _LAYERS in said:
        named = _split(said[_LAYERS])
        groups = {"all": COMPONENTS, "default": _DEFAULT_LAYERS}
        modes |= dict.fromkeys([one for name in named for one in groups.get(name, (name,))], LAYERED)
    if _RESIDENCY in said:
        pairs = [pair.partition("=")[::2] for pair in _split(said[_RESIDENCY], keep=True)]
        stated = {name.replace("-", "_"): mode.replace("_", "-") for name, mode in pairs}
        for name in COMPONENTS:
            if (mode := stated.get(name, stated.get("all"))) is not None:
                modes[name] = mode
        if not stated.keys() <= {"all", *COMPONENTS}:
            return None
    known = {*COMPONENTS}, {RESIDENT, *SWITCHES}
    return modes if modes.keys() <= known[0] and {*modes.values()} <= known[1] else None


def _on(words: list[str]) -> bool:
    return words[0].lower() in ("true", "1")


def _split(words: list[str], *, keep: bool = False) -> list[str]:
    parts = [part.strip().lower() for word in words for part in word.split(",")]
    return [part if keep else part.replace("-", "_") for part in parts if part]
