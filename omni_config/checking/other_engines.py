"""Files of other engines, read where they stand (``engines``): the same rules judge them, findings in the original."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from omni_config.catalog.identify import identify, same
from omni_config.catalog.load import catalog
from omni_config.checking.document import UNNAMED, ParsedDocument
from omni_config.engines import ENGINES
from omni_config.engines.detect import drafts_of
from omni_config.engines.facts import facts_of
from omni_config.engines.formats.draft import Draft
from omni_config.engines.formats.given import Given, Gpus
from omni_config.engines.formats.gpus import put
from omni_config.engines.said_version import said_version
from omni_config.engines.theirs import settle
from omni_config.findings import CHOSEN, Finding, Source, spoken
from omni_config.reading.nodes import YamlNode
from omni_config.schema.settings import FIELDS


def documents_of(source: Source, nodes: list[YamlNode] | None, assume: Mapping[str, str]) -> list[ParsedDocument]:
    """Every deployment of a file of another engine; empty where the file is none.

    ``assume`` says the model, the version of the engine, the GPU and their number, where the file itself does not. Its
    ``usual gpu`` and ``usual engines`` (versions, by spaces) give way to what the file says; ``said by`` says them.
    """
    return [_document(source, draft, assume, index) for index, draft in enumerate(drafts_of(source, nodes))]


def _document(source: Source, draft: Draft, assume: Mapping[str, str], index: int) -> ParsedDocument:
    if not draft.get("engine"):
        return ParsedDocument(source, None, range(0), index, tuple(draft.findings()), foreign=True, assume=assume)
    judge_by = _choose_version(draft, assume)
    for name in ("model", "gpu"):
        if name in assume:
            draft.set(name, assume[name], draft.place)
    if "usual gpu" in assume and not draft.has("gpu"):
        draft.set("gpu", assume["usual gpu"], draft.place)
    if "gpus" in assume and draft.given is None:
        draft.given = Given(Gpus(int(assume["gpus"]), f"--gpus {assume['gpus']}", draft.place), shared=True)
    settle(draft, str(draft.get("engine")))
    if draft.of_version is not None:
        draft.of_version(str(draft.get("engine")))
    of_model = _model_of(draft)
    _decide(draft)
    put(draft)
    notes = [*draft.findings(), *of_model]
    if not draft.has("model"):
        draft.set("model", UNNAMED.id, draft.place)
    parsed = ParsedDocument(
        source,
        draft.root if catalog().engine(str(draft.get("engine"))) else None,
        _lines(draft),
        index,
        tuple(notes),
        foreign=True,
        left_out=tuple(draft.left_out),
        options=draft.options,
        unknown=frozenset(draft.unknown),
        pipeline=draft.pipeline,
        says_more=draft.says_more,
        not_run=draft.not_run,
        judged_by=judge_by,
        draft=draft,
        assume=assume,
        decisions=tuple(draft.decisions),
    )
    return parsed


def _decide(draft: Draft) -> None:
    """What the engine chooses by itself, in the version that judges; one finding says it."""
    engine = ENGINES[str(draft.get("engine")).partition("==")[0]]
    facts = facts_of(str(draft.get("engine")))
    if not engine.decides or facts is None:
        return
    engine.decide(draft, facts)
    chosen = [one for one in draft.decisions if one.mark in CHOSEN and one.setting in FIELDS]
    if chosen:
        from omni_config.engines.words import Words

        words = Words(draft, draft.root)
        said = ", ".join(words.phrase(one.setting, one.value) or f"{one.setting} {spoken(one.value)}" for one in chosen)
        draft.note("OMNI640", f"{draft.get('engine')} chooses by itself: {said}", draft.place, "advice")


def _choose_version(draft: Draft, assume: Mapping[str, str]) -> str:
    """Name the version that judges: the one that is assumed, else what the deployment says, else the usual one, else
    the newest that is known. In words, which and why; a version that has no card is noted, and nothing is judged by
    another.
    """
    assumed = assume.get("engine", "")
    family = str(draft.get("engine"))
    known = catalog().versions(family)
    if assumed.partition("==")[0] == family:
        draft.set("engine", assumed, draft.place)
        return f"{assumed}, as was asked"
    said = said_version(draft.image, family, 0)
    said = said or said_version(draft.file.source.text, family, draft.file.offset(draft.place))
    usual = next((name for name in assume.get("usual engines", "").split() if name.partition("==")[0] == family), "")
    if said is None and not usual:
        draft.set("engine", known[0], draft.place)
        return f"{known[0]}, the newest that is known"
    engine = f"{family}=={said.version}" if said else usual
    who, words = ("the file", f" ({said.words})") if said else (assume.get("said by", ""), "")
    draft.set("engine", engine, draft.place)
    if catalog().engine(engine) is None:
        near = " or ".join(f"--engine {name}" for name in catalog().nearest_engines(engine))
        message = f"nothing is known of {engine}, which {who} names{words}, so nothing was judged"
        draft.note("OMNI613", message, draft.place, "warning", next_step=f"judge it by the nearest version: {near}")
    return f"{engine}, as {who} says{words}"


def _model_of(draft: Draft) -> list[Finding]:
    """Find the card of the model by its name, or by the last part of a path; what there is to say where there is none.

    A pipeline class that the file names is held against those that the version registers.
    """
    facts = facts_of(str(draft.get("engine")))
    found = []
    if (named := draft.options.get("model_class_name")) and isinstance(named.value, str):
        draft.pipeline = named.value
    if named and draft.pipeline and facts and not facts.registers(draft.pipeline):
        near = difflib.get_close_matches(draft.pipeline, facts.pipelines, 1, 0.6)
        next_step = f"did you mean {near[0]}?" if near else "name one that it registers"
        message = f"{draft.get('engine')} registers no pipeline {draft.pipeline}"
        found.append(Finding("OMNI614", message, next_step=next_step, span=named.span))
        draft.pipeline = ""  # so that nothing else is said of a class that is not there
    if not draft.has("model"):
        return [*found, Finding("OMNI604", "the file names no model", "advice", span=draft.place)]
    name, known = str(draft.get("model")), catalog()
    if known.model(name) or Path(name).is_dir():
        return found
    place = draft.root.children["model"].span
    parts = [part.lower() for part in PurePosixPath(name).parts]
    if not draft.pipeline:
        of_model = next((draft.pipelines[part] for part in reversed(parts) if part in draft.pipelines), "")
        draft.pipeline = of_model if facts and of_model in facts.pipelines else ""
    card = identify(name, known)
    if card is not None and same(name, card[0]):
        draft.set("model", card[0].id, place)
    elif card is None and not draft.pipeline:
        found.append(Finding("OMNI604", f"no card for model {name}", "advice", fields=("model",), span=place))
    return found


def _lines(draft: Draft) -> range:
    """The lines of a deployment: a comment that accepts a finding must stand on one of them to be asked."""
    lines = {span.line for finding in draft.findings() for span in (finding.span, *finding.related) if span}
    pending = [draft.root]
    while pending:
        node = pending.pop()
        lines.add(node.span.line)
        pending += node.children.values()
    return range(min(lines), max(lines) + 1) if lines else range(1, sys.maxsize)
