"""The one door into judgement: a parsed document in, all that is found out about it out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omni_config.cards import ModelCard
from omni_config.catalog.load import catalog
from omni_config.checking.environment import folder_card, missing_adapters, pipeline_of_folder, unusable_machine
from omni_config.checking.schema_findings import validated
from omni_config.findings import Decision, Finding, Source, Span, spoken
from omni_config.reading.ignores import apply_ignores
from omni_config.reading.nodes import YamlNode
from omni_config.resolving.resolver import Resolution, resolve_settings
from omni_config.resolving.target import Target, target_of
from omni_config.rules.expressions import parse
from omni_config.rules.kinds import Refuses, Supported
from omni_config.rules.quantities import SAYS_MORE, THEIRS, NotKnown, Quantities, has_unknown
from omni_config.rules.rule import Rule
from omni_config.schema.settings import FIELDS, Settings

if TYPE_CHECKING:
    from omni_config.engines.formats.draft import Draft
    from omni_config.engines.words import Words
    from omni_config.plan import Plan
    from omni_config.schema.overrides import Override

#: More are not listed where a name is unknown.
MOST_NAMES = 30
#: Stands in for a model that another engine's file does not name, or that has no card: rules that ask for it are
#: skipped.
UNNAMED = ModelCard(
    id="the model",
    family="",
    pipeline="",
    task="text_to_image",
    guidance=None,
    defaults={},
    dtype="bfloat16",
    dims={},
    tensor_parallel_splits=(),
    claims={},
    sources=(),
)


@dataclass(frozen=True, eq=False, repr=False)
class ParsedDocument:
    """One document of a text before it is judged; ``node`` is None where the text says no settings.

    ``lines`` of ``source`` are those on which it stands, and ``notes`` is what its reader has found. A ``foreign`` one
    is of another engine's file, in whose text our keys do not stand; ``left_out`` are its flags on which nothing
    depends that is judged. ``options`` are the engine's own settings, ``says_more`` that only a run knows whether there
    are others, ``unknown`` our settings whose value only a run knows, and ``pipeline`` the class of its model where no
    card of ours says it; ``judged_by`` says which version of the engine judges, and why. ``not_run``: where in the
    engine's source its program stands, if another one is started; ``decisions`` are what the engine chooses where
    nothing is said. ``changed``: it says other than the text, by flags or for another engine. ``draft`` is what its
    reader has made of a foreign one, and ``assume`` what it was told of it.
    """

    source: Source
    node: YamlNode | None
    lines: range = range(1, sys.maxsize)
    index: int = 0
    notes: tuple[Finding, ...] = ()
    foreign: bool = False
    left_out: tuple[str, ...] = ()
    options: Mapping[str, YamlNode] = field(default_factory=dict)
    unknown: frozenset[str] = frozenset()
    pipeline: str = ""
    says_more: bool = False
    not_run: str = ""
    judged_by: str = ""
    decisions: tuple[Decision, ...] = ()
    changed: bool = False
    draft: Draft | None = field(default=None, repr=False, compare=False)
    assume: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def words(self) -> Words | None:
        """What the text of a foreign one calls our settings; None where ours are the words."""
        if not self.foreign or self.changed or self.draft is None or self.node is None:
            return None
        from omni_config.engines.words import Words

        return Words(self.draft, self.node)

    def overridden(self, overrides: Sequence[Override]) -> ParsedDocument:
        """With settings from flags over its own."""
        from omni_config.schema.overrides import lay_over

        if self.node is None or not overrides:
            return self
        return replace(self, node=lay_over(self.node, overrides), changed=True)

    def for_engine(self, engine: str) -> ParsedDocument:
        """The same for another engine, all else in its place."""
        from omni_config.schema.overrides import with_engine

        if self.node is None:
            return self
        same = str(self.node.value.get("engine")).partition("==")[0] == engine.partition("==")[0]
        options = self.options if same else {}
        decisions = self.decisions if same else ()
        return replace(self, node=with_engine(self.node, engine), options=options, decisions=decisions, changed=True)

    def as_ours(self) -> ParsedDocument:
        """Only the settings: of another engine's file, not what its reader has noted, and the model must be known."""
        return replace(self, foreign=False, notes=()) if self.foreign and self.node is not None else self


def from_flags(overrides: Sequence[Override]) -> ParsedDocument:
    """The document that flags make without a file; it has no lines."""
    from omni_config.schema.overrides import lay_over

    node = lay_over(None, overrides)
    return ParsedDocument(node.span.source, node, lines=range(0))


