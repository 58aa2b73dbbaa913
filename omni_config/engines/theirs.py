"""Flags for which there is no setting of ours, judged by the facts of the version: those that it lacks, values that it
refuses. The others become the engine's own settings, which its rules may ask for.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection

from omni_config.catalog.load import catalog
from omni_config.engines.facts import Facts, Flag, facts_of, plain_name
from omni_config.engines.formats.draft import Draft, Key, Typed, plain
from omni_config.reading.nodes import YamlNode
from omni_config.rules.quantities import THEIRS

#: A class with so many fields holds the whole configuration, and is given keys of others, too, which it lets through.
WHOLE_CONFIG = 60
_NUMBERS = {"int": int, "float": float}


def settle(draft: Draft, engine: str) -> None:
    """Judge what the reader has left of a command, by the facts of this version of the engine."""
    facts = facts_of(engine)
    asked = asked_of(engine)
    for typed in draft.typed:
        flag = facts.flag(typed.name) if facts else None
        if facts is None or flag is None:
            _unknown(draft, typed, facts, engine)
        elif any(word.unknown for word in typed.words):
            if not typed.taken:
                draft.leave_unjudged(f"{typed.name} (its value is known only to a run)", typed.span)
        elif _fits(draft, typed, flag, engine) and not typed.taken:
            _take(draft, typed, flag)
            if flag.setting in facts.decides and flag.setting not in asked:
                draft.leave_unjudged(typed.name, typed.span)
            else:
                draft.left_out.append(typed.name)

    for key in draft.keys:
        _settle_key(draft, key, facts, asked, engine)


def _settle_key(draft: Draft, key: Key, facts: Facts | None, asked: Collection[str], engine: str) -> None:
    place = key.node.key_span or key.node.span
    if facts and not facts.has_field(key.owner, key.name) and (fate := facts.unknown_keys(key.owner)):
        if key.name not in facts.names or len(facts.fields(key.owner)) < WHOLE_CONFIG:
            near = difflib.get_close_matches(key.name, facts.fields(key.owner), 1, 0.6)
            next_step = f"did you mean {near[0]}?" if near else "remove the key"
            words = "drops it silently" if fate == "dropped" else "refuses it"
            message = f"{key.owner} has no '{key.name}'; {engine} {words}"
            draft.note("OMNI608" if fate == "dropped" else "OMNI615", message, place, next_step=next_step)
            return
    draft.options[key.name] = key.node
    if isinstance(key.node.value, dict):
        _take_keys(draft, key.node)
    if key.name in asked or key.node.value is None:
        draft.left_out.append(key.name)
    else:
        draft.leave_unjudged(key.name, place)


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


def _fits(draft: Draft, typed: Typed, flag: Flag, engine: str) -> bool:
    """Whether the engine's parser takes the words behind a flag; if not, that is noted."""
    for word in typed.words:
        convert = _NUMBERS.get(flag.type or "", str)
        try:
            value = convert(word.value)
        except ValueError:
            kind = "a whole number" if flag.type == "int" else "a number"
            draft.note("OMNI612", f"{typed.name} takes {kind} in {engine}, not {word.value}", typed.span)
            return False
        if flag.choices and value not in flag.choices:
            choices = ", ".join(map(str, flag.choices))
            draft.note("OMNI612", f"{typed.name} takes one of {choices} in {engine}, not {word.value}", typed.span)
            return False
    return True


def _take(draft: Draft, typed: Typed, flag: Flag) -> None:
    """A flag as a setting of the engine; of JSON, its keys, too."""
    words = [word.value for word in typed.words]
    if not words:
        off = flag.action == "store_false" or plain_name(typed.name).startswith("no-")
        draft.options[flag.setting] = YamlNode(not off, typed.span)
    elif flag.nargs in ("+", "*"):
        draft.options[flag.setting] = YamlNode(tuple(words), typed.span)
    elif words[0].startswith(("{", "[")) and (node := draft.json(typed.words[0].text, typed.name)) is not None:
        draft.options[flag.setting] = node
        _take_keys(draft, node)
    else:
        draft.options[flag.setting] = YamlNode(plain(words[0]), typed.span)


def _take_keys(draft: Draft, node: YamlNode) -> None:
    for key, child in node.children.items():
        if isinstance(child.value, dict):
            _take_keys(draft, child)
        draft.options.setdefault(str(key), child)
