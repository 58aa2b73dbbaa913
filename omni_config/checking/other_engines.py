"""Files of other engines, read where they stand (``engines``): the same rules judge them, findings in the original."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from omni_config.cards import ModelCard
from omni_config.catalog.load import catalog
from omni_config.checking.document import UNNAMED, ParsedDocument
from omni_config.engines.detect import drafts_of
from omni_config.engines.formats.draft import Draft
from omni_config.findings import Finding, Source
from omni_config.reading.nodes import YamlNode


def documents_of(source: Source, nodes: list[YamlNode] | None, assume: Mapping[str, str]) -> list[ParsedDocument]:
    """Every deployment of a file of another engine; empty where the file is none.

    ``assume`` says the model, and the version of the engine, where the file itself does not.
    """
    return [_document(source, draft, assume, index) for index, draft in enumerate(drafts_of(source, nodes))]


def _document(source: Source, draft: Draft, assume: Mapping[str, str], index: int) -> ParsedDocument:
    if not draft.get("engine"):
        return ParsedDocument(source, None, range(0), index, tuple(draft.findings()), foreign=True)
    if "model" in assume and not draft.has("model"):
        draft.set("model", assume["model"], draft.place)
    engine = assume.get("engine", "")
    if engine.partition("==")[0] == draft.get("engine"):
        draft.set("engine", engine, draft.place)
    else:
        _choose_version(draft)
    notes = draft.findings()
    unknown = _unknown_model(draft)
    if unknown:
        notes = [*notes, unknown]
        if not draft.has("model"):
            draft.set("model", UNNAMED.id, draft.place)
    left_out = tuple(draft.left_out)
    return ParsedDocument(
        source,
        draft.root,
        _lines(draft),
        index,
        tuple(notes),
        foreign=True,
        left_out=left_out,
        options=draft.options,
        pipeline=draft.pipeline,
    )


def _choose_version(draft: Draft) -> None:
    """No version is said: the documentation judges, or the newest version where only versions have the model."""
    family = draft.get("engine")
    card = catalog().model(str(draft.get("model"))) if draft.has("model") else None
    if card is None or _knows(family, card):
        return
    newest = next((name for name in catalog().versions(family) if _knows(name, card)), None)
    if newest is not None:
        draft.set("engine", newest, draft.place)
        draft.leave_unjudged(f"any version but {newest}, the newest whose card has the model", draft.place)


def _knows(engine: str, card: ModelCard) -> bool:
    found = catalog().engine(engine)
    return found is not None and found.claim(card) is not None


def _unknown_model(draft: Draft) -> Finding | None:
    from pathlib import Path

    if not draft.has("model"):
        return Finding("OMNI604", "the file names no model", "advice", span=draft.place)
    name = str(draft.get("model"))
    if catalog().model(name) or Path(name).is_dir():
        return None
    place = draft.root.children["model"].span
    return Finding("OMNI604", f"no card for model {name}", "advice", fields=("model",), span=place)


def _lines(draft: Draft) -> range:
    """The lines of a deployment: a comment that accepts a finding must stand on one of them to be asked."""
    lines = {span.line for finding in draft.findings() for span in (finding.span, *finding.related) if span}
    pending = [draft.root]
    while pending:
        node = pending.pop()
        lines.add(node.span.line)
        pending += node.children.values()
    return range(min(lines), max(lines) + 1) if lines else range(1, sys.maxsize)
