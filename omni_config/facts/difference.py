"""What changed between the facts of two versions. Places do not count: code that moved is the same code."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

SECTIONS = {
    "flags": "Flags",
    "flags_by_hand": "Flags that no parser declares",
    "flags_of_others": "Flags of other packages",
    "environment": "Environment variables",
    "classes": "Classes of settings",
    "fields": "Fields",
    "pipelines": "Pipelines",
    "registries": "Names that exist",
    "guards": "Guards",
}
_PLACE = re.compile(r"\.py:\d+$")


@dataclass(frozen=True)
class Section:
    """A kind of fact: the entries that are new, those that are gone, and what changed in the others."""

    title: str
    new: tuple[str, ...]
    gone: tuple[str, ...]
    changed: dict[str, dict[str, tuple[object, object]]]


def difference(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Section]:
    """The kinds of facts in which two versions differ."""
    result = {}
    for section, title in SECTIONS.items():
        before, after = old.get(section, {}), new.get(section, {})
        changed = {
            name: parts
            for name in sorted(before.keys() & after.keys())
            if (parts := _parts(_without_places(before[name]), _without_places(after[name])))
        }
        come, gone = sorted(after.keys() - before.keys()), sorted(before.keys() - after.keys())
        found = Section(title, tuple(come), tuple(gone), changed)
        if found.new or found.gone or found.changed:
            result[section] = found
    return result


def _without_places(value: object) -> object:
    if isinstance(value, dict):
        return {
            key: item.partition("==")[0] if key == "of" else _without_places(item)
            for key, item in value.items()
            if key not in ("at", "line") and not key.endswith("_at")
        }
    if isinstance(value, list):
        return [_without_places(item) for item in value]
    return _PLACE.sub(".py", value) if isinstance(value, str) else value


def _parts(old: object, new: object, path: str = "") -> dict[str, tuple[object, object]]:
    """The parts that differ, by their path; a part that one side lacks is None there."""
    if old == new:
        return {}
    if isinstance(old, dict) and isinstance(new, dict):
        return {
            name: pair
            for key in sorted(old.keys() | new.keys())
            for name, pair in _parts(old.get(key), new.get(key), f"{path}.{key}" if path else key).items()
        }
    if isinstance(old, list) and isinstance(new, list):
        if len(old) == len(new) == 1:  # the one declaration of a flag
            return _parts(old[0], new[0], path)
        if all(isinstance(item, str | int | float) for item in [*old, *new]):
            gone, come = [x for x in old if x not in new], [x for x in new if x not in old]
            return {path: (gone, come)} if gone or come else {}
    return {path: (old, new)}


def as_text(sections: dict[str, Section], *, markdown: bool = False) -> str:
    """The difference for a person: + new, - gone, ~ changed."""
    lines: list[str] = []
    for section in sections.values():
        counts = f"{len(section.new)} new, {len(section.gone)} gone, {len(section.changed)} changed"
        lines += [f"## {section.title}: {counts}", ""] if markdown else [f"{section.title}: {counts}"]
        lines += [_item("+", name, "", markdown) for name in section.new]
        lines += [_item("-", name, "", markdown) for name in section.gone]
        lines += [
            _item("~", name, ", ".join(_change(*item) for item in parts.items()), markdown)
            for name, parts in section.changed.items()
        ]
        lines.append("")
    return "\n".join(lines).rstrip()


def _item(sign: str, name: str, what: str, markdown: bool) -> str:
    after = f": {what}" if what else ""
    if markdown:
        word = {"+": "new", "-": "gone", "~": "changed"}[sign]
        return f"- {word}: `{name}`{after}"
    return f"  {sign} {name}{after}"


def _change(path: str, pair: tuple[object, object]) -> str:
    old, new = pair
    name = f"{path} " if path else ""
    if isinstance(old, list) and isinstance(new, list):
        parts = [f"without {', '.join(map(str, old))}"] if old else []
        parts += [f"with {', '.join(map(str, new))}"] if new else []
        return f"{name}{' and '.join(parts)}"
    return f"{name}{_short(old)} -> {_short(new)}"


def _short(value: object) -> str:
    shown = "none" if value is None else str(value)
    return shown if len(shown) < 80 else f"{shown[:77]}..."
