"""What a key, a flag or a code means: its range, its default, and what the plan makes of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from omni_config.catalog.load import catalog
from omni_config.checking.document import CheckResult
from omni_config.engines.facts import Flag, facts_of
from omni_config.findings import spoken
from omni_config.lsp.opened import Opened, Spot, described
from omni_config.mesh import AXES, FURTHER
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
        return _section(text, column) if opened.ours else None
    parts = [*(_of_setting(spot) if spot.setting else ()), *(_of_flag(spot) if spot.flag else ())]
    return ("\n\n".join(parts), spot.start, spot.end) if parts else None


def code(name: str) -> str:
    """A rule, for people; empty where there is none."""
    rule = catalog().by_code.get(name)
    if rule is None:
        return ""
    fix = re.sub(r"\{(\w+)[^}]*\}", lambda found: f"*{found[1].replace('_', ' ')}*", rule.fix)
    return f"**{rule.code}** {rule.name.replace('-', ' ')} ({rule.severity})\n\n{rule.why}\n\nNext: {fix}."


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
        yield f"{one.code} [{one.severity}] {one.message}. {one.why}"


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
    if node.get("default") is not None:
        yield f"Default: `{spoken(node['default'])}`."


def makes(name: str, resolution: Resolution) -> str:
    """What becomes of a setting: ranks and what each has, or the value that runs in place of the one that is said."""
    settings = resolution.settings
    q = resolution.target.quantities(settings)
    parts = []
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


def _of_flag(spot: Spot) -> Iterator[str]:
    flag = flag_of(spot.checked, spot.flag)
    if flag is None:
        return
    if not spot.setting:
        yield f"**{flag.name}**"
    yield about_flag(flag)


def flag_of(checked: CheckResult, name: str) -> Flag | None:
    """A flag of the engine that judges a deployment."""
    node = checked.node
    facts = facts_of(str(node.value["engine"])) if node is not None else None
    return facts.flag(name) if facts else None


def about_flag(flag: Flag) -> str:
    """What a flag takes, and where the engine's source declares it."""
    said = asdict(flag)
    takes = f"one of {', '.join(map(str, flag.choices))}" if flag.choices else said["type"] or ""
    default = "" if flag.default in (None, "==SUPPRESS==") else f" Default: `{spoken(flag.default)}`."
    return f"{f'Takes {takes}.' if takes else ''}{default} Declared at `{flag.at}`.".strip()
