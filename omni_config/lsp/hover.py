"""What a key, a flag or a code means: its range, its default, and what the plan makes of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from omni_config.cards import ModelCard
from omni_config.catalog.load import catalog
from omni_config.checking.document import CheckResult
from omni_config.engines.facts import Facts, Flag, facts_of
from omni_config.findings import spoken
from omni_config.lsp.opened import Opened, Spot
from omni_config.mesh import AXES, FURTHER
from omni_config.output.described import described
from omni_config.output.formats import RULES_URL
from omni_config.resolving.resolver import Resolution
from omni_config.schema.settings import FIELDS

CODE = re.compile(r"\b[A-Z]{2,10}\d{3,4}\b")
_DEGREES = {axis.setting for axis in (*AXES, *FURTHER)}


def hover(opened: Opened, line: int, column: int) -> tuple[str, int, int] | None:
    """Markdown about what stands at a place, with its columns from 0."""
    text = opened.lines[line] if line < len(opened.lines) else ""
    for found in CODE.finditer(text):
        if found.start() <= column <= found.end() and (words := code(found[0])):
            return words, found.start(), found.end()
    spot = opened.spot(line, column)
    if spot is None:
        return _section(text, column) if opened.ours else _beside(opened, line, column)
    parts = [*(_of_setting(spot) if spot.setting else ()), *(_of_flag(spot) if spot.flag else ()), *_of_key(spot)]
    return ("\n\n".join(parts), spot.start, spot.end) if parts else None


def code(name: str) -> str:
    """A rule, for people; empty where there is none."""
    rule = catalog().by_code.get(name)
    if rule is None:
        return ""
    fix = re.sub(r"\{(\w+)[^}]*\}", lambda found: f"*{found[1].replace('_', ' ')}*", rule.fix)
    title = f"**{_linked(rule.code)}** {rule.name.replace('-', ' ')} ({rule.severity})"
    return f"{title}\n\n{rule.why}\n\nNext: {fix}."


def page_of(code: str) -> str:
    """The address of a rule's page."""
    return f"{RULES_URL}/{code}.md"


def _linked(code: str) -> str:
    return f"[{code}]({page_of(code)})" if code in catalog().by_code else code


def _section(text: str, column: int) -> tuple[str, int, int] | None:
    found = re.match(r"(\w+)\s*:", text)
    if found is None or not found.start(1) <= column <= found.end(1):
        return None
    node = described().get((found[1],), {})
    return (f"**{found[1]}**\n\n{node['description']}", *found.span(1)) if node.get("description") else None


def _of_setting(spot: Spot) -> Iterator[str]:
    checked, name = spot.checked, spot.setting
    node = described().get(FIELDS[name], {})
    words = checked.document.words if checked.document else None
    dotted = ".".join(FIELDS[name])
    yield f"**{words.name(name)}** (`{dotted}`)" if words else f"**{dotted}**"
    if node.get("description"):
        yield str(node["description"])
    if stated := " ".join(_range(node)):
        yield stated
    resolution = checked.resolution
    if resolution is not None and (made := makes(name, resolution)):
        yield f"Here: {made}."
    about = [one for one in checked.findings if name in one.fields]
    for one in about:
        yield f"{_linked(one.code)} ({one.severity}): {one.message}. {one.why}"


def _range(node: dict[str, Any]) -> Iterator[str]:
    if "enum" in node:
        yield f"One of {', '.join(f'`{spoken(value)}`' for value in node['enum'])}."
    low, high = node.get("minimum"), node.get("maximum")
    above, below = node.get("exclusiveMinimum"), node.get("exclusiveMaximum")
    ends = [
        f"{word} {value}"
        for word, value in (("at least", low), ("above", above), ("at most", high), ("below", below))
        if value is not None
    ]
    if ends:
        yield f"{' and '.join(ends).capitalize()}."
    if node.get("default") not in (None, ""):
        yield f"Default: `{spoken(node['default'])}`."


