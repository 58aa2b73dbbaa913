"""Flags for which there is no setting of ours, judged by the facts of the version: those that it lacks, values that it
refuses. The others become the engine's own settings, which its rules may ask for.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from omni_config.catalog.load import catalog
from omni_config.engines.facts import Facts, Flag, facts_of, plain_name
from omni_config.engines.formats.draft import Draft, Key, Typed, plain
from omni_config.reading.nodes import YamlNode
from omni_config.rules.quantities import THEIRS, UNKNOWN, has_unknown

if TYPE_CHECKING:
    from omni_config.engines.formats.shell import Word

#: A class with so many fields holds the whole configuration, and is given keys of others, too, which it lets through.
WHOLE_CONFIG = 60
#: The class of the model, which the rules of pipelines ask for.
PIPELINE = "model_class_name"
_NUMBERS = {"int": int, "float": float}
#: Settings that are mappings of a model's own parameters: their keys are no settings of the engine, and keep the name
#: of the mapping in front.
_OPEN = ("extras",)


def settle(draft: Draft, engine: str) -> None:
    """Judge what the reader has left of a command, by the facts of this version of the engine."""
    facts = facts_of(engine)
    asked = asked_of(engine)
    inner: dict[str, YamlNode] = {}
    for typed in draft.typed:
        flag = facts.flag(typed.name) if facts else None
        if facts is None or flag is None:
            _unknown(draft, typed, facts, engine)
            continue
        words = typed.words[: flag.most_values]
        if any(word.unknown for word in words):
            draft.options[flag.setting] = YamlNode(UNKNOWN, typed.span)
            if not typed.taken:
                draft.leave_unjudged(f"{typed.name} (its value is known only to a run)", typed.span)
        elif _fits(draft, typed, words, flag, engine) and (node := _node_of(draft, typed, words, flag)) is not None:
            _, _, below = typed.name.partition(".")
            if below:
                _take(inner, below.rpartition(".")[2], node)
            else:
                draft.options[flag.setting] = node
                _count(draft.options, flag.setting, node)
            _take_below(inner, node)
            if typed.taken or flag.setting == PIPELINE:
                continue
            if flag.setting in facts.decides and flag.setting not in asked:
                draft.leave_unjudged(typed.name, typed.span)
            else:
                draft.left_out.append(typed.name)

    for key in draft.keys:
        if key.taken or _settle_key(draft, key, facts, asked, engine):
            _take(inner, key.name, key.node)
            _take_below(inner, key.node, f"{key.name}_" if key.name in _OPEN else "")
    for name, node in inner.items():
        _take(draft.options, name, node)
    for registry, name, node in draft.registered:
        known = facts.registry(registry) if facts else ()
        if known and str(node.value).upper() not in (*known, "AUTO"):
            near = difflib.get_close_matches(str(node.value).upper(), known, 1, 0.6)
            next_step = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
            draft.note("OMNI612", f"{engine} has no {name} {node.value}", node.span, next_step=next_step)


def _settle_key(draft: Draft, key: Key, facts: Facts | None, asked: Collection[str], engine: str) -> bool:
    """Judge a key of a file; False where the engine does not have it."""
    place = key.node.key_span or key.node.span
    taken = key.name in draft.old_names or (facts is not None and facts.has_field(key.owner, key.name))
    fate = facts.unknown_keys(key.owner) if facts and not taken else ""
    if facts and fate and (key.name not in facts.names or len(facts.fields(key.owner)) < WHOLE_CONFIG):
        near = difflib.get_close_matches(key.name, facts.fields(key.owner), 1, 0.6)
        next_step = f"did you mean {near[0]}?" if near else "remove the key"
        words = "drops it silently" if fate == "dropped" else "refuses it"
        message = f"{key.owner} has no '{key.name}'; {engine} {words}"
        draft.note("OMNI608" if fate == "dropped" else "OMNI615", message, place, next_step=next_step)
        return False
    decides = facts is None or not facts.has_field(key.owner, key.name) or key.name in facts.decides
    if key.name in asked or key.node.value is None or key.name == PIPELINE or not decides:
        draft.left_out.append(key.name)
    else:
        draft.leave_unjudged(key.name, place)
    return True


def asked_of(engine: str) -> Collection[str]:
    """The engine's own settings that some rule of this version asks for."""
    card = catalog().engine(engine)
    if card is None:
        return ()
    names = {
        name
        for rule in catalog().rules
        if rule.engine_ids and rule.speaks_of(card)
        for name, kind in rule.names()
        if kind == "quantities"
    }
    return {name.removeprefix(THEIRS) for name in names if name.startswith(THEIRS)}


