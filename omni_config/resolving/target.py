"""Who is asked about settings: a model, an engine, and the rules that count."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from omni_config.cards import EngineCard, Feature, ModelCard
from omni_config.catalog.load import catalog
from omni_config.findings import Finding
from omni_config.rules.quantities import Quantities
from omni_config.rules.rule import Rule, holding
from omni_config.schema.settings import Settings


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class Target:
    """A model on an engine, judged by ``rules``: the catalog's, and an organisation's own."""

    card: ModelCard
    engine: EngineCard
    rules: tuple[Rule, ...]
    features: Mapping[str, Feature]

    def by(self, rules: Iterable[Rule]) -> Target:
        """The same model and engine, judged by other rules."""
        return replace(self, rules=tuple(rules))

    def with_defaults(self, settings: Settings) -> Settings:
        """The settings, with the model's own values for those that are left out."""
        defaults = self.card.defaults | {"dtype": self.card.dtype}
        return settings | {name: value for name, value in defaults.items() if settings[name] is None}

    def quantities(self, settings: Mapping[str, object]) -> Quantities:
        """All that rules may ask about these settings, taken as they are: no default, no adjustment."""
        return Quantities(settings, self.card, self.engine, self.features)

    def applied(self, settings: Settings) -> tuple[Settings, list[Finding]]:
        """The settings with defaults and adjustments in them, and what all rules find."""
        settings = self.with_defaults(settings)
        adjusting = [rule for rule in self.rules if rule.adjusts]
        findings: list[Finding] = []
        q = self.quantities(settings)
        # Each adjustment switches something off or lowers it, so there is an end, and it does not depend on the order:
        # no adjusting rule reads what another one lowers, which a test shuffles.
        while found := [finding for rule in adjusting for finding in rule.check(q)]:
            findings += found
            settings = settings | {name: value for finding in found for name, value in finding.changes}
            q = self.quantities(settings)
        for rule in holding(self.rules, q):
            if not rule.adjusts:
                findings += rule.decide(q)
        if settings["gpus"] is None:
            settings = settings | {"gpus": q["world_size"]}
        return settings, findings

    def broken(self, settings: Settings) -> tuple[Finding, ...]:
        """The errors of these settings."""
        return tuple(finding for finding in self.applied(settings)[1] if finding.severity == "error")


def target_of(card: ModelCard, engine: EngineCard, policies: Iterable[Rule] = ()) -> Target:
    """A model on an engine, judged by all rules of the catalog and by ``policies``."""
    known = catalog()
    return Target(card, engine, (*known.rules_for(engine), *policies), known.features)