def makes(name: str, resolution: Resolution) -> str:
    """What becomes of a setting: ranks and what each has, or the value that runs in place of the one that is said."""
    settings = resolution.settings
    q = resolution.target.quantities(settings)
    parts = []
    if name == "model" and resolution.target.card.sources:
        parts.append(about_model(resolution.target.card))
    if name == "engine":
        parts.append(resolution.target.engine.title)
    try:
        if name in _DEGREES or name == "gpus":
            parts.append(f"{q['world_size']} rank{'s' if q['world_size'] != 1 else ''} in all")
        if name in ("ulysses_degree", "tensor_parallel_size") and (heads := q["heads_per_tensor_rank"]):
            degree = settings["ulysses_degree"]
            each = f"{heads // degree} head{'s' if heads > degree else ''} each"
            parts.append(each if heads % degree == 0 else f"{heads} heads among {degree}")
        if name in ("ulysses_degree", "ring_degree", "allgather_degree") and q["image_tokens"]:
            parts.append(f"{q['image_tokens']} image tokens, {q['tokens_per_rank']} each")
    except (KeyError, TypeError, ArithmeticError, AttributeError):  # a model or a setting of which that is not known
        pass
    changed = next((one for one in resolution.findings if name in dict(one.changes)), None)
    if changed is not None:
        parts.append(f"runs with {spoken(dict(changed.changes)[name])} ({changed.code})")
    return ", ".join(parts)


def about_model(card: ModelCard) -> str:
    """A model in a few words: its class, what it makes, and what decides how it can be split."""
    parts = [card.pipeline, card.task.replace("_", " ")]
    counts = (("num_attention_heads", "heads"), ("num_layers", "layers"))
    parts += [f"{card.dims[name]} {words}" for name, words in counts if name in card.dims]
    return ", ".join(parts)


def _of_flag(spot: Spot) -> Iterator[str]:
    flag = flag_of(spot.checked, spot.flag)
    if flag is None:
        return
    if not spot.setting:
        yield f"**{flag.name}**"
    yield about_flag(flag)


def _of_key(spot: Spot) -> Iterator[str]:
    """A key of an engine's file, by the class of settings that takes it."""
    facts = _facts(spot.checked)
    found = facts.described(spot.key.owner, spot.key.name) if facts and spot.key else None
    if found is not None and spot.key is not None:
        entry, at = found
        takes = f"Takes `{entry['type']}`. " if entry.get("type") else ""
        default = f"Default: `{spoken(entry['default'])}`. " if entry.get("default") not in (None, "") else ""
        yield f"**{spot.key.name}** of `{spot.key.owner}`"
        yield f"{takes}{default}Declared at `{at}`."


def _beside(opened: Opened, line: int, column: int) -> tuple[str, int, int] | None:
    """What starts a deployment, and variables that its engine reads."""
    for checked in opened.results:
        place = checked.document.draft.place if checked.document and checked.document.draft else None
        if place and place.line == line + 1 and place.column - 1 <= column < place.end:
            return "\n\n".join(_of_deployment(checked)), place.column - 1, place.end - 1
    for found in re.finditer(r"\b[A-Z][A-Z0-9_]{3,}\b", opened.lines[line] if line < len(opened.lines) else ""):
        if not found.start() <= column <= found.end():
            continue
        for checked in opened.results:
            facts = _facts(checked)
            if facts is not None and facts.reads_variable(found[0]):
                places, defaults = facts.variable(found[0])
                said = ", ".join(f"`{spoken(one)}`" for one in defaults if one not in (None, ""))
                default = f" Default: {said}." if said else ""
                assert checked.node is not None
                engine = checked.node.value["engine"]
                words = f"**{found[0]}**\n\n{engine} reads it at `{places[0]}`.{default}"
                return words, *found.span()
    return None


def _of_deployment(checked: CheckResult) -> Iterator[str]:
    yield f"Judged by {checked.judged_by}." if checked.judged_by else "A deployment"
    resolution = checked.resolution
    if resolution is None:
        return
    ranks = makes("gpus", resolution)
    model = makes("model", resolution)
    yield f"Here: {'; '.join(part for part in (ranks, model) if part)}."
    yield from (f"{one.message}." for one in checked.findings if one.code == "OMNI640")


def _facts(checked: CheckResult) -> Facts | None:
    return facts_of(str(checked.node.value["engine"])) if checked.foreign and checked.node is not None else None


def flag_of(checked: CheckResult, name: str) -> Flag | None:
    """A flag of the engine that judges a deployment."""
    facts = _facts(checked)
    return facts.flag(name) if facts else None


def about_flag(flag: Flag) -> str:
    """What a flag takes, and where the engine's source declares it."""
    said = asdict(flag)
    takes = f"one of {', '.join(map(str, flag.choices))}" if flag.choices else said["type"] or ""
    default = "" if flag.default in (None, "==SUPPRESS==") else f" Default: `{spoken(flag.default)}`."
    return f"{f'Takes {takes}.' if takes else ''}{default} Declared at `{flag.at}`.".strip()