def _unknown(draft: Draft, typed: Typed, facts: Facts | None, engine: str) -> None:
    dynamic = draft.forms is not None and draft.forms.fullmatch(plain_name(typed.name)) is not None
    if facts and facts.closed and draft.own_parser and typed.name.startswith("--") and not dynamic:
        near = facts.near(typed.name)
        next_step = f"did you mean {near}?" if near else "remove the flag"
        draft.note("OMNI611", f"{engine} has no flag {typed.name}", typed.span, next_step=next_step)
    elif not typed.taken:
        draft.leave_unjudged(typed.name, typed.span)


def _fits(draft: Draft, typed: Typed, words: Sequence[Word], flag: Flag, engine: str) -> bool:
    """Whether the engine takes the words behind a flag; if not, that is noted. A call gives numbers of any kind."""
    for word in words:
        convert = _NUMBERS.get(flag.type or "", str)
        try:
            value = convert(word.value)
        except ValueError:
            if draft.form == "python":
                return True
            kind = "a whole number" if flag.type == "int" else "a number"
            draft.note("OMNI612", f"{typed.name} takes {kind} in {engine}, not {word.value}", typed.span)
            return False
        if flag.choices and value not in flag.choices:
            choices = ", ".join(map(str, flag.choices))
            draft.note("OMNI612", f"{typed.name} takes one of {choices} in {engine}, not {word.value}", typed.span)
            return False
    return True


def _node_of(draft: Draft, typed: Typed, words: Sequence[Word], flag: Flag) -> YamlNode | None:
    """The value of a flag: a switch, a number, text, a list of words, or what its JSON says; None for wrong JSON."""
    if not words:
        off = flag.action == "store_false" or plain_name(typed.name).startswith("no-")
        return YamlNode(not off, typed.span)
    if flag.nargs in ("+", "*"):
        return YamlNode(tuple(word.value for word in words), typed.span)
    if words[0].value.lstrip().startswith(("{", "[")) or flag.type == "loads":
        return draft.json(words[0].text, typed.name, any_value=True)
    return YamlNode(plain(words[0].value), typed.span)


def _take(options: dict[str, YamlNode], name: str, node: YamlNode) -> None:
    """A setting by its plain name; one that is said twice, and differently, is not known."""
    said = options.setdefault(name, node)
    if said.value is not UNKNOWN and (has_unknown([said.value, node.value]) or said.value != node.value):
        options[name] = replace(said, value=UNKNOWN)
    _count(options, name, node)


def _take_below(options: dict[str, YamlNode], node: YamlNode, prefix: str = "") -> None:
    """The keys of a mapping, at any depth."""
    if isinstance(node.value, dict):
        for key, child in node.children.items():
            _take(options, f"{prefix}{key}", child)
            _take_below(options, child, f"{key}_" if key in _OPEN else prefix)


def _count(options: dict[str, YamlNode], name: str, node: YamlNode) -> None:
    """How many a list has, as ``NAME_count``, for conditions that ask for no more."""
    if isinstance(node.value, list | tuple):
        options[f"{name}_count"] = replace(node, value=len(node.value))
