"""Search over configs with the same rules: valid ones, the nearest valid one, and the smallest conflicting set.

No rule is restated here. Candidates come from the rules' own mends and from the small domains of the settings that a
broken rule names, so that every valid config differs from an invalid one in at least one of the candidates tried.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Iterator
from itertools import product
from math import log2
from typing import Any

from omni_config.cards import EngineCard, ModelCard
from omni_config.catalog import catalog
from omni_config.findings import Finding
from omni_config.quantities import Quantities
from omni_config.resolve import resolve_settings
from omni_config.rules import Rule, Settings

DEGREES = ("cfg_parallel_size", "ring_degree", "ulysses_degree", "tensor_parallel_size")
MOST_CHANGES = 4
MOST_STATES = 3000


def errors(settings: Settings, card: ModelCard, engine: EngineCard, rules: Iterable[Rule]) -> tuple[Finding, ...]:
    """Errors of a config."""
    return tuple(f for f in resolve_settings(settings, card, engine, rules).findings if f.severity == "error")


def nearest(
    settings: Settings,
    card: ModelCard,
    engine: EngineCard,
    *,
    rules: Iterable[Rule] | None = None,
    fixed: Collection[str] = (),
    most: int = 3,
) -> list[Settings]:
    """The smallest changes that leave no error: fewest settings first, then the smallest steps; at most ``most``.

    ``fixed`` settings are not changed. Empty where nothing within ``MOST_CHANGES`` changes works.
    """
    deciding = [rule for rule in rules or catalog().rules if rule.severity == "error" or rule.adjusts]
    by_code = {rule.code: rule for rule in deciding}
    found: list[Settings] = []
    heap: list[tuple[int, float, int, Settings]] = [(0, 0.0, 0, {})]
    seen, pushed = {""}, 0
    for _ in range(MOST_STATES):
        if not heap:
            break
        count, _, _, changes = heapq.heappop(heap)
        if found and count > len(found[0]) + 1:
            break
        if any(done.items() <= changes.items() for done in found):
            continue
        candidate = settings | changes
        broken = errors(candidate, card, engine, deciding)
        if not broken:
            found.append(changes)
            if len(found) == most:
                break
            continue
        q = Quantities(_with_defaults(candidate, card), card, engine, catalog().features)
        for step in _steps(broken[0], by_code[broken[0].code], q):
            if step.keys() & fixed or step.keys() & changes.keys():
                continue
            grown = changes | {name: value for name, value in step.items() if candidate[name] != value}
            key = repr(sorted(grown.items()))
            if len(grown) <= MOST_CHANGES and key not in seen:
                seen.add(key)
                pushed += 1
                heapq.heappush(heap, (len(grown), _distance(settings, grown), pushed, grown))
    return found


def conflict(
    settings: Settings, card: ModelCard, engine: EngineCard, written: Iterable[str], rules: Iterable[Rule] | None = None
) -> tuple[str, ...]:
    """The smallest set of the settings that were written which cannot hold together, whatever all others are.

    Empty where what was written can be kept by adding or changing something that was not.
    """
    core = [name for name in written if name not in ("version", "model", "engine")]

    def impossible(kept: list[str]) -> bool:
        return not nearest(settings, card, engine, rules=rules, fixed=frozenset(kept), most=1)

    if not impossible(core):
        return ()
    for name in list(core):
        without = [other for other in core if other != name]
        if impossible(without):
            core = without
    return tuple(core)


def valid(
    settings: Settings,
    card: ModelCard,
    engine: EngineCard,
    gpus: int,
    switches: dict[str, tuple[Any, ...]] | None = None,
) -> Iterator[Settings]:
    """Every valid config on ``gpus`` GPUs: all degrees whose product is that, and all values of ``switches``."""
    rules = [rule for rule in catalog().rules if rule.severity == "error" or rule.adjusts]
    names, values = zip(*(switches or {}).items(), strict=True) if switches else ((), ())
    for degrees in _factorisations(gpus, len(DEGREES)):
        shape = settings | {"gpus": gpus} | dict(zip(DEGREES, degrees, strict=True))
        for choice in product(*values):
            candidate = shape | dict(zip(names, choice, strict=True))
            if not errors(candidate, card, engine, rules):
                yield candidate


def _factorisations(total: int, parts: int) -> Iterator[tuple[int, ...]]:
    if parts == 1:
        yield (total,)
        return
    for factor in _divisors(total):
        for rest in _factorisations(total // factor, parts - 1):
            yield (factor, *rest)


def _divisors(total: int) -> list[int]:
    return [size for size in range(1, total + 1) if total % size == 0]


def _with_defaults(settings: Settings, card: ModelCard) -> Settings:
    return settings | {name: value for name, value in card.defaults.items() if settings[name] is None}


def _steps(finding: Finding, rule: Rule, q: Quantities) -> Iterator[Settings]:
    """Ways to change what a finding is about: the rule's own mends, and other values of each of its settings."""
    yield from rule.mend(q)
    for name in finding.fields:
        value = q[name]
        if isinstance(value, bool):
            yield {name: not value}
        elif name in DEGREES or name == "vae_patch_parallel_size":
            for size in {*_divisors(min(q["gpu_count"], 1024)), 1, 2, 4, 8} - {value}:
                yield {name: size}
        elif name == "gpus" and value is not None:
            yield {name: q["world_size"]}


def _distance(settings: Settings, changes: Settings) -> float:
    """How far a change goes: doublings of a number, else 1; hardware and new features cost more."""
    total = 0.0
    for name, value in changes.items():
        old = settings[name]
        if isinstance(value, int) and isinstance(old, int) and not isinstance(value, bool) and old > 0 and value > 0:
            total += abs(log2(value / old)) + (0.5 if old == 1 else 0) + (0.6 if name == "gpus" else 0)
        else:
            total += 2.0 if value is True else 1.0
    return total