@dataclass(frozen=True, eq=False, repr=False)
class CheckResult:
    """One document after its check. ``resolution`` is None where it could not be read.

    ``ignored`` are the findings that a comment in the file accepts, ``unselected`` those that nobody asked for, and
    ``known`` those that a baseline accepts.
    """

    source: Source
    findings: tuple[Finding, ...]
    resolution: Resolution | None = None
    document: ParsedDocument | None = None
    index: int = 0  # of the document in its file
    ignored: tuple[Finding, ...] = ()
    judged_by: str = ""  # the version of another engine, and why that one
    unselected: tuple[Finding, ...] = ()
    known: tuple[Finding, ...] = ()

    @property
    def node(self) -> YamlNode | None:
        """The document with its places; None where the text could not be parsed."""
        return self.document.node if self.document else None

    @property
    def foreign(self) -> bool:
        """Whether it is of another engine's file, in whose text our keys do not stand."""
        return self.document is not None and self.document.foreign

    @property
    def unaccepted(self) -> Target:
        """The model and engine, with the rules of which no finding is accepted or left out: for a search from here.

        Raises:
            ValueError: the document could not be read.
        """
        if self.resolution is None:
            raise ValueError("a document that cannot be read has no target")
        accepted = {finding.code for finding in (*self.ignored, *self.unselected, *self.known)}
        return self.resolution.target.by(rule for rule in self.resolution.target.rules if rule.code not in accepted)

    @property
    def plan(self) -> Plan | None:
        """The Plan of a document without errors, but for those that a comment accepts."""
        return self.resolution.accepted_plan() if self.resolution and self.exit_code == 0 else None

    @property
    def exit_code(self) -> int:
        """0 clean (warnings and advice included), 1 findings, 2 a document that cannot be used at all."""
        if not any(finding.severity == "error" for finding in self.findings):
            return 0
        return 1 if self.resolution else 2


def judge(document: ParsedDocument, policies: Iterable[Rule] = ()) -> CheckResult:
    """Judge a document by all rules and an organisation's own, less what the comments on its lines accept."""
    findings, resolution = _resolved(document, tuple(policies))
    remaining, ignored = apply_ignores(document.source, [*document.notes, *findings], document.lines)
    if document.changed:  # what a comment is there for may be in the text alone
        remaining = [finding for finding in remaining if finding.code != "OMNI907"]
    shown = sorted((item if item.name else documented(item) for item in remaining), key=_place)
    return CheckResult(
        document.source, tuple(shown), resolution, document, document.index, tuple(ignored), document.judged_by
    )


def _resolved(document: ParsedDocument, policies: tuple[Rule, ...]) -> tuple[list[Finding], Resolution | None]:
    """What the document means, with located findings; None where it cannot be resolved."""
    node = document.node
    if node is None:
        return [], None
    settings, findings = validated(node)
    if settings is None:
        return findings, None
    if unusable := list(unusable_machine(settings, node)):
        return [*findings, *unusable], None
    known = catalog()
    engine, card = known.engine(settings["engine"]), known.model(settings["model"])
    if card is None and Path(settings["model"]).is_dir():
        card, problem = folder_card(settings["model"], node)
        if card is None and document.foreign:  # its class may be all that the engine asks
            pipeline = document.pipeline or pipeline_of_folder(Path(settings["model"]))
            card = replace(UNNAMED, pipeline=pipeline)
            problem = [replace(finding, code="OMNI604", severity="advice") for finding in problem]
        findings += problem
    elif card is None:
        card, problem = _by_another_name(document, settings["model"], node)
        findings += problem
    if engine is None:
        near = known.nearest_engines(settings["engine"])
        findings.append(_unknown("OMNI502", "engine", settings["engine"], known.engine_ids, node, near))
    if card is None or engine is None:
        return findings, None
    if document.pipeline and card.sources:
        card = replace(card, pipeline=document.pipeline)
    if not card.sources:
        settings |= {"pipeline_name": card.pipeline}
    settings |= {THEIRS + name: option.value for name, option in document.options.items()}
    if document.says_more:
        settings[SAYS_MORE] = True
    target = target_of(card, engine, policies)
    if document.not_run:
        target = target.by(_rules_without(target, document.not_run))
    if document.unknown or any(has_unknown(option.value) for option in document.options.values()):
        target = target.by(_rules_that_know(target, settings, document.unknown))
    if not card.sources:
        target = target.by(_rules_without_model(target, settings))
    resolution = resolve_settings(settings, target)
    located = [_locate(finding, document) for finding in resolution.findings]
    return [*findings, *located, *missing_adapters(settings, engine, node)], resolution


def _by_another_name(document: ParsedDocument, name: str, node: YamlNode) -> tuple[ModelCard | None, list[Finding]]:
    """The card of a model that is written otherwise, or a relative's, with a word about what differs."""
    from omni_config.catalog.identify import identify, same

    found = identify(name, catalog())
    if found is not None:
        card, words = found
        place = node.children["model"].span if "model" in node.children else node.span
        return card, [] if same(name, card) else [Finding("OMNI523", words, "advice", fields=("model",), span=place)]
    if document.foreign:
        return replace(UNNAMED, pipeline=document.pipeline), []
    return None, [unknown_model(name, node)]


def _rules_without(target: Target, program: str) -> Iterable[Rule]:
    """The rules, and of those that list cases the cases, of what is run without a program of the engine.

    What an engine's card says that it has for a model is what its program has.
    """
    for rule in target.rules:
        if isinstance(rule, Refuses) and rule.speaks_of(target.engine):
            yield rule.only(case for case in rule.stated if not _stands_in(program, case.guards))
        elif not isinstance(rule, Supported):
            yield rule


