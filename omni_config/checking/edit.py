"""Changes of settings, written into the text of a config: comments, order and quoting of all else survive."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from omni_config.findings import Source
from omni_config.reading.nodes import Unreadable, YamlNode, parse
from omni_config.schema.settings import FIELDS, PARAMETERS, SWITCHES, validate


class CannotEdit(Exception):
    """The text writes these settings in a way that an edit would not survive (aliases, merge keys)."""


@dataclass(frozen=True)
class Edit:
    """A part of a text, and what stands there instead."""

    start: int
    end: int
    text: str


def changed_part(before: str, after: str) -> Edit:
    """The one edit that makes a text of another: what both begin and end with stays."""
    shortest = min(len(before), len(after))
    start = next((at for at in range(shortest) if before[at] != after[at]), shortest)
    same = next((n for n in range(shortest - start) if before[-1 - n] != after[-1 - n]), shortest - start)
    return Edit(start, len(before) - same, after[start : len(after) - same])


def apply(source: Source, index: int, changes: Mapping[str, Any]) -> str:
    """The text of a file with settings of its document number ``index`` changed; None and False switches are removed.

    Raises:
        CannotEdit: the result would not say exactly these changes.
    """
    text = source.text
    for name, value in changes.items():
        node = _document(source.name, text, index)
        edit = edit_at(text, node, FIELDS[name], _absent(name, value), value)
        if edit is not None:
            text = text[: edit.start] + edit.text + text[edit.end :]
    _verify(source, text, index, changes)
    return text


def _document(name: str, text: str, index: int) -> YamlNode:
    try:
        return parse(Source(name, text))[index]
    except (Unreadable, IndexError):
        raise CannotEdit(f"{name}: an anchor or alias is in the way; edit it by hand") from None


def rename_key(source: Source, node: YamlNode, path: tuple[str, ...], name: str) -> str:
    """The text with one key spelt otherwise."""
    found = node.find(path)
    assert found is not None
    assert found.key_span is not None
    end = found.key_start + found.key_span.end - found.key_span.column
    return source.text[: found.key_start] + name + source.text[end:]


def _verify(source: Source, text: str, index: int, changes: Mapping[str, Any]) -> None:
    try:
        before = validate(parse(source)[index].value)
        after = validate(parse(Source(source.name, text))[index].value)
        nodes = len(parse(source)) == len(parse(Source(source.name, text)))
    except (Unreadable, ValueError, IndexError) as error:
        raise CannotEdit(str(error)) from None
    wanted = before | dict(changes)
    for switch in SWITCHES:
        if not wanted[switch] and before[switch]:  # its parameters go with it
            wanted |= {name: after[name] for name in PARAMETERS[switch]}
    if not nodes or {k: _plain(v) for k, v in after.items()} != {k: _plain(v) for k, v in wanted.items()}:
        raise CannotEdit(f"{source.name}: cannot change {', '.join(changes)} in place; edit it by hand")


def _plain(value: Any) -> Any:
    """LoRA adapters compare as mappings."""
    if isinstance(value, tuple | list):
        return [dict(item) for item in value]
    return value


def _absent(name: str, value: Any) -> bool:
    return value is None or (name in SWITCHES and value is False) or value in ((), [])


def edit_at(text: str, node: YamlNode, path: tuple[str | int, ...], absent: bool, value: Any) -> Edit | None:
    """The edit after which a document says a value at a path, or no longer does; None where it is so already."""
    found = node.find(path)
    if found is not None and found.alias:
        raise CannotEdit("the value is an alias; edit it by hand")
    if absent:
        return None if found is None else removal(text, node, path)
    text_of_value = written(value)
    if found is not None:
        return None if found.value == value and value is not True else Edit(found.start, found.end, text_of_value)
    depth = max(d for d in range(len(path)) if node.find(path[:d]) is not None)
    section = node.find(path[:depth])
    assert section is not None
    if section.alias or not isinstance(section.value, dict):
        raise CannotEdit("the section is an alias; edit it by hand")
    return insertion(text, section, path[depth:], text_of_value)


def removal(text: str, node: YamlNode, path: tuple[str | int, ...]) -> Edit:
    """Remove an entry, and a section that would be empty without it."""
    while len(path) > 1 and (parent := node.find(path[:-1])) is not None and len(parent.children) == 1:
        path = path[:-1]
    parent, found = node.find(path[:-1]), node.find(path)
    assert parent is not None
    assert found is not None
    if parent.flow:
        after = re.compile(r"\s*,\s*").match(text, found.end)
        if after:
            return Edit(found.key_start, after.end(), "")
        before = text[: found.key_start].rstrip().removesuffix(",").rstrip()  # the last entry takes the comma before it
        return Edit(len(before), found.end, "")
    first = text.rfind("\n", 0, found.key_start) + 1
    last = text.find("\n", found.end)
    return Edit(first, len(text) if last < 0 else last + 1, "")


def insertion(text: str, section: YamlNode, path: tuple[str | int, ...], written: str) -> Edit:
    """A further entry of a section, and the sections in between."""
    if section.flow:
        inner = written
        for key in reversed(path[1:]):
            inner = f"{{{key}: {inner}}}"
        comma = ", " if section.children else ""
        last = max((child.end for child in section.children.values()), default=section.start + 1)
        return Edit(last, last, f"{comma}{path[0]}: {inner}")
    first = next(iter(section.children.values()))
    indent = first.key_start - (text.rfind("\n", 0, first.key_start) + 1)
    lines = [f"{' ' * (indent + 2 * depth)}{key}:" for depth, key in enumerate(path)]
    lines[-1] += f" {written}"
    end = text.find("\n", section.end)
    if end < 0:
        return Edit(len(text), len(text), "\n" + "\n".join(lines))
    return Edit(end + 1, end + 1, "\n".join(lines) + "\n")


def written(value: Any) -> str:
    """A value as YAML on one line."""
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, str):
        simple = re.fullmatch(r"[A-Za-z_][\w./-]*", value) and parse(Source("", value))[0].value == value
        return value if simple else '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
    if isinstance(value, list | tuple):
        return "[" + ", ".join(written(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {written(item)}" for key, item in value.items()) + "}"
    return str(value)
