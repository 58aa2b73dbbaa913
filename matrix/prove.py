"""Runs the cells of the built-in runtime on small pipelines, and writes down what that showed.

A cell that works is proven where its config computes what the plain pipeline computes, while controls are noticed.
A refused cell is proven by the check that refuses it; where a Plan can say it all the same, it is run past the check,
and must fail or differ.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

from matrix.cell import Cell, ask, asked_of
from matrix.compatibility import features_of
from matrix.evidence import ROOT, SHARED, Evidence, add, digest, is_of_a_plan, key
from omni_config.cards import ModelCard
from omni_config.catalog.folder_card import card_of_folder
from omni_config.catalog.load import catalog
from omni_config.plan import EMBEDDED, Plan
from omni_config.resolving.resolver import resolve_settings
from omni_config.resolving.target import target_of
from omni_config.schema.settings import Settings, validate
from runtime import Proof, prove_all
from runtime.pipeline.apply import ORDER
from runtime.report import versions

QUANTIZATION = "int8_weight_only"  # what is proven of it, as float8 needs a GPU
STEPS, CACHED_STEPS = 2, 20  # one finds what another left behind; a cache needs steps to skip
SIDE = 64  # pixels
TILED = 288, 32  # pixels, or a little more: more than one tile of most decoders, and few of the transformer's tokens
#: Of pipelines whose decoders have larger tiles, or smaller ones.
OTHER_TILES = {
    "SanaPipeline": (544, 32),
    "LTX2Pipeline": (544, 32),
    "FluxKontextPipeline": (352, 32),
    "Flux2Pipeline": (112, 32),
    "Flux2KleinPipeline": (112, 32),
}
_HANGS = 180.0  # seconds without progress: some of what is refused hangs where it is run all the same
PLAIN = (0.0, 0.0, 0.0, 1.0, 0.0)  # coefficients that leave a change as it is
#: By whether weights are trained: thresholds for so few steps, each further from the next than the 50 that DBCache's
#: default is for; and for random weights, for which nobody has chosen any.
CACHES: dict[bool, dict[str, Settings]] = {
    True: {"tea_cache": {}, "cache_dit": {"residual_diff_threshold": 0.12}},
    False: {
        "tea_cache": {"rel_l1_thresh": 0.06, "coefficients": PLAIN},
        "cache_dit": {"residual_diff_threshold": 0.3},
    },
}
#: Of pipeline classes whose random weights change more from step to step: other thresholds, or more steps.
RESTLESS: dict[str, dict[str, Settings]] = {
    "CogVideoXPipeline": {"tea_cache": {"rel_l1_thresh": 0.2, "coefficients": PLAIN, "num_inference_steps": 80}},
    "CogVideoXImageToVideoPipeline": {
        "tea_cache": {"rel_l1_thresh": 0.2, "coefficients": PLAIN, "num_inference_steps": 50},
        "cache_dit": {"residual_diff_threshold": 0.5},
    },
    "HunyuanVideo15Pipeline": {"cache_dit": {"residual_diff_threshold": 0.6, "num_inference_steps": 30}},
    "Flux2Pipeline": {"cache_dit": {"residual_diff_threshold": 0.6, "num_inference_steps": 50}},
    "Flux2KleinPipeline": {"cache_dit": {"residual_diff_threshold": 0.6, "num_inference_steps": 50}},
    "StableDiffusion3Pipeline": {
        "tea_cache": {"rel_l1_thresh": 0.04, "num_inference_steps": 80},
        "cache_dit": {"residual_diff_threshold": 0.3, "num_inference_steps": 80},
    },
}
#: Published models whose heads can be shared as those of the small pipeline can, where the first of the class cannot.
PUBLISHED = {"CogVideoXPipeline": "THUDM/CogVideoX-5b"}


@dataclass(frozen=True)
class Subject:
    """A small pipeline that is run, and the model of the catalog whose cells that proves.

    ``family`` is the module that knows its transformer; ``files`` are by the setting that names them.
    """

    model: ModelCard
    card: ModelCard
    source: str
    family: str
    files: dict[str, Any]


def pipelines() -> list[str]:
    """The pipeline classes of which each cell can be proven here: all of the built-in runtime."""
    engine = catalog().engine("native")
    assert engine is not None
    return list(engine.pipelines)


def prove(
    models: Collection[str], features: Collection[str] = (), on_progress: Callable[[int, int], None] | None = None
) -> dict[str, dict[str, Evidence]]:
    """Prove the cells of pipeline classes, embedded models, or small pipelines in folders; by model and cell.

    Of those only that have all ``features``. What a cell shows is written down as it comes, so that what has run is
    kept where the rest is interrupted.

    Raises:
        LaunchError: torchrun failed as a whole.
        ValueError: a model is none of these.
    """
    with TemporaryDirectory(prefix="omni-matrix-") as folder:
        subjects = {model: _subject(model, Path(folder, str(number))) for number, model in enumerate(models)}
        cells = {
            f"{model} {key(names)}": (model, names, cell)
            for model, subject in subjects.items()
            for names, cell in _cells(subject.model)
            if {*features} <= {*names}
        }
        planned = {place: _plan(names, cell, subjects[model]) for place, (model, names, cell) in cells.items()}
        found: dict[str, dict[str, Evidence]] = {model: {} for model in subjects}

        def note(place: str, shown: Evidence) -> None:
            model, names, _ = cells[place]
            found[model][key(names)] = shown
            add(subjects[model].model.pipeline, {key(names): shown})

        def on_proof(place: str, proof: Proof) -> None:
            model, _, cell = cells[place]
            plan = planned[place]
            assert plan is not None
            note(place, _judged(cell, proof, plan, subjects[model]))

        for place, (model, _, cell) in cells.items():
            if planned[place] is None:
                note(place, _refused(cell, subjects[model]))
        plans = {place: plan for place, plan in planned.items() if plan is not None}
        prove_all(plans, timeout=_HANGS, on_progress=on_progress, on_proof=on_proof)
    return found


def _subject(model: str, folder: Path) -> Subject:
    """The small pipeline of a name, built where there is none, with what its runs need, in a folder of its own."""
    from PIL import Image

    from runtime import models
    from runtime.proof import random_pipelines as small

    folder.mkdir()
    cards = [card for name in catalog().model_ids if (card := catalog().model(name))]
    source = model
    if model in pipelines():
        embedded = next((card.id for card in cards if card.id in EMBEDDED and card.pipeline == model), None)
        source = embedded or str(small.build(model, folder / model))
    known = card = catalog().model(source)
    if card is None:
        card, stated = card_of_folder(Path(source), catalog()), "two_transformers"  # of which the rules speak
        alike = (card.pipeline, card.dims.get(stated))
        alikes = [one for one in cards if (one.pipeline, one.dims.get(stated)) == alike]
        known = next((one for one in alikes if one.id == PUBLISHED.get(model)), alikes[0])
    elif card.id not in EMBEDDED:
        raise ValueError(f"{model} is too large to be run once a cell; next: name one of {', '.join(pipelines())}")
    assert known is not None
    # Tall, as pipelines scale it to a million pixels, of which torch computes the first layer four times faster so.
    noise = Image.effect_noise((SIDE // 4, SIDE * 4), 80)
    noise.putalpha(noise.point(lambda light: 255 * (light > 128)))  # what is transparent is for one that fills it
    noise.save(folder / "input.png")
    transformer = small.transformer_of(source)
    adapter = {"path": str(small.adapter(transformer, folder)), "scale": 1.0}
    family = models.module_of(models.of(SimpleNamespace(transformer=transformer))).replace(".", "/")
    return Subject(known, card, source, family, {"lora": (adapter,), "image": str(folder / "input.png")})


def _cells(card: ModelCard) -> Iterator[tuple[tuple[str, ...], Cell]]:
    engine = catalog().engine("native")
    assert engine is not None
    for size in (1, 2):
        for names in combinations(features_of(engine), size):
            cell = ask(names, asked_of(card, engine))
            if is_of_a_plan(cell):
                yield names, cell


def _plan(names: tuple[str, ...], cell: Cell, subject: Subject) -> Plan | None:
    """The Plan of a cell; None where the cell is refused and no Plan can say it."""
    said = _said(dict(cell.settings), subject)
    plan = _accepted(said, subject)
    if cell.verdict != "no":
        return plan
    for name in names:
        if _accepted(said | catalog().features[name].switch_off, subject) == plan:
            return None
    return plan


def _accepted(said: Settings, subject: Subject) -> Plan:
    engine = catalog().engine("native")
    assert engine is not None
    asked = validate({"version": 1, "model": subject.source}) | said
    asked |= {name: file for name, file in subject.files.items() if asked[name]}
    target = target_of(subject.card, engine)
    return resolve_settings(asked, target.by(rule for rule in target.rules if rule.adjusts)).accepted_plan()


def _said(settings: Settings, subject: Subject) -> Settings:
    """The settings of a run: those of the cell, beside what is generated."""
    said = _request(settings, subject) | settings
    return said | {"quantization": QUANTIZATION} if said.get("quantization") else said


def _request(settings: Settings, subject: Subject) -> Settings:
    """What is generated: an image of several tiles, several images, and steps to cache, where that is asked for.

    All that is compiled gets the same, so that it finds the graphs that another cell has compiled, and prompts of one
    length, as each length takes a graph: one of the pairs with which step caches keep the image at this size, for
    which the embedded models were not trained; with some they do not, compiled or not.
    """
    several, compiled = settings.get("vae_use_slicing"), settings.get("compile")
    tiled = settings.get("vae_use_tiling") or settings.get("vae_patch_parallel_size", 1) > 1
    thresholds = CACHES[subject.card.id in EMBEDDED] | RESTLESS.get(subject.card.pipeline, {})
    caches = [changes for name, changes in thresholds.items() if settings.get(name)]
    width = height = SIDE
    if tiled or compiled:
        engine = catalog().engine("native")
        assert engine is not None
        multiple = target_of(subject.card, engine).quantities({})["pixel_multiple"]
        width, height = (-(-side // multiple) * multiple for side in OTHER_TILES.get(subject.card.pipeline, TILED))
    request: Settings = {
        "prompt": "a red circle",
        "negative_prompt": "a blue heart" if compiled else "blue",
        "num_inference_steps": CACHED_STEPS if caches else STEPS,
        "width": width,
        "height": height,
        "dtype": "float32",
    }
    if subject.card.task.startswith("image_to_"):
        request["image"] = "input.png"
    if subject.card.task.endswith("_to_video"):
        request["num_frames"] = 5
    elif several or compiled:
        request["num_images_per_prompt"] = 2
    for changes in caches:
        request |= changes
    return request


def _judged(cell: Cell, proof: Proof, plan: Plan, subject: Subject) -> Evidence:
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
        model=subject.model.id,
        settings=_said(dict(cell.settings), subject),
        date=datetime.now(UTC).date().isoformat(),
        versions=proof.versions,
        shared={name: digest(ROOT / name) for name in SHARED},
        code=_code(plan, subject),
        difference=_rounded(distance.get("difference")),
        psnr=_rounded(distance.get("psnr")),
        bound=_rounded(said["bound"]),
        controls=_rounded(said["controls"]),
    )


def _refused(cell: Cell, subject: Subject) -> Evidence:
    why = f"refused by {', '.join(cell.codes)}, and no Plan can say it"
    date = datetime.now(UTC).date().isoformat()
    return Evidence(cell.verdict, True, why, subject.model.id, dict(cell.settings), date, versions(), {}, {})


def _rounded(value: Any) -> Any:
    """Numbers with three digits: the others differ from run to run."""
    if isinstance(value, dict):
        return {name: _rounded(inner) for name, inner in value.items()}
    return float(f"{value:.3g}") if isinstance(value, float) else value


def _code(plan: Plan, subject: Subject) -> dict[str, str]:
    """The digests of the model's family, and of the features that a Plan switches on."""
    features = (f"runtime/features/{feature.name}" for feature in ORDER if feature.wanted(plan))
    return {name: digest(ROOT / name) for name in (subject.family, *features)}
