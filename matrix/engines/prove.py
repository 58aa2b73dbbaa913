"""Runs the cells of an engine's matrix on small models, and holds the rules against what the engine does."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from matrix.cell import ask, asked_of
from matrix.engines.environments import Environment
from matrix.engines.evidence import Entry, code_of, write
from matrix.engines.judge import Judged, judged, psnr
from matrix.engines.server import Case, Ran, Server, started
from matrix.engines.small import Small, small
from matrix.engines.trial import LONGEST, Trial, trial
from matrix.evidence import key
from omni_config.cards import EngineCard
from omni_config.catalog.load import catalog
from omni_config.schema.settings import Settings

TIMEOUT = 60.0
KEPT = 20  # cells after which they are written down, so that what has run is kept where the rest is interrupted
PARALLEL = ("ulysses", "ring", "cfg_parallel", "tensor_parallel", "hsdp", "vae_patch_parallel")

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Shown:
    """A trial, what its run showed, and the run."""

    trial: Trial
    judged: Judged
    ran: Ran

    @property
    def agrees(self) -> bool:
        """Whether the run bears the rules out."""
        return self.trial.agrees(self.judged)


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
            for name, shown in run_trials(server, trials, on_progress):
                model, cell = places[name]
                found[model][cell] = entry_of(shown, server)
                if len(found[model]) % KEPT == 0:
                    write(environment.engine, model, found[model])
            for name, made in trials.items():
                model, cell = places[name]
                if made.unsaid:
                    found[model][cell] = _without_words(made, server)
        for model, entries in found.items():
            write(environment.engine, model, entries)
    return found


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
                    yield one, _shown(server, trials[one], ran[command], *(ran[other] for other in references[one]))


def _name(case: Case) -> str:
    return json.dumps([case.argv, case.ranks, case.plain, sorted(case.variables.items())])


@dataclass(frozen=True)
class Proven:
    """A config that was run. ``plain`` is how far one process is from the pipeline of diffusers, in dB."""

    shown: Shown
    plain: float | None
    versions: dict[str, str]
    standins: list[str]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; infinite distances are None, as the images are equal."""
        told, made = self.shown.judged, self.shown.trial
        finite = {name: _finite(value) for name, value in (("psnr", told.psnr), ("control", told.control))}
        return {
            "engine": made.engine.id,
            "model": made.small.model,
            "command": made.command,
            "ranks": made.ranks,
            "outcome": told.outcome,
            "why": told.why,
            "moment": told.moment,
            **finite,
            "one_process_to_diffusers": _finite(self.plain),
            "rules": {"verdict": made.verdict, "codes": list(made.codes), "agrees": self.shown.agrees},
            "seconds": self.shown.ran.seconds,
            "versions": self.versions,
            "standins": self.standins,
        }


def _finite(value: float | None) -> float | None:
    return None if value is None or value == float("inf") else round(value, 1)


def prove_config(
    environment: Environment, model: str, asked: Settings, request: Settings, on_progress: Progress, timeout: float
) -> Proven:
    """Run a config with the small one of its model; ``request`` is what it says of what is generated.

    Raises:
        NoEnvironment: the engine is not installed, or does not start.
        ValueError: the model has no small one, or the engine has no words for a setting.
    """
    with TemporaryDirectory(prefix="omni-small-") as home:
        one = small(model, Path(home))
        made = trial(one, card_of(environment), asked, {**one.request, **request})
        if made.unsaid:
            raise ValueError(f"{environment.engine} has no words for {', '.join(made.unsaid)}")
        with started(environment, [one]) as server:
            shown = next(shown for _, shown in run_trials(server, {"": made}, on_progress, timeout))
            plain = _plain(server, made, timeout)
            return Proven(shown, plain, server.versions, server.standins)


def _plain(server: Server, made: Trial, timeout: float) -> float | None:
    """How far one process is from diffusers; None where one of them fails, or where the engine cannot be asked."""
    reference = made.reference(timeout)
    ran = dict(server.run({"engine": reference, "diffusers": replace(reference, plain=True, controls=())}))
    images = [one.images.get("image") for one in ran.values()]
    if any(image is None for image in images):
        return None
    first, second = images
    assert first is not None
    assert second is not None
    return psnr(first, second)


def _shown(server: Server, made: Trial, result: Ran, reference: Ran, bare: Ran) -> Shown:
    platform = server.environment.described["platform"]
    found = judged(result, reference, bare, made.settings, dict.fromkeys(made.features), platform)
    return Shown(made, found, result)


def entry_of(shown: Shown, server: Server) -> Entry:
    """What is written down of a cell."""
    told = shown.judged
    finite = told.psnr is not None and told.psnr != float("inf")
    return Entry(
        verdict=shown.trial.verdict,
        outcome=told.outcome,
        agrees=shown.agrees,
        why=told.why,
        command=shown.trial.command,
        date=datetime.now(UTC).date().isoformat(),
        versions=server.versions,
        code=code_of(server.environment.family),
        codes=shown.trial.codes,
        moment=told.moment,
        psnr=round(told.psnr, 1) if finite and told.psnr is not None else None,
        control=round(told.control, 1) if told.control is not None else None,
    )


def _without_words(made: Trial, server: Server) -> Entry:
    why = f"its command has no words for {', '.join(made.unsaid)}"
    date = datetime.now(UTC).date().isoformat()
    code = code_of(server.environment.family)
    agrees = made.verdict == "refused"
    return Entry(made.verdict, "no words", agrees, why, date, server.versions, code, codes=made.codes)
