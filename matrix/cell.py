"""One question to the resolver: these features on this model by this engine, do they go together?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any, Literal

from omni_config.cards import EngineCard, ModelCard
from omni_config.catalog.load import catalog
from omni_config.findings import Finding
from omni_config.resolving.resolver import Resolution, resolve_settings
from omni_config.resolving.search import nearest, reads_of
from omni_config.resolving.target import Target, target_of
from omni_config.rules.kinds import Reading, Requires
from omni_config.rules.quantities import one_of
from omni_config.rules.rule import Rule
from omni_config.schema.settings import FIELDS, Settings, tree_of, validate

Verdict = Literal["yes", "warned", "only", "adjusted", "no"]
#: Best first, with the words for people.
VERDICTS: dict[Verdict, str] = {
    "yes": "works",
    "warned": "runs, with a warning",
    "only": "only under a condition",
    "adjusted": "lowered or switched off, and that is reported",
    "no": "refused",
}
_RANK = {verdict: rank for rank, verdict in enumerate(VERDICTS)}
LARGEST = 8  # sizes of a degree that are asked about


@dataclass(frozen=True, slots=True)
class Cell:
    """An answer: the verdict, the codes of the rules that decide it, and what they say.

    ``settings`` are those that were asked about, on top of the defaults; of an "only", those that work. ``within`` is
    what is left to say of an "only" where its condition is met.
    """

    verdict: Verdict
    codes: tuple[str, ...] = ()
    words: str = ""
    settings: tuple[tuple[str, Any], ...] = ()
    within: Cell | None = None

    @property
    def rank(self) -> int:
        """0 for the best verdict."""
        return _RANK[self.verdict]

    @property
    def all_codes(self) -> tuple[str, ...]:
        """Codes of the condition, and of what is left to say where it is met."""
        return tuple(dict.fromkeys((*self.codes, *(self.within.all_codes if self.within else ()))))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "verdict": self.verdict,
            "codes": list(self.all_codes),
            "words": self.words,
            "settings": dict(self.settings),
        }


@cache
def asked_of(card: ModelCard, engine: EngineCard) -> Target:
    """A model on an engine, with the rules that can decide about a config there; the same object each time."""
    target = target_of(card, engine)
    return target.by(
        rule
        for rule in target.rules
        if rule.severity != "advice" and not isinstance(rule, Reading) and rule.speaks_of(engine)
    )


def ask(features: Iterable[str], target: Target) -> Cell:
    """What the resolver says of these features together, in the best way to set them."""
    names = tuple(sorted(features, key=list(catalog().features).index))
    best: Cell | None = None
    for wanted in _ways(names):
        cell = _cell(wanted, _resolve(wanted, names, target))
        if best is None or (cell.rank, len(cell.codes)) < (best.rank, len(best.codes)):
            best = cell
        if cell.verdict == "yes":
            break
    assert best is not None  # there is at least one way
    return best if best.rank < _RANK["only"] else _helped(names, best, target)


def ask_sizes(name: str, cell: Cell, target: Target) -> Cell:
    """The cell of one feature after asking for every size of its degree: "only" where some sizes do not share a yes."""
    feature = catalog().features[name]
    if not feature.sizes or cell.verdict not in ("yes", "warned"):
        return cell
    (field,) = feature.fields
    refused: dict[int, tuple[str, ...]] = {}
    for size in range(2, LARGEST + 1):
        findings = _resolve({field: size}, (name,), target).findings
        if codes := _codes(finding for finding in findings if finding.severity == "error"):
            refused[size] = codes
    if not refused.keys() & set(feature.sizes):
        return cell
    works = [size for size in range(2, LARGEST + 1) if size not in refused]
    deciding = tuple(dict.fromkeys(code for codes in refused.values() for code in codes))
    return Cell("only", deciding, f"{field} = {one_of(works)}" if works else "other settings", cell.settings, cell)


def _cell(wanted: Settings, resolution: Resolution) -> Cell:
    asked = tuple(wanted.items())
    errors = [finding for finding in resolution.findings if finding.severity == "error" and finding.code != _ASKED]
    changed = [finding for finding in resolution.findings if finding.changes]
    if errors:
        deciding = [*errors, *(f for f in changed if {*wanted} & {name for name, _ in f.changes})]
        return Cell("no", _codes(deciding), errors[0].message, asked)
    words = "; ".join(dict.fromkeys(f"{spoken(name, value)}" for f in changed for name, value in f.changes))
    if any(finding.code == _ASKED for finding in resolution.findings):
        return Cell("adjusted", _codes(changed), words, asked)
    warnings = [f for f in resolution.findings if f.severity == "warning" and not f.changes]
    if warnings:
        return Cell("warned", _codes((*warnings, *changed)), warnings[0].message, asked)
    return Cell("yes", _codes(changed), words, asked)


def _resolve(wanted: Settings, names: tuple[str, ...], target: Target) -> Resolution:
    """What becomes of the plain config with other settings, by the rules that can find anything there.

    A rule that reads none of these settings says of the plain config what it says of this one: nothing.
    """
    plain = _plain(target.card.id, target.engine.id)
    readers = _readers(target)
    rules = [target.rules[place] for place in sorted({place for name in wanted for place in readers[name]})]
    result = resolve_settings(plain | wanted, target.by((*rules, _all_on(names))))
    if any(finding.changes for finding in result.findings):  # by then, other settings are others too
        return resolve_settings(plain | wanted, target.by((*target.rules, _all_on(names))))
    return result


def _helped(names: tuple[str, ...], cell: Cell, target: Target) -> Cell:
    """The cell that other settings make of one that is refused or adjusted, where any do."""
    asked = dict(cell.settings)
    helps = [help_ for name in names for help_ in catalog().features[name].helped_by]
    for help_ in helps:
        helped = asked | help_
        within = _cell(helped, _resolve(helped, names, target))
        if within.rank < _RANK["only"]:
            return Cell("only", cell.codes, _with(help_), within.settings, within)
    switches = [name for name, value in asked.items() if value is True]  # of what is asked for, so they stay
    all_on = target.by((*target.rules, _all_on(names)))
    broken = [rule.code for rule in all_on.rules if rule.code in cell.codes and not rule.adjusts] or [_ASKED]
    plain = _plain(target.card.id, target.engine.id)
    for help_ in ({}, *helps):
        found = nearest(plain | asked | help_, all_on, fixed=[*switches, *help_], broken=None if help_ else broken)
        if found:
            works = asked | help_ | found[0]
            within = _cell(works, _resolve(works, names, target))
            words = " and ".join(filter(None, (_with(help_), _alternatives(found))))
            return Cell("only", cell.codes, words, within.settings, within)
    return cell


def _with(help_: Settings) -> str:
    return " and ".join(spoken(*item) for item in help_.items())


def _alternatives(found: list[Settings]) -> str:
    """``[{"ulysses_degree": 3}, {"ulysses_degree": 5}]`` as "ulysses_degree = 3 or 5"."""
    fewest = [changes for changes in found if len(changes) == len(found[0])]
    names = {name for changes in fewest for name in changes}
    if len(names) == 1 and all(type(value) is int for changes in fewest for value in changes.values()):
        (name,) = names
        return f"{name} = {one_of(sorted(changes[name] for changes in fewest))}"
    return ", or ".join(" and ".join(spoken(name, value) for name, value in changes.items()) for changes in fewest)


def spoken(name: str, value: Any) -> str:
    """A setting for people: ``vae_use_tiling on``, ``ulysses_degree = 3``."""
    if isinstance(value, bool):
        return f"{name} {'on' if value else 'off'}"
    return f"{name} given" if isinstance(value, list | tuple) else f"{name} = {value}"


def _codes(findings: Iterable[Finding]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(finding.code for finding in findings if finding.code != _ASKED))


_ASKED = "ASKED"


@cache
def _all_on(names: tuple[str, ...]) -> Rule:
    """The question as a rule of its own: it is broken where an adjustment has switched a feature off."""
    text: dict[str, Any] = dict.fromkeys(("message", "why", "fix", "source", "bad", "good"), "")
    return Requires(code=_ASKED, name="asked", needs=" and ".join(names), fields=(), **text)


@cache
def _readers(target: Target) -> dict[str, list[int]]:
    """By setting, the places among the target's rules of those that it decides about, from the model's plain config."""
    result: dict[str, list[int]] = {name: [] for name in FIELDS}
    plain, _ = target.by(()).applied(_plain(target.card.id, target.engine.id))
    for place, rule in enumerate(target.rules):
        q = target.quantities(plain)
        for name in FIELDS if rule.check(q) else reads_of(rule, q):
            result[name].append(place)
    return result


@cache
def _plain(model: str, engine: str) -> Settings:
    return validate({"version": 1, "model": model, "engine": engine})


def _ways(names: Iterable[str]) -> Iterator[Settings]:
    """Settings that switch the features on: those of each, beside whatever each is asked with."""
    on = [_on(name) for name in names]
    for beside in product(*(catalog().features[name].beside or ({},) for name in names)):
        ranks: Settings = {}
        for settings in (*beside, *on):
            ranks |= settings
        yield ranks


@cache
def _on(name: str) -> Settings:
    """``switch_on`` with the defaults of what is inside it (a LoRA adapter's scale), which no model has a say in."""
    wanted = catalog().features[name].switch_on
    settings = validate(tree_of(_plain(catalog().model_ids[0], catalog().engine_ids[0]) | wanted))
    return {field: settings[field] for field in FIELDS if field in wanted}
