"""What runs of engines have shown, as JSON Lines: a file a model of an engine, a line a cell, read without torch.

An entry is about the versions, the adapter and the stand-ins that ran; where one of them has changed, it is stale.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache
from math import inf
from pathlib import Path
from statistics import mode
from typing import Any

from matrix.engines.environments import HERE, environment, environments
from matrix.engines.judge import DECIBELS, Judged, Measured, Verdict, bears_out, judged
from matrix.evidence import digest

FOLDER = HERE / "evidence"
#: What most cells of a file have in common, and its first line says for them.
COMMON = ("date", "versions", "code")


@dataclass(frozen=True, slots=True)
class Entry:
    """One cell that was run. ``verdict`` and ``codes`` are the rules', of the day; ``degrees`` are those above 1.

    ``engine`` is not written, as the file is of one.

    ``measured`` is None where the command has no words for what is asked, which is ``unsaid``.
    """

    engine: str
    cell: str
    verdict: Verdict
    date: str
    versions: dict[str, str]
    code: dict[str, str]
    command: str = ""
    codes: tuple[str, ...] = ()
    degrees: dict[str, int] = field(default_factory=dict)
    unsaid: tuple[str, ...] = ()
    measured: Measured | None = None

    @property
    def judged(self) -> Judged | None:
        """What the run shows, by the judge of today."""
        rounding = environment(self.engine).described["rounding"]
        return judged(self.measured, self.degrees, self.cell.split("+"), rounding) if self.measured else None

    @property
    def outcome(self) -> str:
        """The engine's, or ``no words``."""
        told = self.judged
        return told.outcome if told else "no words"

    @property
    def why(self) -> str:
        """Its error, or what was counted, in a line."""
        told = self.judged
        return told.why if told else f"its command has no words for {', '.join(self.unsaid)}"

    @property
    def agrees(self) -> bool:
        """Whether the run bears the rules out."""
        told = self.judged
        return bears_out(self.verdict, self.codes, told.outcome) if told else self.verdict == "refused"

    def stale(self) -> str:
        """What has changed since the run, as one phrase; empty where nothing has."""
        changed = [name for name, then in self.code.items() if digest(HERE.parents[1] / name) != then]
        pinned = _pinned(tuple(self.code))
        changed += [name for name, then in self.versions.items() if pinned.get(name, then) != then.partition("+")[0]]
        return f"stale: {', '.join(changed)} changed" if changed else ""

    def status(self) -> str:
        """``proven`` or ``refuted``, and whether that is stale."""
        stale = self.stale()
        word = "refuted" if not self.agrees else "claimed" if self.outcome == "not shown" else "proven"
        return word + (f" ({stale})" if stale else "")


@cache
def _pinned(code: tuple[str, ...]) -> dict[str, str]:
    """The packages of the environment whose code ran, with their versions."""
    ran = [one for one in environments().values() if f"matrix/engines/{one.family}" in code]
    packages = (package.partition("==") for one in ran for package in (*one.own, *one.shared))
    return {name: version for name, _, version in packages}


def code_of(family: str) -> dict[str, str]:
    """The digests of what runs: the adapter, the stand-ins, what they share, and the small models."""
    names = (family, "inside", "small")
    return {f"matrix/engines/{name}": digest(HERE / name) for name in names}


def file_of(engine: str, model: str) -> Path:
    """Where the evidence about a model of an engine is."""
    return FOLDER / engine.replace("==", "-") / f"{model.replace('/', '--')}.jsonl"


def everything() -> Iterator[tuple[str, str, dict[str, Entry]]]:
    """All evidence: the engine, the model, and the entries by cell."""
    for name in environments():
        for path in sorted((FOLDER / name.replace("==", "-")).glob("*.jsonl")):
            model = path.stem.replace("--", "/")
            yield name, model, read(name, model)


@cache
def read(engine: str, model: str) -> dict[str, Entry]:
    """Evidence about a model of an engine, by cell; empty where there is none."""
    path = file_of(engine, model)
    if not path.is_file():
        return {}
    common, *cells = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return {cell["cell"]: _entry(common | cell | {"engine": engine}) for cell in cells}


def _entry(told: dict[str, Any]) -> Entry:
    if run := told.get("measured"):
        told["measured"] = Measured(**run | {name: float(run[name]) for name in DECIBELS if name in run})
    return Entry(**told | {name: tuple(told.get(name, ())) for name in ("codes", "unsaid")})


def write(engine: str, model: str, found: Iterable[Entry]) -> None:
    """Write evidence about a model; that of other cells stays as it is."""
    known = read(engine, model) | {entry.cell: entry for entry in found}
    entries = {name: _told(entry) for name, entry in sorted(known.items())}
    common: dict[str, Any] = {name: mode_of([entry[name] for entry in entries.values()]) for name in COMMON}
    lines = [common, *({k: v for k, v in one.items() if k not in common or v != common[k]} for one in entries.values())]
    path = file_of(engine, model)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    read.cache_clear()


def _told(entry: Entry) -> dict[str, Any]:
    """As it is written: without what is empty, and infinite numbers in words."""
    told = _full(asdict(entry))
    del told["engine"]
    run = told.get("measured", {})
    run |= {name: str(run[name]) for name in DECIBELS if run.get(name) == inf}
    return told


def _full(value: dict[str, Any]) -> dict[str, Any]:
    parts = {name: _full(part) if isinstance(part, dict) else part for name, part in value.items()}
    return {name: part for name, part in parts.items() if part or (part == 0 and part is not False)}


def summary(engine: str, name: str) -> dict[str, Any] | None:
    """What is written about many runs of an engine, with its ``date``; None before them.

    ``whole``: ``runs``, ``seconds``, ``cpu_seconds`` and ``cores`` that all cells took. ``drawn``: ``count`` and
    ``seed`` of drawn configs, how many were ``told`` by a run, and of these, how many ``agree`` with the rules.
    """
    path = _summary(engine, name)
    found: dict[str, Any] | None = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    return found


def write_summary(engine: str, name: str, told: dict[str, Any]) -> None:
    """Write it down, as of today."""
    today = datetime.now(UTC).date().isoformat()
    _summary(engine, name).write_text(json.dumps(told | {"date": today}) + "\n", encoding="utf-8")


def _summary(engine: str, name: str) -> Path:
    return FOLDER / engine.replace("==", "-") / f"{name}.json"


def mode_of(values: list[Any]) -> Any:
    """The value that most have."""
    texts = [json.dumps(value, sort_keys=True) for value in values]
    return json.loads(mode(texts))
