"""YAML with positions: what ``yaml.safe_load`` reads, and where in the text each key and value stands.

Built on PyYAML's events rather than its loader, because a loader forgets positions, keeps the last of two equal keys,
recurses as deep as the file nests, and expands aliases without a bound.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, NamedTuple

import yaml
from yaml.constructor import SafeConstructor
from yaml.resolver import Resolver

from omni_config.findings import Finding, Source, Span, spoken

Loader: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

MAX_BYTES = 1_000_000
MAX_DEPTH = 32
MAX_NODES = 100_000

_construct: Any = SafeConstructor()
_resolver: Any = Resolver()
_SCALARS = {
    "tag:yaml.org,2002:int": _construct.construct_yaml_int,
    "tag:yaml.org,2002:float": _construct.construct_yaml_float,
    "tag:yaml.org,2002:bool": _construct.construct_yaml_bool,
    "tag:yaml.org,2002:null": lambda _: None,
}
_DECIMAL = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")  # not 010 (8), 0x10, 1:30 (90) or 1_000
_INT = "tag:yaml.org,2002:int"
_TEXTS = {f"tag:yaml.org,2002:{name}" for name in ("str", "merge", "value", "timestamp")}
_WORDS = (str, int, float, type(None))  # what a key may be


class Extent(NamedTuple):
    """Where the parser found something. Most places are never shown, so lines and columns are counted on demand."""

    source: Source
    first: yaml.Mark
    last: yaml.Mark

    @property
    def span(self) -> Span:
        """The same for people; of what takes several lines, the first character."""
        _, first, last = self
        width = last.column - first.column if last.line == first.line else 1
        return Span(self.source, first.line + 1, first.column + 1, first.column + 1 + max(width, 1))


@dataclass(slots=True, eq=False, repr=False)
class YamlNode:
    """A value and where it stands. ``children`` of a mapping are by key, of a sequence by index.

    The offsets in the text are those of a value that was read from YAML.
    """

    value: Any
    place: Extent | Span
    children: dict[Any, YamlNode] = field(default_factory=dict)
    key: YamlNode | None = None
    plain: str | None = None  # the text of an unquoted scalar, as written
    flow: bool = False
    alias: bool = False

    @property
    def span(self) -> Span:
        """The value; of a collection in block style, its first character."""
        return self.place.span if isinstance(self.place, Extent) else self.place

    @property
    def key_span(self) -> Span | None:
        """The key that the value belongs to."""
        return self.key.span if self.key else None

    @property
    def start(self) -> int:
        """Offset of the value."""
        return int(self.place.first.index) if isinstance(self.place, Extent) else 0

    @property
    def key_start(self) -> int:
        """Offset of the key."""
        return self.key.start if self.key else 0

    @property
    def end(self) -> int:
        """Offset behind the value; a collection in block style ends where its last value does."""
        if self.children and not self.flow and not self.alias:
            return max(child.end for child in self.children.values())
        # The parser ends a block scalar where the next token starts.
        last = self.place.last.index if isinstance(self.place, Extent) else 0
        return self.start + len(self.place.source.text[self.start : last].rstrip())

    def find(self, path: tuple[str | int, ...]) -> YamlNode | None:
        """The node at ``path``, or None where the file does not say it."""
        node: YamlNode | None = self
        for key in path:
            node = node.children.get(key) if node is not None else None
        return node


class Unreadable(Exception):
    """The text cannot be used at all; ``finding`` says where and why."""

    def __init__(self, finding: Finding):
        super().__init__(finding.message)
        self.finding = finding


def decode(name: str, data: bytes) -> Source:
    """Text of a file.

    Raises:
        Unreadable: it is larger than ``MAX_BYTES``, is not UTF-8, or holds control characters.
    """
    origin = Span(Source(name, ""), 1, 1, 1)
    if len(data) > MAX_BYTES:
        raise Unreadable(_unreadable("OMNI902", f"{len(data):,} bytes; a config has at most {MAX_BYTES:,}", origin))
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        source = Source(name, data.decode("latin-1"))
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        span = Span(source, line, column, column + 1)
        message = f"byte 0x{data[error.start]:02x} is not UTF-8"
        raise Unreadable(_unreadable("OMNI902", message, span, "save the file as UTF-8")) from None
    source = Source(name, text)
    if control := yaml.reader.Reader.NON_PRINTABLE.search(text):
        line, column = text.count("\n", 0, control.start()) + 1, control.start() - text.rfind("\n", 0, control.start())
        message = f"character U+{ord(control.group()):04X} is not allowed in YAML"
        raise Unreadable(_unreadable("OMNI902", message, Span(source, line, column, column + 1), "remove it"))
    return source


def parse(source: Source, masked: str | None = None) -> list[YamlNode]:
    """Read every YAML document of a text, without its empty ones; ``masked`` is what is read in its place, with places
    in the text itself.

    Raises:
        Unreadable: a syntax error, a duplicate key, a tag that is not plain YAML, or more nesting or more nodes than
            any real config has.
    """
    try:
        return list(_documents(source, source.text if masked is None else masked))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = " ".join(part for part in (error.context, error.problem) if part)
        raise Unreadable(_unreadable("OMNI901", message, _at(source, mark))) from None
    except yaml.YAMLError as error:  # an encoding fault, which has no position
        raise Unreadable(_unreadable("OMNI902", str(error).partition("\n")[0], Span(source, 1, 1, 2))) from None


def _documents(source: Source, text: str) -> Iterator[YamlNode]:
    anchors: dict[str, YamlNode] = {}
    loader = Loader(text)
    stack: list[_Open] = []
    count = 0
    try:
        next_event = loader.get_event
        while (kind := type(event := next_event())) is not yaml.StreamEndEvent:
            extent = Extent(source, event.start_mark, event.end_mark)
            if kind is yaml.ScalarEvent:
                node = _scalar(event, extent)
            elif kind is yaml.AliasEvent:
                if event.anchor not in anchors:
                    raise Unreadable(_unreadable("OMNI901", f"alias *{event.anchor} has no anchor", extent.span))
                node = replace(anchors[event.anchor], place=extent, alias=True)
                count += _size(node, MAX_NODES - count)
            elif kind in (yaml.MappingStartEvent, yaml.SequenceStartEvent):
                mapping = kind is yaml.MappingStartEvent
                default = "tag:yaml.org,2002:" + ("map" if mapping else "seq")
                if event.tag not in (None, "!", default):
                    raise Unreadable(_foreign_tag(event.tag, extent))
                node = YamlNode({} if mapping else [], extent)
                node.flow = bool(event.flow_style)
                if len(stack) >= MAX_DEPTH:
                    raise Unreadable(_unreadable("OMNI902", f"nested more than {MAX_DEPTH} deep", node.span))
                stack.append(_Open(node, mapping, event.anchor, event.start_mark))
                continue
            elif kind in (yaml.MappingEndEvent, yaml.SequenceEndEvent):
                opened = stack.pop()
                node = opened.node
                if node.flow:
                    node.place = Extent(source, opened.first, event.end_mark)
                event = opened
            elif kind is yaml.DocumentStartEvent:
                anchors.clear()
                continue
            else:
                continue
            count += 1
            if count > MAX_NODES:
                raise Unreadable(_unreadable("OMNI902", f"expands to more than {MAX_NODES:,} values", node.span))
            if event.anchor and not node.alias:
                anchors[event.anchor] = node
            if stack:
                stack[-1].add(node)
            elif node.value is not None:
                yield node
    finally:
        loader.dispose()


@dataclass(slots=True, eq=False, repr=False)
class _Open:
    """A collection whose end has not been read yet."""

    node: YamlNode
    mapping: bool
    anchor: str | None
    first: yaml.Mark
    key: YamlNode | None = None
    merged: list[YamlNode] = field(default_factory=list)

    def add(self, node: YamlNode) -> None:
        target = self.node
        if not self.mapping:
            target.children[len(target.value)] = node
            target.value.append(node.value)
        elif self.key is None:
            self.key = node
        else:
            key, self.key = self.key, None
            if key.plain == "<<":
                self._merge(node)
                return
            if not isinstance(key.value, _WORDS):
                raise Unreadable(_unreadable("OMNI901", "a key must be a single word", key.span))
            earlier = target.children.get(key.value)
            if earlier is not None and not any(earlier is merged for merged in self.merged):
                message = f"key '{spoken(key.value)}' is written twice; line {_line(earlier)} has it already"
                raise Unreadable(
                    _unreadable(
                        "OMNI903", message, key.span, "keep one of the two", (earlier.key_span or earlier.span,)
                    )
                )
            node.key = key
            target.children[key.value] = node
            target.value[key.value] = node.value

    def _merge(self, node: YamlNode) -> None:
        """``<<``: keys of the merged mappings hold where the mapping does not say its own (YAML 1.1)."""
        for other in list(node.children.values()) if isinstance(node.value, list) else [node]:
            if not isinstance(other.value, dict):
                raise Unreadable(_unreadable("OMNI901", "<< merges mappings only", node.span))
            for key, child in other.children.items():
                if key not in self.node.children:
                    self.node.children[key] = child
                    self.node.value[key] = child.value
                    self.merged.append(child)


def _scalar(event: yaml.ScalarEvent, extent: Extent) -> YamlNode:
    node = YamlNode(event.value, extent)
    if not event.style:
        node.plain = event.value
    try:
        if event.tag not in (None, "!"):
            node.value = _constructed(event.tag, event.value)
        elif event.implicit[0]:
            node.value = (_implied if len(event.value) <= 20 else _implied.__wrapped__)(event.value)
    except KeyError:
        raise Unreadable(_foreign_tag(event.tag, extent)) from None
    except _AnotherNumber as error:
        raise Unreadable(_unreadable("OMNI901", str(error), node.span, "write the number with plain digits")) from None
    except ValueError:
        message = f"{_short(event.value)} is not a number that YAML can read"
        raise Unreadable(_unreadable("OMNI901", message, node.span)) from None
    return node


class _AnotherNumber(Exception):
    """A plain number that YAML 1.1 and 1.2 read differently."""


@lru_cache(maxsize=10_000)  # configs of a folder say the same words
def _implied(text: str) -> Any:
    """The value of a scalar that is written without quotes and without a tag."""
    tag = _resolver.resolve(yaml.ScalarNode, text, (True, False))
    if tag == _INT and not _DECIMAL.fullmatch(text):
        raise _AnotherNumber(f"{_short(text)} is another number in YAML 1.1 than in YAML 1.2")
    return _constructed(tag, text)


def _constructed(tag: str, text: str) -> Any:
    """The value of a scalar with a tag; a KeyError where the tag is foreign."""
    return text if tag in _TEXTS else _SCALARS[tag](yaml.ScalarNode(tag, text))


def _short(text: str) -> str:
    return text if len(text) <= 20 else text[:20] + "..."


def _size(node: YamlNode, limit: int) -> int:
    """Nodes below an alias, counted no further than ``limit``: aliases of aliases grow exponentially."""
    total, pending = 0, [node]
    while pending and total <= limit:
        children = pending.pop().children.values()
        total += len(children)
        pending.extend(children)
    return total


def _at(source: Source, mark: Any) -> Span:
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    return Span(source, line, column, column + 1)


def _line(node: YamlNode) -> int:
    return (node.key_span or node.span).line


def _foreign_tag(tag: str | None, extent: Extent) -> Finding:
    return _unreadable("OMNI901", f"tag {tag} is not plain YAML", extent.span, "remove the tag")


def _unreadable(code: str, message: str, span: Span, next_step: str = "", related: tuple[Span, ...] = ()) -> Finding:
    return Finding(code=code, message=message, next_step=next_step, span=span, related=related)
