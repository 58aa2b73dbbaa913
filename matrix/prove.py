"""Runs the cells of the built-in runtime on small pipelines, and writes down what that showed.

A cell that works is proven where its config computes what the plain pipeline computes, while controls are noticed.
A refused cell is proven by the check that refuses it; where a Plan can say it all the same, it is run past the check,
and must fail or differ.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path

from matrix.ask import Cell, ask
from matrix.evidence import ROOT, Evidence, add, digest, key
from omni_config.cards import ModelCard
from omni_config.catalog import catalog
from omni_config.folders import card_of_folder
from omni_config.plan import Plan
from omni_config.resolver import resolve_settings
from omni_config.settings import Settings, validate
from runtime import Proof, prove_all
from runtime.apply import ORDER
from runtime.prove import is_plain
from runtime.report import versions

BATCH = 12  # cells under one start of torchrun; what they showed is then on disk
STEPS, CACHED_STEPS = 4, 20  # a cache needs steps to skip
SIDE, TILED_SIDE = 64, 128  # pixels; tiles need a picture of several


def prove(
    model: str, features: Collection[str] = (), on_progress: Callable[[int, int], None] | None = None
) -> dict[str, Evidence]:
    """Prove the cells of ``tiny``, or of a small pipeline in a folder; of those only that have all ``features``.

    Raises:
        LaunchError: torchrun failed as a whole.
        ValueError: the model is neither.
    """
    card = catalog().model(model) or card_of_folder(Path(model), catalog())
    cells = {names: cell for names, cell in _cells(card) if {*features} <= {*names}}
    plans = {names: plan for names, cell in cells.items() if (plan := _plan(names, cell, card)) is not None}
    for names in [names for names, plan in plans.items() if is_plain(plan)]:
        del plans[names], cells[names]  # tiles alone: no run can prove them by a comparison with themselves
    found = {key(names): _refused(cell, card) for names, cell in cells.items() if names not in plans}
    todo, done = list(plans), 0
    for first in range(0, len(todo), BATCH):
        batch = {key(names): plans[names] for names in todo[first : first + BATCH]}
        proofs = prove_all(batch)
        for names in todo[first : first + BATCH]:
            found[key(names)] = _judged(cells[names], proofs[key(names)], plans[names], card)
        add(card.pipeline, found)
        done += len(batch)
        if on_progress:
            on_progress(done, len(todo))
    add(card.pipeline, found)
    return found


def _cells(card: ModelCard) -> Iterator[tuple[tuple[str, ...], Cell]]:
    engine = catalog().engine("native")
    assert engine is not None
    for size in (1, 2):
        for names in combinations(catalog().features, size):
            yield names, ask(names, card, engine)


def _plan(names: tuple[str, ...], cell: Cell, card: ModelCard) -> Plan | None:
    """The Plan of a cell; None where the cell is refused and no Plan can say it."""
    plan = _accepted(dict(cell.settings), card)
    if cell.verdict != "no":
        return plan
    for name in names:
        if _accepted(dict(cell.settings) | catalog().features[name].switch_off, card) == plan:
            return None
    return plan


def _accepted(settings: Settings, card: ModelCard) -> Plan:
    engine = catalog().engine("native")
    assert engine is not None
    plain = validate({"version": 1, "model": card.id}) | _request(settings)
    adjusting = [rule for rule in catalog().rules if rule.adjusts]
    return resolve_settings(plain | settings, card, engine, adjusting).accepted_plan()


def _request(settings: Settings) -> Settings:
    """What is generated: a picture of several tiles, and steps enough to cache, where those are asked for."""
    cached = settings.get("tea_cache") or settings.get("cache_dit")
    tiled = settings.get("vae_use_tiling") or settings.get("vae_patch_parallel_size", 1) > 1
    side = TILED_SIDE if tiled else SIDE
    steps = CACHED_STEPS if cached else STEPS
    return {"prompt": "a red circle", "num_inference_steps": steps, "width": side, "height": side}


def _judged(cell: Cell, proof: Proof, plan: Plan, card: ModelCard) -> Evidence:
    refused = cell.verdict == "no"
    if refused:
        why = f"refused by {', '.join(cell.codes)}; run all the same, it " + (proof.problem or "works")
    else:
        why = proof.problem or "computes what the plain pipeline computes"
    said = proof.to_dict()
    distance = said["distance"] or {}
    return Evidence(
        verdict=cell.verdict,
        proven=proof.passed != refused,
        why=why,
        model=card.id,
        settings=dict(cell.settings) | _request(dict(cell.settings)),
        date=datetime.now(UTC).date().isoformat(),
        versions=proof.versions,
        code=_code(plan),
        difference=distance.get("difference"),
        psnr=distance.get("psnr"),
        bound=said["bound"],
        controls=said["controls"],
    )


def _refused(cell: Cell, card: ModelCard) -> Evidence:
    why = f"refused by {', '.join(cell.codes)}, and no Plan can say it"
    date = datetime.now(UTC).date().isoformat()
    return Evidence(cell.verdict, True, why, card.id, dict(cell.settings), date, versions(), {})


def _code(plan: Plan) -> dict[str, str]:
    """The files of the features that a Plan switches on, with their hashes."""
    files = (f"runtime/features/{feature.__name__.rpartition('.')[2]}.py" for feature in ORDER if feature.wanted(plan))
    return {name: digest(ROOT / name) for name in files}
