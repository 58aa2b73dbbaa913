"""Check files of other engines where they stand (``importers``): the same rules, findings in the original file."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from omni_config.cards import EngineCard, ModelCard
from omni_config.catalog.load import catalog
from omni_config.checking.files import Checked, check_node, documented
from omni_config.engines.detect import drafts_of
from omni_config.engines.formats.draft import Draft
from omni_config.findings import Finding, Source
from omni_config.reading.ignores import apply_ignores
from omni_config.reading.nodes import Node
from omni_config.rules.quantities import Quantities
from omni_config.rules.rule import Rule
from omni_config.schema.settings import Settings

#: Stands in for a model that a file does not name, or that has no card: rules that ask for it are passed by.
UNNAMED = ModelCard(
    id="the model",
    family="",
    pipeline="",
    task="text_to_image",
    guidance=None,
    defaults={"num_inference_steps": 50, "width": 1024, "height": 1024},
    dtype="bfloat16",
    dims={},
    tensor_parallel_splits=(),
    claims={},
    sources=(),
)


class _Asked(Exception):
    """A rule asked for the model."""


class _NoModel:
    def __getattr__(self, name: str) -> Any:
        raise _Asked(name)


def rules_without_model(rules: tuple[Rule, ...], settings: Settings, engine: EngineCard) -> tuple[Rule, ...]:
    """The rules that judge these settings without a question about the model."""
    kept = []
    for rule in rules:
        asked = Quantities(settings, _NoModel(), engine, catalog().features)  # type: ignore[arg-type]
        try:
            rule.check(asked)
        except _Asked:
            continue
        kept.append(rule)
    return tuple(kept)


def check_foreign(
    source: Source, nodes: list[Node] | None, policies: tuple[Rule, ...] = (), assume: Mapping[str, str] | None = None
) -> list[Checked]:
    """Check every deployment of a file of another engine; empty where the file is none.

    ``assume`` says the model, and the version of the engine, where the file itself does not.
    """
    return [
        _check(source, draft, policies, assume or {}, index) for index, draft in enumerate(drafts_of(source, nodes))
    ]


def _check(source: Source, draft: Draft, policies: tuple[Rule, ...], assume: Mapping[str, str], index: int) -> Checked:
    if not draft.get("engine"):
        return Checked(source, tuple(documented(note) for note in draft.findings()), index=index, foreign=True)
    if "model" in assume and not draft.has("model"):
        draft.set("model", assume["model"], draft.place)
    engine = assume.get("engine", "")
    if engine.partition("==")[0] == draft.get("engine"):
        draft.set("engine", engine, draft.place)
    else:
        _choose_version(draft)
    notes = [documented(note) for note in draft.findings()]
    unknown = _unknown_model(draft)
    if unknown:
        notes.append(documented(unknown))
        if not draft.has("model"):
            draft.set("model", UNNAMED.id, draft.place)
    checked = check_node(source, draft.root, policies, stand_in=UNNAMED)
    remaining, ignored = apply_ignores(source, [*notes, *checked.findings], _lines(draft))
    findings = sorted((item if item.name else documented(item) for item in remaining), key=_place)
    left_out = tuple(draft.left_out)
    return replace(
        checked, findings=tuple(findings), ignored=tuple(ignored), index=index, foreign=True, left_out=left_out
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
        draft.pass_by(f"any version but {newest}, the newest whose card has the model", draft.place)


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


def _place(finding: Finding) -> tuple[int, int]:
    return (finding.span.line, finding.span.column) if finding.span else (0, 0)
