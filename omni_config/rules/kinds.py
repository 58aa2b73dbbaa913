"""The kinds of rule: the few classes that hold code, of which each rule in YAML is one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from math import prod
from typing import Any, ClassVar, Literal

from omni_config.cards import EngineCard, Feature, ModelCard
from omni_config.findings import Finding, Severity
from omni_config.rules import hardware as _hardware  # noqa: F401 (its quantities register themselves)
from omni_config.rules import of_models as _of_models  # noqa: F401 (as do its)
from omni_config.rules import offload as _offload  # noqa: F401 (and so do these)
from omni_config.rules.expressions import Expression, parse
from omni_config.rules.quantities import DIMS, Quantities
from omni_config.rules.rule import Rule
from omni_config.schema.settings import FIELDS, Settings


@dataclass(kw_only=True, eq=False, repr=False)
class Product(Rule):
    """A total equals a product of fields; a total that is left out is the product.

    ``product`` names a quantity that is the product, where there are factors beside those that a repair may change.
    """

    total: str
    factors: tuple[str, ...]
    product: str = ""

    def decide(self, q: Quantities) -> list[Finding]:
        if q[self.total] is None or q[self.total] == self._product(q):
            return []
        return [self.finding(q, (self.total, *self.factors))]

    def explain(self) -> str:
        return f"{self.total} = {' x '.join(self.factors)}"

    def repairs_for(self, q: Quantities) -> list[Settings]:
        result: list[Settings] = [{self.total: self._product(q)}]
        for factor in self.factors:
            others = self._product(q) // q[factor]
            if q[self.total] % others == 0:
                result.append({factor: q[self.total] // others})
        return result

    def _product(self, q: Quantities) -> int:
        return int(q[self.product]) if self.product else prod(q[factor] for factor in self.factors)


@dataclass(kw_only=True, eq=False, repr=False)
class Exclusive(Rule):
    """At most one of these features."""

    features: tuple[str, ...]

    def decide(self, q: Quantities) -> list[Finding]:
        on = [name for name in self.features if q[name]]
        if len(on) < 2:
            return []
        fields = tuple(name for feature in reversed(on) for name in q.features[feature].fields)
        return [self.finding(q, fields)]

    def explain(self) -> str:
        return f"At most one of {', '.join(self.features)}"

    def repairs_for(self, q: Quantities) -> list[Settings]:
        on = [name for name in self.features if q[name]]
        return [
            {key: value for other in on if other != kept for key, value in q.features[other].switch_off.items()}
            for kept in on
        ]

    @property
    def has_all_repairs(self) -> bool:
        """Only switching off all but one will do."""
        return True


@dataclass(kw_only=True, eq=False, repr=False)
class Overrides(Rule):
    """If both features are on, ``winner`` stays, ``loser`` is switched off, and that is reported."""

    winner: str
    loser: str
    severity: Severity = "warning"
    safe: bool = True

    adjusts: ClassVar[bool] = True

    def decide(self, q: Quantities) -> list[Finding]:
        if not (q[self.winner] and q[self.loser]):
            return []
        winner, loser = q.features[self.winner], q.features[self.loser]
        return [self.finding(q, (*loser.fields, *winner.fields), changes=loser.switch_off)]

    def explain(self) -> str:
        return f"{self.winner} wins over {self.loser}"

    def repairs_for(self, q: Quantities) -> list[Settings]:
        return [q.features[self.loser].switch_off, q.features[self.winner].switch_off]


@dataclass(kw_only=True, eq=False, repr=False)
class AtMost(Rule):
    """A field is lowered to a bound, and that is reported."""

    field: str
    bound: str
    severity: Severity = "warning"
    safe: bool = True

    adjusts: ClassVar[bool] = True

    def decide(self, q: Quantities) -> list[Finding]:
        if q[self.field] <= q[self.bound]:
            return []
        return [self.finding(q, (self.field,), changes={self.field: q[self.bound]})]

    def explain(self) -> str:
        return f"{self.field} <= {self.bound}"

    def repairs_for(self, q: Quantities) -> list[Settings]:
        return [{self.field: q[self.bound]}]


@dataclass(kw_only=True, eq=False, repr=False)
class Implies(Rule):
    """Where the rule applies, settings are switched to ``sets``, and that is reported."""

    fields: tuple[str, ...]
    sets: Settings
    severity: Severity = "warning"
    safe: bool = True

    adjusts: ClassVar[bool] = True

    def decide(self, q: Quantities) -> list[Finding]:
        if all(q[name] == value for name, value in self.sets.items()):
            return []
        return [self.finding(q, self.fields, changes=self.sets)]

    def explain(self) -> str:
        return f"{', '.join(f'{name} = {value}' for name, value in self.sets.items())}, where {self.when}"

    def repairs_for(self, q: Quantities) -> list[Settings]:
        return [self.sets]


@dataclass(kw_only=True, eq=False, repr=False)
class Divides(Rule):
    """A field divides each of some dimensions; ``dimensions`` empty: those that the model card says are split."""

    field: str
    dimensions: tuple[str, ...] = ()

    def decide(self, q: Quantities) -> list[Finding]:
        divisor = q[self.field]
        if divisor == 1:
            return []
        bad = {name: size for name, size in self._sizes(q).items() if size % divisor}
        if not bad:
            return []
        listed = ", ".join(f"{DIMS.get(name, name.replace('_', ' '))} {size}" for name, size in bad.items())
        return [self.finding(q, (self.field,), undivided=listed)]

    def explain(self) -> str:
        return (
            f"{self.field} divides {', '.join(self.dimensions) or 'the dimensions that the model card says are split'}"
        )

    def repairs_for(self, q: Quantities) -> list[Settings]:
        sizes = self._sizes(q).values()
        choices = [size for size in range(1, min(sizes) + 1) if not any(dimension % size for dimension in sizes)]
        choices.sort(key=lambda size: (abs(size - q[self.field]), -size))
        return [{self.field: size} for size in choices]

    def _sizes(self, q: Quantities) -> dict[str, int]:
        names = self.dimensions or q.card.tensor_parallel_splits
        return {name: q[name] for name in names if q[name] is not None}


@dataclass(kw_only=True, eq=False, repr=False)
class Requires(Rule):
    """Where the rule applies, ``needs`` must be true. ``repairs`` are the settings that make it so."""

    needs: str
    fields: tuple[str, ...]
    repairs: tuple[Settings, ...] = ()  # a value "= ..." is an expression

    @cached_property
    def _needs(self) -> Expression:
        return parse(self.needs)

    def decide(self, q: Quantities) -> list[Finding]:
        return [] if self._needs(q) else [self.finding(q, self.fields)]

    def explain(self) -> str:
        return f"{self.needs}, where {self.when}"

    def repairs_for(self, q: Quantities) -> list[Settings]:
        return [changes for changes in _evaluated(self.repairs, q) if not self.check(q.changed(**changes))]


@dataclass(kw_only=True, eq=False, repr=False)
class Supported(Rule):
    """Each feature that is on is one that the engine has for this model.

    ``verdict`` is the answer of the engine's card that breaks the rule; "conditional" means a supported feature whose
    condition does not hold.
    """

    verdict: Literal["unsupported", "unverified", "conditional"]

    def decide(self, q: Quantities) -> list[Finding]:
        card, engine = q.card, q.engine_card
        claim = engine.claim(card)
        return [
            self.finding(
                q,
                tuple(feature.fields),
                feature=feature.title,
                effect=engine.effect(feature.name, card),
                condition=claim.only.get(feature.name) if claim else None,
            )
            for feature in self._broken(q)
        ]

    def explain(self) -> str:
        return f"No feature is on that the engine's card calls {self.verdict}"

    def repairs_for(self, q: Quantities) -> list[Settings]:
        off: Settings = {}
        for feature in self._broken(q):
            off |= feature.switch_off
        return [off]

    @property
    def has_all_repairs(self) -> bool:
        """What an engine lacks, it lacks whatever else is set."""
        return self.verdict != "conditional"

    def _broken(self, q: Quantities) -> list[Feature]:
        if q.engine_card.claim(q.card) is None:
            return []  # of a model that its card does not speak of, nothing is denied
        if self.verdict != "conditional":
            names = _having(self.verdict, tuple(q.features), q.engine_card, q.card)
            return [q.features[name] for name in names if q[name]]
        claim = q.engine_card.claim(q.card)
        only = claim.only if claim else {}
        return [q.features[name] for name in only if name in q.features and q[name] and not parse(only[name])(q)]


@dataclass(frozen=True, kw_only=True, repr=False)
class Case:
    """One combination that an engine refuses: where ``when`` is true, with its own sentence and next step.

    ``guards`` are the places of the engine's source that refuse it; the case holds in the versions that have one of
    them (``places``: file and line, by engine id). ``bad`` is what to write after the engine's command to see it.
    ``pipelines`` and ``asks`` are read off the condition: it is true of these classes only (empty: of any), and only
    where one of these settings of the engine is said (empty: it need not be).
    """

    when: str
    says: str
    next: str
    fields: tuple[str, ...]
    guards: tuple[str, ...] = ()
    bad: str = ""
    places: Mapping[str, str] = field(default_factory=dict)
    pipelines: tuple[str, ...] = ()
    asks: tuple[str, ...] = ()

    def holds(self, q: Quantities) -> bool:
        """Whether the condition is true of a config; not where a setting is not known, or of another kind."""
        if self.places and q.engine_card.id not in self.places:
            return False
        try:
            if self.pipelines and q["pipeline_name"] not in self.pipelines:
                return False
            return bool(parse(self.when)(q))
        except TypeError:
            return False

    def source(self, engine: str) -> str:
        """The place that refuses it, and in which engine; empty where there is none."""
        place = self.places.get(engine)
        return f"{place} of {engine}" if place else ""


@dataclass(kw_only=True, eq=False, repr=False)
class Refuses(Rule):
    """What an engine's own source refuses, drops or computes wrongly, case by case, each with its guards.

    In the compiled catalog ``cases`` gives text: a list of each one's ``pipelines``, ``asks`` and the rest, which is
    text again, so that a check reads only those that may be true of its config.
    """

    cases: tuple[Case, ...] | Callable[[], str]
    message: str = "{says}"
    fix: str = "{next_step}"
    source: str = "the engine's own source, place by place"
    bad: str | tuple[str, ...] = ()
    good: str | tuple[str, ...] = ()

    @cached_property
    def stated(self) -> tuple[Case, ...]:
        """The cases, read where they are still text."""
        return self.cases if isinstance(self.cases, tuple) else tuple(_case(*case) for case in self._split)

    @cached_property
    def _split(self) -> list[tuple[tuple[str, ...], tuple[str, ...], str]]:
        if isinstance(self.cases, tuple):
            return []
        return [(tuple(pipelines), tuple(asks), text) for pipelines, asks, text in json.loads(self.cases())]

    @cached_property
    def _of_ours(self) -> list[tuple[tuple[str, ...], tuple[str, ...], str]]:
        """Those that ask for no setting of the engine."""
        return [case for case in self._split if not case[1]]

    def _of(self, q: Quantities) -> Iterable[Case]:
        """The cases that may be true of a config."""
        if isinstance(self.cases, tuple):
            return self.cases
        return (
            _case(pipelines, asks, text)
            for pipelines, asks, text in (self._split if len(q.settings) > len(FIELDS) else self._of_ours)
            if not (asks and q.settings.keys().isdisjoint(asks))
            and not (pipelines and q["pipeline_name"] not in pipelines)
        )

    def only(self, cases: Iterable[Case]) -> Refuses:
        """The rule with some of its cases."""
        return replace(self, cases=tuple(cases))

    def decide(self, q: Quantities) -> list[Finding]:
        engine = q.engine_card.id
        found = []
        for case in self._of(q):
            if case.holds(q):
                source = case.source(engine)
                says, next_step = case.says.format_map(q), case.next.format_map(q)
                finding = self.finding(q, case.fields, says=says, next_step=next_step)
                why = f"{self.why} Source: {source}." if source else finding.why
                found.append(replace(finding, why=why, source=source))
        return found

    def explain(self) -> str:
        return "None of: " + "; ".join(case.when for case in self.stated)

    def expressions(self) -> list[str]:
        return [self.when, *(case.when for case in self.stated)]

    def names(self) -> Iterator[tuple[str, str]]:
        from string import Formatter

        yield from super().names()
        for case in self.stated:
            yield from ((name, "fields") for name in case.fields)
            for text in (case.says, case.next):
                yield from ((name, "quantities") for _, name, _, _ in Formatter().parse(text) if name)

    def repairs_for(self, q: Quantities) -> list[Settings]:
        return []


@dataclass(kw_only=True, eq=False, repr=False)
class Advise(Rule):
    """Works, but something else works better."""

    fields: tuple[str, ...]
    severity: Severity = "advice"
    repairs: tuple[Settings, ...] = ()

    def decide(self, q: Quantities) -> list[Finding]:
        return [self.finding(q, self.fields)]

    def explain(self) -> str:
        return f"Advice where {self.when}"

    def repairs_for(self, q: Quantities) -> list[Settings]:
        return _evaluated(self.repairs, q)


@dataclass(kw_only=True, eq=False, repr=False)
class Reading(Rule):
    """A rule that reading the file decides, before there are settings to ask; here it is only explained."""

    def decide(self, q: Quantities) -> list[Finding]:
        return []

    def explain(self) -> str:
        return self.why

    def repairs_for(self, q: Quantities) -> list[Settings]:
        return []


KINDS: dict[str, type[Rule]] = {
    "refuses": Refuses,
    "product": Product,
    "exclusive": Exclusive,
    "overrides": Overrides,
    "at_most": AtMost,
    "implies": Implies,
    "divides": Divides,
    "requires": Requires,
    "supported": Supported,
    "advise": Advise,
    "reading": Reading,
}


@cache
def _case(pipelines: tuple[str, ...], asks: tuple[str, ...], text: str) -> Case:
    case = json.loads(text)
    lists = {key: tuple(case.get(key, ())) for key in ("fields", "guards")}
    return Case(**case | lists, pipelines=pipelines, asks=asks)


@cache
def _having(verdict: str, features: tuple[str, ...], engine: EngineCard, card: ModelCard) -> list[str]:
    """The features to which the engine's card gives this answer for a model."""
    return [feature for feature in features if engine.verdict(feature, card) == verdict]


def _evaluated(repairs: tuple[Settings, ...], q: Quantities) -> list[Settings]:
    def value(stated: Any) -> Any:
        return parse(stated[1:])(q) if isinstance(stated, str) and stated.startswith("=") else stated

    settings = ({name: value(stated) for name, stated in repair.items()} for repair in repairs)
    return [{name: new for name, new in changes.items() if new != q[name]} for changes in settings]
