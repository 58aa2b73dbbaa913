"""What every rule states and can do: decide (findings), explain (a sentence) and repair (settings that satisfy it).

The rules themselves are data (YAML beside this file and in the folders of engines); ``kinds.py`` has their kinds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from typing import Any, ClassVar

from omni_config.cards import EngineCard
from omni_config.findings import Finding, Severity
from omni_config.rules.expressions import Expression, parse, values
from omni_config.rules.quantities import Quantities
from omni_config.schema.settings import Settings

# Attributes of rules that hold names, and what they are names of.
_NAMED = {
    "total": "fields",
    "factors": "fields",
    "field": "fields",
    "fields": "fields",
    "bound": "quantities",
    "dimensions": "quantities",
    "features": "features",
    "winner": "features",
    "loser": "features",
}
#: Rules from which on asking all at once pays.
MANY = 40
_ONLY_IN_FINDINGS = {"feature", "effect", "condition", "undivided", "says", "next_step"}


@dataclass(kw_only=True, eq=False, repr=False)
class Rule(ABC):
    """What every rule states. ``when`` limits it to some configs and ``engines`` to some engines (empty: all).

    An engine stands there as for pip: ``vllm-omni``, ``vllm-omni>=0.30``; ``engine_ids`` are the cards that are meant.
    ``safe``: repairing it leaves what runs as it is, so it may be done unasked.
    ``message`` and ``fix`` are format strings over quantities; ``bad`` and ``good`` are example documents, one or
    several, which tests run. ``since`` says with which version of an engine its behaviour changed, ``added`` with which
    version of omni-config the rule came.
    """

    code: str
    name: str
    message: str
    why: str
    fix: str
    source: str
    bad: str | tuple[str, ...]
    good: str | tuple[str, ...]
    severity: Severity = "error"
    when: str = "True"
    engines: tuple[str, ...] = ()
    engine_ids: tuple[str, ...] = ()
    safe: bool = False
    since: str = ""
    added: str = "0.1.0"

    adjusts: ClassVar[bool] = False

    @cached_property
    def _when(self) -> Expression:
        return parse(self.when)

    def speaks_of(self, engine: EngineCard) -> bool:
        """Whether the rule is one for this engine."""
        return not self.engine_ids or engine.id in self.engine_ids

    def holds_for(self, q: Quantities) -> bool:
        """Whether the rule speaks about this config at all."""
        if self.engine_ids and q.engine_card.id not in self.engine_ids:
            return False
        try:
            return self.when == "True" or bool(self._when(q))
        except TypeError:  # a setting of the engine that only a run knows
            return False

    def check(self, q: Quantities) -> list[Finding]:
        """Findings of this rule about a config; empty where it is kept or does not apply."""
        return self.decide(q) if self.holds_for(q) else []

    @abstractmethod
    def decide(self, q: Quantities) -> list[Finding]:
        """Findings, given that the rule applies."""

    @abstractmethod
    def explain(self) -> str:
        """The rule as one sentence."""

    @abstractmethod
    def repairs_for(self, q: Quantities) -> list[Settings]:
        """Changes of settings, smallest first, each of which would satisfy this rule."""

    @property
    def has_all_repairs(self) -> bool:
        """Whether ``repairs_for`` leaves nothing out, so that a search need not try another change."""
        return False

    def expressions(self) -> list[str]:
        """Every expression in the rule."""
        repairs = getattr(self, "repairs", ())
        stated = [v[1:] for repair in repairs for v in repair.values() if isinstance(v, str) and v.startswith("=")]
        return [self.when, *([needs] if (needs := getattr(self, "needs", None)) else []), *stated]

    def names(self) -> Iterator[tuple[str, str]]:
        """Every name that the rule speaks of, each with what it must be one of: fields, features or quantities."""
        from string import Formatter  # a check goes without

        for entry in fields(self):
            if entry.name in _NAMED:
                value = getattr(self, entry.name)
                yield from ((name, _NAMED[entry.name]) for name in ([value] if isinstance(value, str) else value))
        for text in self.expressions():
            yield from ((name, "quantities") for name in parse(text).names)
        for text in (self.message, self.fix):
            words = (name for _, name, _, _ in Formatter().parse(text) if name)
            yield from ((name, "quantities") for name in words if name not in _ONLY_IN_FINDINGS)
        for changes in (*getattr(self, "repairs", ()), getattr(self, "sets", {})):
            yield from ((name, "fields") for name in changes)

    def finding(
        self, q: Mapping[str, Any], fields: tuple[str, ...], changes: Settings | None = None, **extra: Any
    ) -> Finding:
        """A finding of this rule, in the numbers of the config."""
        words = _Words(q, extra)
        return Finding(
            code=self.code,
            name=self.name,
            severity=self.severity,
            message=self.message.format_map(words),
            why=self.why,
            next_step=self.fix.format_map(words),
            fields=fields,
            changes=tuple((changes or {}).items()),
        )


def holding(rules: tuple[Rule, ...], q: Quantities) -> Iterable[Rule]:
    """Those of the rules that speak about a config at all; many are asked at once, which is faster."""
    if len(rules) >= MANY:
        asked, texts = _asked(rules, q.engine_card.id)
        try:
            return [rule for rule, holds in zip(asked, values(texts, q), strict=True) if holds]
        except TypeError:  # of one of them, a setting that only a run knows
            pass
    return (rule for rule in rules if rule.holds_for(q))


@lru_cache(maxsize=64)
def _asked(rules: tuple[Rule, ...], engine: str) -> tuple[tuple[Rule, ...], tuple[str, ...]]:
    asked = tuple(rule for rule in rules if not rule.engine_ids or engine in rule.engine_ids)
    return asked, tuple(rule.when.strip() for rule in asked)


def examples(stated: str | tuple[str, ...]) -> tuple[str, ...]:
    """The example documents of a rule, where it states one or several."""
    return (stated,) if isinstance(stated, str) else stated


class _Words(dict[str, Any]):
    """Quantities for a message; ``extra`` are the names that only one finding knows."""

    def __init__(self, q: Mapping[str, Any], extra: Settings) -> None:
        super().__init__(extra)
        self.q = q

    def __missing__(self, name: str) -> Any:
        return self.q[name]
