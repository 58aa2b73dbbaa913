"""Files in, check results out: bytes are parsed into documents, and each is judged once."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from omni_config.checking.document import CheckResult, ParsedDocument, judge
from omni_config.checking.schema_findings import validated
from omni_config.findings import Finding, Source, Span
from omni_config.reading.discover import PYTHON, SUFFIXES
from omni_config.reading.nodes import Unreadable, YamlNode, decode, parse
from omni_config.rules.rule import Rule

if TYPE_CHECKING:
    from omni_config.schema.document import Document


#: Sections of our format, two of which no other file has.
SECTIONS = ("parallel", "cache", "memory", "vae", "sampling", "server", "hardware", "execution", "lora")


def check(
    path: str | Path, policies: Iterable[Rule] = (), assume: Mapping[str, str] | None = None
) -> list[CheckResult]:
    """Check every document of a file; a file that cannot be read is one result with a finding that says so.

    ``policies`` are an organisation's own rules (``omni_config.catalog.policies``). ``assume`` says the model, the
    version of the engine, the GPU and their number for a file of another engine that does not say them
    (``omni_config.checking.other_engines``).
    """
    policies = tuple(policies)
    return [judge(document, policies) for document in read(path, assume)]


def check_bytes(
    name: str, data: bytes, policies: Iterable[Rule] = (), assume: Mapping[str, str] | None = None
) -> list[CheckResult]:
    """``check`` for a text that is in memory."""
    policies = tuple(policies)
    return [judge(document, policies) for document in read_bytes(name, data, assume)]


def read(path: str | Path, assume: Mapping[str, str] | None = None) -> list[ParsedDocument]:
    """The documents of a file, to be judged; at least one."""
    name = str(path)
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        return [_unusable(Source(name, ""), "OMNI902", (error.strerror or "cannot be read").lower())]
    return read_bytes(name, data, assume)


def read_bytes(name: str, data: bytes, assume: Mapping[str, str] | None = None) -> list[ParsedDocument]:
    """``read`` for a text that is in memory."""
    source = Source(name, "")
    nodes: list[YamlNode] | None = None
    unreadable: tuple[Finding, ...] = ()
    try:
        source = decode(name, data)
        nodes = parse(source) if not name.endswith(PYTHON) else None
    except Unreadable as error:
        unreadable = (error.finding,)
    if source.text and not any(_is_ours(node) for node in nodes or ()):
        from omni_config.checking.carried import carried
        from omni_config.checking.other_engines import documents_of

        try:
            inner = [node for node in carried(source, nodes or []) if _is_ours(node)]
        except Unreadable as error:
            return [ParsedDocument(source, None, range(0), notes=(error.finding,))]
        if inner:
            return [ParsedDocument(source, node, index=number, foreign=True) for number, node in enumerate(inner)]

        if found := documents_of(source, nodes, assume or {}):
            return found
    ours = (
        any(_is_ours(node) for node in nodes) if nodes is not None else _was_ours(source) and not name.endswith(PYTHON)
    )
    if source.text.strip() and not ours and nodes != []:
        from omni_config.checking.unread import unread

        return [unread(source, nodes)]
    if nodes is None:
        return [ParsedDocument(source, None, range(0), notes=unreadable)]
    if not nodes:
        return [_unusable(source, "OMNI906", "the file is empty; it needs at least version and model")]
    starts = [1, *(node.span.line for node in nodes[1:]), sys.maxsize]
    return [
        ParsedDocument(source, node, range(first, end), index)
        for index, (node, first, end) in enumerate(zip(nodes, starts[:-1], starts[1:], strict=True))
    ]


def _is_ours(node: YamlNode) -> bool:
    """Whether a mapping says that it is of our format: its version and a model, or two of our sections."""
    if not isinstance(node.value, dict):
        return False
    sections = [key for key in SECTIONS if isinstance(node.value.get(key), dict | list)]
    return {"version", "model"} <= node.value.keys() or len(sections) > 1


def _was_ours(source: Source) -> bool:
    """Whether a text that cannot be read was meant to be YAML: by its lines, or by its name."""
    lines = all(re.search(rf"^{key}\s*:", source.text, re.MULTILINE) for key in ("version", "model"))
    return lines or (source.name.endswith(SUFFIXES) and "{{" not in source.text)


def load(path: str | Path) -> Document:
    """The document in a file.

    Raises:
        ValueError: it cannot be read or does not fit the schema; the message is the first finding.
    """
    try:
        source = decode(str(path), Path(path).read_bytes())
        node = parse(source)[0]
    except Unreadable as error:
        raise ValueError(f"{error.finding.span}: {error.finding.code} {error}") from None
    except IndexError:
        raise ValueError(f"{path}:1:1: OMNI906 the file is empty") from None
    settings, findings = validated(node)
    if settings is None:
        raise ValueError(f"{findings[0].span}: {findings[0].code} {findings[0].message}")
    from omni_config.schema.document import Document

    return Document.model_validate(node.value)


def _unusable(source: Source, code: str, message: str) -> ParsedDocument:
    return ParsedDocument(source, None, range(0), notes=(Finding(code, message, span=Span(source, 1, 1, 1)),))
