"""Search over configs with the same rules: valid ones, the nearest valid one, and the smallest conflicting set.

No rule is restated here. Candidates come from the rules' own repairs and from the small domains of the settings that a
broken rule names, so that every valid config differs from an invalid one in at least one of the candidates tried.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cache
from itertools import product
from math import log2, prod
from typing import Any

from omni_config.mesh import DEGREES, FURTHER
from omni_config.resolving.target import Target
from omni_config.rules.kinds import Product
from omni_config.rules.quantities import Quantities
from omni_config.rules.rule import Rule
from omni_config.schema.settings import DEFAULTS, FIELDS, Settings

MOST_STATES = 1000
_ONLY_ELSEWHERE = frozenset(axis.setting for axis in FURTHER)


def nearest(
    settings: Settings,
    target: Target,
    *,
    fixed: Collection[str] = (),
    most: int = 3,
    broken: Sequence[str] | None = None,
) -> list[Settings]:
    """The smallest changes that leave no error: fewest settings first, then the smallest steps; at most ``most``.

    ``fixed`` settings are not changed. ``broken`` are codes of rules that are known to be broken, where that was asked
    before. Empty where nothing works, or nothing among the first ``MOST_STATES`` candidates.
    """
    return _Search(settings, target, fixed).run(most, broken)[0]


class _Search:
    """A search from one config: best first, by the fewest changes that a state has made and still needs."""

    def __init__(self, settings: Settings, target: Target, fixed: Collection[str]) -> None:
        self.settings, self.target, self.fixed = settings, target, {*fixed}
        self.adjusting = [rule for rule in target.rules if rule.adjusts]
        self.refusing = {rule.code: rule for rule in target.rules if rule.severity == "error" and not rule.adjusts}

    def run(self, most: int, known: Sequence[str] | None = None) -> tuple[list[Settings], bool]:
        """What ``nearest`` returns, and whether every candidate was tried: only then does nothing mean impossible."""
        found: list[Settings] = []
        heap: list[tuple[int, float, int, Settings, Sequence[str] | None]] = [(0, 0.0, 0, {}, known)]
        seen, pushed = {""}, 0
        for _ in range(MOST_STATES):
            if not heap or (found and heap[0][0] > min(map(len, found)) + (len(found) < most)):
                break
            least, distance, number, changes, broken = heapq.heappop(heap)
            if any(done.items() <= changes.items() for done in found):
                continue
            candidate = self.settings | changes
            barred = self.fixed | (changes.keys() - {"gpus"})  # a total may follow its factors again
            if broken is None:
                broken = self._broken(candidate, self.refusing.values())
                if not broken:
                    found.append(changes)
                    if most == 1:
                        break
                    continue
                total = len(changes) + self._fewest_left(candidate, broken, barred)
                if total > least + 1:
                    heapq.heappush(heap, (total - 1, distance, number, changes, broken))
                    continue
            # Every rule must be satisfied in the end, so it is enough to branch on the one with the least choice.
            for step in min((self._steps(candidate, self.refusing[code], barred) for code in broken), key=len):
                grown = {name: value for name, value in (changes | step).items() if self.settings[name] != value}
                key = repr(sorted(grown.items()))
                if key not in seen:
                    seen.add(key)
                    pushed += 1
                    heapq.heappush(heap, (len(grown), _distance(self.settings, grown), pushed, grown, None))
        # A total that followed its factors back makes a state smaller, so the first found is not always the smallest.
        found.sort(key=lambda changes: (len(changes), _distance(self.settings, changes)))
        return found[:most], not heap

    def _broken(self, candidate: Settings, some: Iterable[Rule]) -> list[str]:
        found = self.target.by((*self.adjusting, *some)).broken(candidate)
        return list(dict.fromkeys(finding.code for finding in found))

    def _quantities(self, candidate: Settings) -> Quantities:
        return self.target.quantities(self.target.with_defaults(candidate))

    def _steps(self, candidate: Settings, rule: Rule, barred: set[str]) -> list[Settings]:
        """Changes that satisfy a rule (of a product, where two factors may have to change, all that may lead to it)."""
        q = self._quantities(candidate)
        tried = [
            changed
            for step in _candidates(rule, q)
            if (changed := {name: value for name, value in step.items() if candidate[name] != value})
            and not changed.keys() & barred
        ]
        if isinstance(rule, Product):
            held = barred & {*rule.factors}
            return [
                step
                for step in tried
                if rule.total in step or q[rule.total] % prod((candidate | step)[name] for name in held | {*step}) == 0
            ]
        return [changed for changed in tried if not self._broken(candidate | changed, [rule])]

    def _fewest_left(self, candidate: Settings, broken: list[str], barred: set[str]) -> int:
        """At least so many settings must still change: broken rules that read nothing in common need one each."""
        if len(broken) == 1:
            return 1
        q = self._quantities(candidate)
        adjusted = {name: rule for rule in self.adjusting for finding in rule.check(q) for name, _ in finding.changes}
        count, used = 0, set[str]()
        for code in broken:
            names = reads_of(self.refusing[code], q)
            names = names.union(*(reads_of(adjusted[name], q) for name in names & adjusted.keys())) - barred
            if not names & used:
                count, used = count + 1, used | names
        return count


def conflict(settings: Settings, target: Target, written: Iterable[str]) -> tuple[str, ...]:
    """The smallest set of the settings that were written which cannot hold together, whatever all others are.

    Empty where what was written can be kept by adding or changing something that was not.
    """
    core = [name for name in written if name not in ("version", "model", "engine")]

    def impossible(kept: list[str]) -> bool:
        found, exhausted = _Search(settings, target, kept).run(1)
        return exhausted and not found

    if not impossible(core):
        return ()
    for name in list(core):
        without = [other for other in core if other != name]
        if impossible(without):
            core = without
    return tuple(core)


def valid(
    settings: Settings, target: Target, gpus: int, switches: dict[str, tuple[Any, ...]] | None = None
) -> Iterator[Settings]:
    """Every valid config on ``gpus`` GPUs: all degrees whose product is that, and all values of ``switches``."""
    target = target.by(deciding(target))
    names, values = zip(*(switches or {}).items(), strict=True) if switches else ((), ())
    for degrees in _factorisations(gpus, len(DEGREES)):
        shape = settings | {"gpus": gpus} | dict(zip(DEGREES, degrees, strict=True))
        for choice in product(*values):
            candidate = shape | dict(zip(names, choice, strict=True))
            if not target.broken(candidate):
                yield candidate


def deciding(target: Target) -> list[Rule]:
    """The rules that decide whether a config is valid for the engine; the others only warn or advise."""
    return [
        rule for rule in target.rules if (rule.severity == "error" or rule.adjusts) and rule.speaks_of(target.engine)
    ]


def open_rules(settings: Settings, target: Target, names: Collection[str]) -> list[Rule]:
    """The rules that decide whether a config is valid, whatever settings ``names`` are changed to.

    A rule that holds and has read nothing which they, or an adjusting rule, may change will read the same and hold.
    """
    rules = deciding(target)
    q = target.quantities(settings)
    spoken_of = {pair for rule in rules if rule.adjusts for pair in rule.names()}
    varying = {*names, *(name for name, kind in spoken_of if kind == "fields")}
    varying.update(field for name, kind in spoken_of if kind == "features" for field in target.features[name].fields)
    return [rule for rule in rules if rule.adjusts or rule.check(q) or reads_of(rule, q) & varying]


def _factorisations(total: int, parts: int) -> Iterator[tuple[int, ...]]:
    if parts == 1:
        yield (total,)
        return
    for factor in _divisors(total):
        for rest in _factorisations(total // factor, parts - 1):
            yield (factor, *rest)


@cache
def _divisors(total: int) -> list[int]:
    return [size for size in range(1, total + 1) if total % size == 0]


def reads_of(rule: Rule, q: Quantities) -> set[str]:
    """The settings that decide, directly or through derived quantities, whether a rule holds here."""
    reads = _Reads(q)
    rule.check(reads)
    return {*reads.names}


class _Reads(Quantities):
    """Quantities that remember which settings were asked for, directly or through derived ones."""

    def __init__(self, q: Quantities) -> None:
        super().__init__(q.settings, q.card, q.engine_card, q.features)
        self.names: dict[str, None] = {}

    def __getitem__(self, name: str) -> Any:
        if name in FIELDS:
            self.names[name] = None
        return super().__getitem__(name)


def _candidates(rule: Rule, q: Quantities) -> Iterator[Settings]:
    """Ways to satisfy a rule: its own repairs, and other values of every setting that it reads, if they may help."""
    yield from rule.repairs_for(q)
    if rule.has_all_repairs:
        return
    reads = _Reads(q)
    rule.check(reads)
    for name in reads.names:
        value = q[name]
        if isinstance(value, bool):
            yield {name: not value}
        elif name in DEGREES or name == "vae_patch_parallel_size":
            for size in sorted({*_divisors(min(q["gpu_count"], 1024)), 1, 2, 4, 8} - {value}):
                yield {name: size}
        elif name in _ONLY_ELSEWHERE and value != DEFAULTS[name]:
            yield {name: DEFAULTS[name]}


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