def _stands_in(program: str, guards: Sequence[str]) -> bool:
    return bool(guards) and all(guard.startswith(program) for guard in guards)


class _AskedForModel(Exception):
    """A rule asked for the model."""


class _NoModel:
    """A model of which only the pipeline class is known, if that."""

    def __init__(self, pipeline: str) -> None:
        self.dims: dict[str, int] = {}
        if pipeline:
            self.id, self.pipeline = UNNAMED.id, pipeline

    def __getattr__(self, name: str) -> Any:
        raise _AskedForModel(name)


def _rules_without_model(target: Target, settings: Settings) -> Iterable[Rule]:
    """The rules that judge these settings without a question about the model."""
    known = target.card.pipeline if target.engine.claim(target.card) else ""
    model: Any = _NoModel(known)
    for rule in target.rules:
        asked = Quantities(settings, model, target.engine, target.features)
        if isinstance(rule, Refuses):
            if rule.speaks_of(target.engine):
                yield rule.only(case for case in rule.stated if not _asks(case.holds, asked))
        elif not _asks(rule.check, asked):
            yield rule


def _asks(question: Callable[[Quantities], Any], asked: Quantities) -> bool:
    """Whether a question is one about the model."""
    try:
        question(asked)
    except _AskedForModel:
        return True
    return False


class _AskedForUnknown(Exception):
    """A rule asked for a setting of ours that only a run knows; no TypeError, which rules take for an answer."""


class _Partly(Quantities):
    """The quantities of a config of which some settings are known only to a run."""

    def __init__(self, settings: Settings, target: Target, unknown: Iterable[str]) -> None:
        super().__init__(settings, target.card, target.engine, target.features)
        self.unknown = frozenset(unknown)
        for name in self.unknown:
            self.pop(name, None)

    def __missing__(self, name: str) -> Any:
        if name in self.unknown:
            raise _AskedForUnknown(name)
        return super().__missing__(name)


def _rules_that_know(target: Target, settings: Settings, unknown: Iterable[str]) -> Iterable[Rule]:
    """The rules, and of those that list cases the cases, that judge without what only a run knows."""
    asked = _Partly(target.with_defaults(settings), target, unknown)
    for rule in target.rules:
        if isinstance(rule, Refuses) and rule.speaks_of(target.engine):
            yield replace(rule, cases=tuple(case for case in rule.stated if _knows(parse(case.when), asked)))
        elif _knows(rule.check, asked):
            yield rule


def _knows(question: Callable[[Quantities], object], asked: Quantities) -> bool:
    try:
        question(asked)
    except (NotKnown, _AskedForUnknown):
        return False
    except TypeError:  # a value of another kind than the question expects
        pass
    return True


def unknown_model(name: str, node: YamlNode) -> Finding:
    """There is no card for the model of a document."""
    return _unknown("OMNI501", "model", name, catalog().model_ids, node)


def _unknown(code: str, key: str, value: str, known: list[str], node: YamlNode, nearest: Sequence[str] = ()) -> Finding:
    """A model or engine without a card; ``nearest`` are the versions of the engine beside the one that is named."""
    import difflib

    folded = {name.lower(): name for name in known}
    near = [folded[name] for name in difflib.get_close_matches(value.lower(), folded, 3, 0.6)]
    few = f"known: {', '.join(known)}" if len(known) <= MOST_NAMES else f"name one of the {len(known)} that have a card"
    next_step = f"did you mean {' or '.join(near)}?" if near else few
    if nearest:
        next_step = f"the nearest versions that have one: {', '.join(nearest)}"
    place = node.children.get(key, node)
    return Finding(code, f"no card for {key} '{spoken(value)}'", next_step=next_step, fields=(key,), span=place.span)


def documented(finding: Finding) -> Finding:
    """A finding of the reader with the name, the reason and, where it has none, the next step of its rule."""
    rule = catalog().by_code[finding.code]
    return replace(finding, name=rule.name, why=rule.why, next_step=finding.next_step or rule.fix)


def _locate(finding: Finding, document: ParsedDocument) -> Finding:
    """Put a finding where its first field that the file says stands, in the file's words; the others become related."""
    assert document.node is not None
    spans = list(_spans(finding.fields, document)) or [document.node.children["model"].span]
    if words := document.words:
        message, next_step = words.translated(finding.message), words.next_step(finding.next_step)
        finding = replace(finding, message=message, next_step=next_step)
    return replace(finding, span=spans[0], related=tuple(spans[1:]))


def _place(finding: Finding) -> tuple[int, int]:
    return (finding.span.line, finding.span.column) if finding.span else (0, 0)


def _spans(fields: tuple[str, ...], document: ParsedDocument) -> Iterable[Span]:
    assert document.node is not None
    for name in fields:
        theirs = name.startswith(THEIRS)
        place = document.options.get(name.removeprefix(THEIRS)) if theirs else document.node.find(FIELDS[name])
        if place is not None:
            yield (place.key_span or place.span) if isinstance(place.value, dict) else place.span
