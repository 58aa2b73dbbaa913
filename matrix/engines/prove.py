"""Runs the cells of an engine's matrix on small models, and holds the rules against what the engine does."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage
from tempfile import TemporaryDirectory
from time import monotonic

from matrix.cell import ask, asked_of
from matrix.engines.environments import Environment, environment
from matrix.engines.evidence import Entry, code_of, write, write_summary
from matrix.engines.judge import DEGREES, Judged, Measured, bears_out, judged
from matrix.engines.server import Case, Ran, Server, started
from matrix.engines.small import Small, small
from matrix.engines.trial import LONGEST, Trial, trial
from matrix.evidence import key
from omni_config.cards import EngineCard
from omni_config.catalog.load import catalog

TIMEOUT = 300.0  # of the slowest: tiles of LTX-2, on a busy machine
KEPT = 20  # cells after which they are written down, so that what has run is kept where the rest is interrupted
PARALLEL = ("ulysses", "ring", "cfg_parallel", "tensor_parallel", "hsdp", "vae_patch_parallel")

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Shown:
    """A trial, and what its run showed."""

    trial: Trial
    measured: Measured
    judged: Judged
    seconds: float

    @property
    def agrees(self) -> bool:
        """Whether the run bears the rules out."""
        return bears_out(self.trial.verdict, self.trial.codes, self.judged.outcome)


def card_of(environment: Environment) -> EngineCard:
    """What the catalog says of the engine."""
    card = catalog().engine(environment.engine)
    assert card is not None
    return card


def prove_cells(
    environment: Environment,
    models: Collection[str] = (),
    features: Collection[str] = (),
    on_progress: Progress | None = None,
) -> dict[str, dict[str, Entry]]:
    """Prove single features, pairs and parallel triples on small models; by model and cell.

    Raises:
        NoEnvironment: the engine is not installed, or does not start.
        ValueError: a model has no small one.
    """
    began, used = monotonic(), _cpu()
    runs = 0

    def done(so_far: int, all_: int) -> None:
        nonlocal runs
        runs = all_
        if on_progress is not None:
            on_progress(so_far, all_)

    with TemporaryDirectory(prefix="omni-small-") as home:
        smalls = [small(model, Path(home)) for model in models or environment.described["models"]]
        engine = card_of(environment)
        trials: dict[str, Trial] = {}
        places: dict[str, tuple[str, str]] = {}
        for one in smalls:
            for names in cells_of(environment.described["beyond"]):
                if {*features} <= {*names} and (made := trial_of_cell(one, engine, names)) is not None:
                    name = f"{one.model} {key(names)}"
                    trials[name], places[name] = made, (one.model, key(names))
        found: dict[str, dict[str, Entry]] = {one.model: {} for one in smalls}
        with started(environment, smalls) as server:
            for name, shown in run_trials(server, trials, done):
                model, cell = places[name]
                found[model][cell] = entry_of(shown, cell, server)
                if len(found[model]) % KEPT == 0:
                    write(environment.engine, model, found[model].values())
            for name, made in trials.items():
                model, cell = places[name]
                if made.unsaid:
                    found[model][cell] = _entry(made, cell, server)
        for model, entries in found.items():
            write(environment.engine, model, entries.values())
    if not (models or features):
        taken = {"runs": runs, "seconds": round(monotonic() - began), "cpu_seconds": round(_cpu() - used)}
        write_summary(environment.engine, "whole", taken | {"cores": os.cpu_count()})
    return found


def _cpu() -> float:
    """Seconds of processors that this process has used, and those that it has started and waited for."""
    return sum(sum(getrusage(who)[:2]) for who in (RUSAGE_SELF, RUSAGE_CHILDREN))


def cells_of(without: Collection[str]) -> Iterator[tuple[str, ...]]:
    """Single features, pairs, and triples of parallel ones."""
    names = [name for name in catalog().features if name not in without]
    for size in (1, 2):
        yield from combinations(names, size)
    yield from combinations([name for name in PARALLEL if name in names], 3)


def trial_of_cell(one: Small, engine: EngineCard, names: tuple[str, ...]) -> Trial | None:
    """The trial of some features together, in the best way to set them; None where that is more ranks than are run."""
    wanted = dict(ask(names, asked_of(one.card, engine)).settings)
    made = trial(one, engine, wanted)
    if made.ranks == 1 and {"hsdp", "vae_patch_parallel"} & {*names}:  # which are refused, and need ranks to be so
        wanted |= {"ulysses_degree": 2}
        made = trial(one, engine, wanted)
    if made.unsaid == ("vae_patch_parallel_size",):  # an engine may share the decode by all ranks or by none
        made = trial(one, engine, wanted | {"vae_patch_parallel_size": made.ranks})
    if made.unsaid == ("hsdp_shard_size",):  # and shard over the ranks that there are
        del wanted["hsdp_shard_size"]
        made = trial(one, engine, {"ulysses_degree": 2} | wanted)
    return made if made.ranks <= LONGEST else None


def run_trials(
    server: Server, trials: Mapping[str, Trial], on_progress: Progress | None = None, timeout: float = TIMEOUT
) -> Iterator[tuple[str, Shown]]:
    """Run trials, each command once, after the references that they need, also once."""
    references: dict[str, list[str]] = {}
    commands: dict[str, list[str]] = {}
    cases: dict[str, Case] = {}
    for name, made in trials.items():
        if not made.unsaid:
            beside = [made.reference(timeout), made.bare(timeout)]
            if server.environment.described["plain"]:
                beside.append(plain_of(made, timeout))
            references[name] = [_name(case) for case in beside]
            cases |= zip(references[name], beside, strict=True)
            commands.setdefault(_name(made.case(timeout)), []).append(name)
    for command, names in commands.items():
        cases.setdefault(command, trials[names[0]].case(timeout))
    ran: dict[str, Ran] = {}
    left = dict(commands)
    for done, (name, result) in enumerate(server.run(cases), 1):
        ran[name] = result
        if on_progress is not None:
            on_progress(done, len(cases))
        for command, names in list(left.items()):
            if command in ran and all({*references[one]} <= ran.keys() for one in names):
                del left[command]
                for one in names:
                    measured = Measured.of(ran[command], *(ran[other] for other in references[one]))
                    yield one, _shown(trials[one], measured, ran[command].seconds)


def _name(case: Case) -> str:
    return json.dumps([case.argv, case.ranks, case.plain, sorted(case.variables.items())])


def plain_of(made: Trial, timeout: float) -> Case:
    """The pipeline of diffusers in the place of one process of the engine."""
    return replace(made.bare(timeout), plain=True, controls=())


def _shown(made: Trial, measured: Measured, seconds: float) -> Shown:
    found = judged(measured, made.settings, made.features, environment(made.engine.id).described["rounding"])
    return Shown(made, measured, found, seconds)


def entry_of(shown: Shown, cell: str, server: Server) -> Entry:
    """What is written down of a cell."""
    return replace(_entry(shown.trial, cell, server), command=shown.trial.command, measured=shown.measured)


def _entry(made: Trial, cell: str, server: Server) -> Entry:
    return Entry(
        engine=made.engine.id,
        cell=cell,
        verdict=made.verdict,
        codes=made.codes,
        date=datetime.now(UTC).date().isoformat(),
        versions=server.versions,
        code=code_of(server.environment.family),
        degrees={name: made.settings[name] for name in DEGREES if made.settings.get(name, 1) > 1},
        unsaid=made.unsaid,
    )
