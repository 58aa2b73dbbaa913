"""The checker's answers as tables over a finite domain, for a reader that knows no rule (the web page).

For each rule, model and engine: a decision tree that asks for one setting after the other, in the order in which the
rule itself reads them, and ends in what the rule finds. A tree is made by running the rule, never from its text. Equal
trees are kept once, whichever rules, models or engines they come from.

A config is looked up in two steps, as the resolver does it: the trees of the adjusting rules, on what was written, then
those of the others on the adjusted settings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

from omni_config.cards import EngineCard, Feature, ModelCard
from omni_config.catalog.load import catalog
from omni_config.findings import Finding
from omni_config.mesh import DEGREES
from omni_config.rules.kinds import Reading, Supported
from omni_config.rules.quantities import Quantities
from omni_config.rules.rule import Rule
from omni_config.schema.settings import FIELDS, Settings, tree_of, validate

SIZES = (1, 2, 4, 8)


def domain() -> dict[str, list[Any]]:
    """Every setting that the page offers, with its values; the first is the default.

    Degrees are powers of two up to 8; every other feature that is not rare is off or as ``switch_on`` has it.
    """
    result: dict[str, list[Any]] = {"gpus": [None, *SIZES]} | {
        name: list(SIZES) for name in (*DEGREES, "vae_patch_parallel_size")
    }
    plain = validate({"version": 1, "model": "tiny"})
    for feature in (item for item in catalog().features.values() if not item.rare):
        on = validate(tree_of(plain | feature.switch_on))
        for name in feature.fields:
            if name not in result:
                result[name] = [plain[name], on[name]]
    return result


@dataclass
class Tables:
    """``nodes``: a leaf is a list of numbers of findings, a branch is ``[setting, child of each value...]``.

    ``roots`` by engine and model: numbers of the trees that can find anything, adjusting ones first, apart.
    """

    settings: dict[str, list[Any]] = field(default_factory=domain)
    findings: list[Finding] = field(default_factory=list)
    nodes: list[list[Any]] = field(default_factory=list)
    roots: dict[str, dict[str, tuple[tuple[int, ...], tuple[int, ...]]]] = field(default_factory=dict)
    _finding_numbers: dict[Finding, int] = field(default_factory=dict)
    _node_numbers: dict[tuple[Any, ...], int] = field(default_factory=dict)
    _for_all_models: dict[tuple[str, int, str], int] = field(default_factory=dict)  # trees of rules that read no card

    def add(self, card: ModelCard, engine: EngineCard) -> None:
        """Run every rule on every part of the domain that it reads, for one model and engine."""
        adjusting: list[int] = []
        deciding: list[int] = []
        plain = validate({"version": 1, "model": card.id, "engine": engine.id})
        base = {name: value for name, value in plain.items() if name not in self.settings}
        defaults = card.defaults | {"dtype": card.dtype, "model": card.id}
        own = {name: defaults.get(name, plain[name]) for name in _set_by_models()}
        base = {name: value for name, value in base.items() if name not in own}
        for rule in catalog().rules:
            if isinstance(rule, Reading):
                continue
            for number, features in enumerate(_parts(rule)):
                key = (rule.code, number, engine.id)
                root = self._for_all_models.get(key)
                if root is None:
                    seen: set[str] = set()
                    root = self._tree(partial(_check, rule, base, own, card, engine, features, seen), {})
                    if not seen:
                        self._for_all_models[key] = root
                if self.nodes[root] != []:
                    (adjusting if rule.adjusts else deciding).append(root)
        self.roots.setdefault(engine.id, {})[card.id] = (tuple(adjusting), tuple(deciding))

    def _tree(self, run: Callable[[Settings], list[Finding]], known: Settings) -> int:
        try:
            found = run(known)
        except _Unchosen as asked:
            children = [self._tree(run, known | {asked.name: value}) for value in self.settings[asked.name]]
            if len(set(children)) == 1:
                return children[0]
            return self._node((asked.name, *children))
        return self._node(tuple(self._finding(finding) for finding in found))

    def _node(self, node: tuple[Any, ...]) -> int:
        if node not in self._node_numbers:
            self._node_numbers[node] = len(self.nodes)
            self.nodes.append(list(node))
        return self._node_numbers[node]

    def _finding(self, finding: Finding) -> int:
        if finding not in self._finding_numbers:
            self._finding_numbers[finding] = len(self.findings)
            self.findings.append(finding)
        return self._finding_numbers[finding]


def compile_tables() -> Tables:
    """The tables of every engine and model of the catalog."""
    tables = Tables()
    for engine in map(catalog().engine, catalog().matrix_engines):
        for card in map(catalog().model, catalog().charted_ids):
            assert engine is not None
            assert card is not None
            if engine.claim(card) is not None:
                tables.add(card, engine)
    return tables


class _Unchosen(Exception):
    """A rule has read a setting whose value is not chosen yet."""

    def __init__(self, name: str) -> None:
        self.name = name


class _Partial(Quantities):
    """Quantities of a config in which some settings are still open; ``seen`` takes note of what was the model's own."""

    def __init__(self, settings: Settings, own: Settings, seen: set[str], *rest: Any) -> None:
        super().__init__(settings, *rest)
        self.own, self.seen = own, seen

    def __getattribute__(self, name: str) -> Any:
        if name == "card":
            self.seen.add(name)
        return super().__getattribute__(name)

    def __missing__(self, name: str) -> Any:
        if name in self.own:
            self.seen.add(name)
            return self.own[name]
        if name in FIELDS:
            raise _Unchosen(name)
        return super().__missing__(name)


@cache
def _set_by_models() -> set[str]:
    """Settings that a model decides where a config does not say them."""
    cards = map(catalog().model, catalog().model_ids)
    return {"dtype", "model"}.union(*(card.defaults for card in cards if card))


def _parts(rule: Rule) -> list[dict[str, Feature]]:
    """The features in parts of which the rule can be asked one by one: each, where it looks at each by itself."""
    features = catalog().features
    return [{name: item} for name, item in features.items()] if isinstance(rule, Supported) else [features]


def _check(
    rule: Rule,
    base: Settings,
    own: Settings,
    card: ModelCard,
    engine: EngineCard,
    features: dict[str, Feature],
    seen: set[str],
    known: Settings,
) -> list[Finding]:
    return rule.check(_Partial(base | known, own, seen, card, engine, features))
