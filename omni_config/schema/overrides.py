"""Settings given on the command line, laid over a file; findings about them point at the flag."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from omni_config.findings import Source, Span
from omni_config.reading.nodes import Unreadable, YamlNode, parse
from omni_config.schema.settings import FIELDS, SWITCHES


@dataclass(frozen=True)
class Override:
    """A setting of the document from a flag. ``words`` is the flag as typed, for showing where it came from."""

    path: tuple[str, ...]
    value: Any
    words: tuple[str, ...]


def assignment(text: str) -> Override:
    """``parallel.ulysses_degree=2``, with the value read as YAML reads it; a bare leaf name will do.

    Raises:
        ValueError: there is no "=", or the value is not YAML.
    """
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ValueError(f"--set {text}: expected PATH=VALUE, such as parallel.ulysses_degree=2")
    path = FIELDS.get(name) or tuple(name.split("."))
    return Override(path, yaml_value(value, f"--set {name}"), ("--set", text))


def yaml_value(text: str, flag: str) -> Any:
    """A value typed on a command line.

    Raises:
        ValueError: it is not YAML (of which JSON is a part).
    """
    try:
        nodes = parse(Source(flag, text))
    except Unreadable as error:
        raise ValueError(f"{flag}: {error} in {text!r}") from None
    return nodes[0].value if nodes else None


def lay_over(node: YamlNode | None, overrides: Sequence[Override]) -> YamlNode:
    """A file's document (or none) with the overrides in it, later ones over earlier ones."""
    words = [" ".join(shlex.quote(word) for word in override.words) for override in overrides]
    source = Source("command line", " ".join(words))
    start = Span(source, 1, 1, 2)
    root = _copy(node) if node is not None else YamlNode({"version": 1}, start, children={})
    column = 1
    for override, text in zip(overrides, words, strict=True):
        span = Span(source, 1, column, column + len(text))
        column += len(text) + 1
        place = root
        for section in override.path[:-1]:
            if section in SWITCHES and place.children.get(section, YamlNode(None, span)).value is True:
                place.children[section] = YamlNode({}, span)
            if not isinstance(place.children.get(section, YamlNode({}, span)).value, dict):
                break
            place = place.children.setdefault(section, YamlNode({}, span))
        place.children[override.path[-1]] = _tree(override.value, span)
    return _rebuilt(root)


def with_engine(node: YamlNode, engine: str) -> YamlNode:
    """A document for another engine, all else in its place."""
    place = node.children.get("engine", node.children["model"])
    children = node.children | {"engine": replace(place, value=engine)}
    return replace(node, value=node.value | {"engine": engine}, children=children)


def _copy(node: YamlNode) -> YamlNode:
    return replace(node, children={key: _copy(child) for key, child in node.children.items()})


def _tree(value: Any, span: Span) -> YamlNode:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return YamlNode(value, span, children={key: _tree(item, span) for key, item in items})


def _rebuilt(node: YamlNode) -> YamlNode:
    """The value of each mapping, again from its children."""
    if isinstance(node.value, dict):
        children = {key: _rebuilt(child) for key, child in node.children.items()}
        return replace(
            node, value=node.value | {key: child.value for key, child in children.items()}, children=children
        )
    return node
