"""Answers to the guards of the engines: the rule that stands for each, or the reason why none can.

They stand in ``engines/NAME/guards.yaml``, by file, function and hash, and as the ``guards`` of the cases of rules.
A star for a function or a hash answers all that have no answer of their own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from omni_config.catalog.load import catalog
from omni_config.engines.facts import FOLDER, facts_of, shipped
from omni_config.rules.kinds import Refuses

#: Why no rule can stand for a guard, and what that means.
REASONS = {
    "weights": "needs the checkpoint's own files",
    "request": "needs a request at run time",
    "machine": "needs the machine",
    "not_diffusion": "concerns no diffusion deployment",
    "unreachable": "cannot be reached from a deployment's flags, files or arguments",
    "no_effect": "what was asked for still happens as asked",
}
Stated = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Answer:
    """A reason with a sentence, or the code of a rule."""

    reason: str = ""
    because: str = ""
    rule: str = ""


class Answers:
    """The answers of one engine.

    ``stated`` is the content of its ``guards.yaml``, ``cases`` the code and the guards of each case of a rule,
    ``guards`` the ids of every version, ``codes`` those of the rules. ``faults`` says what is wrong with the answers.
    """

    def __init__(
        self,
        stated: Stated,
        cases: Iterable[tuple[str, Collection[str]]],
        guards: Collection[str],
        codes: Collection[str],
    ) -> None:
        self._codes = codes
        self.faults: list[str] = []
        self._by_id: dict[str, Answer] = {}
        given: dict[str, list[Answer]] = defaultdict(list)
        stars: dict[str, Answer] = {}
        for code, ids in cases:
            for id_ in ids:
                given[id_].append(Answer(rule=code))
        for id_, answer in self._read(stated):
            if id_.endswith("*"):
                stars[id_] = answer
            else:
                given[id_].append(answer)
        for id_, found in given.items():
            if id_ not in guards:
                self.faults.append(f"{id_}: no shipped version has it")
            if len(found) > 1:
                self.faults.append(f"{id_}: answered {len(found)} times")
            self._by_id[id_] = found[0]
        used = set()
        for id_ in sorted(set(guards) - given.keys()):
            star = next((name for name in _stars_of(id_) if name in stars), None)
            if star is None:
                self.faults.append(f"{id_}: not answered")
            else:
                self._by_id[id_] = stars[star]
                used.add(star)
        self.faults += [f"{name}: covers no guard that has no answer of its own" for name in stars if name not in used]

    def of(self, guard: str) -> Answer | None:
        """The answer to a guard, or None."""
        return self._by_id.get(guard)

    def _read(self, stated: Stated) -> Iterator[tuple[str, Answer]]:
        for path, functions in stated.items():
            for function, hashes in functions.items():
                entries = {"": hashes} if function == "*" else hashes
                for hash_, entry in entries.items():
                    id_ = f"{path}::*" if function == "*" else f"{path}::{function}#{hash_}"
                    if answer := self._answer(id_, entry):
                        yield id_, answer

    def _answer(self, id_: str, entry: object) -> Answer | None:
        if not isinstance(entry, Mapping) or not entry.keys() <= {"reason", "because", "rule"}:
            self.faults.append(f"{id_}: expected a reason, or a rule")
        elif ("rule" in entry) == ("reason" in entry):
            self.faults.append(f"{id_}: expected a reason or a rule, one of them")
        elif "reason" in entry and entry["reason"] not in REASONS:
            self.faults.append(f"{id_}: no reason '{entry['reason']}'; known: {', '.join(REASONS)}")
        elif "rule" in entry and entry["rule"] not in self._codes:
            self.faults.append(f"{id_}: no rule {entry['rule']}")
        else:
            return Answer(**entry)
        return None


def _stars_of(guard: str) -> tuple[str, str]:
    """The names of the stars that may answer a guard: that of its function comes before that of its file."""
    return f"{guard.rpartition('#')[0]}#*", f"{guard.partition('::')[0]}::*"


def read_answers(path: Path) -> Stated:
    """The content of a ``guards.yaml``; nothing where there is none. All is text: a hash may look like a number."""
    if not path.is_file():
        return {}
    import yaml

    content: Stated = yaml.load(path.read_bytes(), Loader=yaml.BaseLoader)
    return content or {}


@cache
def answers_of(family: str) -> Answers:
    """The answers to the guards of every shipped version of an engine."""
    known = [facts for engine in shipped(family) if (facts := facts_of(engine))]
    guards = {guard for facts in known for guard in facts.guards}
    packages = {guard.partition("/")[0] for guard in guards}
    cases = [
        (code, own) for code, ids in _cases() if (own := [id_ for id_ in ids if id_.partition("/")[0] in packages])
    ]
    path = FOLDER / family.replace("-", "_") / "guards.yaml"
    return Answers(read_answers(path), cases, guards, catalog().by_code.keys())


def _cases() -> list[tuple[str, tuple[str, ...]]]:
    """The code and the guards of every case of a rule."""
    return [(rule.code, case.guards) for rule in catalog().rules if isinstance(rule, Refuses) for case in rule.stated]
