"""Every feature of every pipeline, and every pair of features that the rules allow, with small random weights.

What runs is asked of the rules: a feature that the card of the engine adds, or a pair that a rule forbids, changes it.
By itself it is a sample: every feature alone on a pipeline with two calls a step and on one with a batched call, every
kind of rank on all, and, where slow tests run too, each three axes of the mesh on one. With OMNI_EVERY_PAIR=1, or the
names of families, it is every feature, every pair, and every three axes, on all pipelines, or on those.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
from cases import Case, Result
from PIL import Image

from omni_config.catalog.folder_card import card_of_folder
from omni_config.catalog.load import catalog
from omni_config.plan import Mesh, Plan, Vae
from omni_config.resolving.resolver import resolve_settings
from omni_config.resolving.target import target_of
from omni_config.schema.settings import DEFAULTS

pytestmark = pytest.mark.timeout(1800)
Results = Callable[[str], Result]
BOUND = 1e-5

#: The settings of each family; the rest is what its folder and the model card of its pipeline say.
FAMILIES: dict[str, dict[str, Any]] = {
    # With the shorter negative prompt in one batch, so that attention is masked.
    "z_image": {"cfg_scale": 3.0, "prompt": "a red star on a white background"},
    "qwen_image": {"cfg_scale": 3.0},
    "qwen_image_edit": {"cfg_scale": 3.0},
    "qwen_image_edit_plus": {"cfg_scale": 3.0},
    "flux": {"cfg_scale": 3.0, "guidance_scale": 3.5},
    "wan": {"cfg_scale": 4.0, "num_frames": 5},
    "wan_two": {"cfg_scale": 4.0, "num_frames": 5},
    "wan_5b": {"cfg_scale": 4.0, "num_frames": 5},
    "flux_kontext": {"cfg_scale": 3.0, "guidance_scale": 3.5},
    "flux_fill": {"guidance_scale": 30.0, "negative_prompt": None},
    "chroma": {"cfg_scale": 3.0},
    "wan_image_to_video": {"cfg_scale": 4.0, "num_frames": 5, "fps": 16},
    "wan_vace": {"cfg_scale": 4.0, "num_frames": 5},
    "sana": {"cfg_scale": 3.0},
    "cog_video_x": {"cfg_scale": 3.0, "num_frames": 5},
    "cog_video_x_image": {"cfg_scale": 3.0, "num_frames": 5},
    "qwen_image_2_1": {"cfg_scale": 3.0},
    "stable_diffusion_3": {"cfg_scale": 3.0},
    "flux_2": {"guidance_scale": 4.0, "negative_prompt": None},
    "flux_2_klein": {"negative_prompt": None},
    "hunyuan_video_15": {"cfg_scale": 3.0, "num_frames": 5, "num_inference_steps": 2},
    "ltx_2": {"cfg_scale": 3.0, "num_frames": 5},
}
#: Of a sample, the families that have every feature, and the one that undoes each.
WHOLE = ("z_image", "qwen_image")
UNDONE = "z_image"
#: The same pipelines with other weights: two kinds of rank are enough of a sample.
ALIKE = ("qwen_image_edit_plus", "wan_two", "wan_5b")
#: Each cell of these is proven by `omni matrix prove`; of a sample, one kind of rank shows that their files hold.
PROVEN = {
    "flux_kontext": "cfg_parallel",
    "flux_fill": "ulysses",
    "chroma": "ulysses",
    "wan_image_to_video": "ulysses",
    "wan_vace": "ulysses",
    "sana": "cfg_parallel",
    "cog_video_x": "cfg_parallel",
    "cog_video_x_image": "tensor_parallel",
    "qwen_image_2_1": "cfg_parallel",
    "stable_diffusion_3": "cfg_parallel",
    "flux_2": "tensor_parallel",
    "flux_2_klein": "ulysses",
    "hunyuan_video_15": "cfg_parallel",
    "ltx_2": "vae_slicing",
}
#: Random weights change their minds at every step, so these caches reuse whatever the difference is.
SWITCHED_ON: dict[str, dict[str, Any]] = {
    "tea_cache": {"tea_cache": True, "rel_l1_thresh": 1e6, "coefficients": (0.0, 0.0, 0.0, 1.0, 0.0)},
    "cache_dit": {"cache_dit": True, "residual_diff_threshold": 1e6, "max_warmup_steps": 1},
}
#: What test_quantization.py shows, and tests/serving/test_admission.py between requests of a server.
ELSEWHERE = ("quantization", "step_execution")
#: Pipelines with two calls a step, of both kinds of scale, and one with a batched call.
GUIDED = ("z_image", "qwen_image", "flux", "wan")
EVERY_PAIR = os.environ.get("OMNI_EVERY_PAIR", "").split(",")
PATCHED = "z_image"  # of a sample, by ranks of each kind
PARALLEL = ("cfg_parallel", "ring", "ulysses", "tensor_parallel")
#: Three axes of the mesh take eight ranks, so of a sample each three run on one family.
TRIPLES = {
    ("ulysses", "ring", "cfg_parallel"): "qwen_image",
    ("ring", "cfg_parallel", "tensor_parallel"): "z_image",
    ("ulysses", "cfg_parallel", "tensor_parallel"): "wan",
    ("ulysses", "ring", "tensor_parallel"): "flux",
}


@cache
def folder_of(family: str, folder: Path) -> Path:
    return models.build(family, folder)


@cache
def adapters_of(family: str, folder: Path) -> list[dict[str, Any]]:
    """Two LoRA adapters of random weights, of which the second is subtracted."""
    transformer, source = models.FAMILIES[family]().transformer, folder_of(family, folder)
    scales = {1: 0.5, 2: -0.3}
    return [{"path": str(models.adapter(transformer, source, seed)), "scale": scale} for seed, scale in scales.items()]


def plan(family: str, folder: Path, on: Collection[str]) -> Plan | None:
    """The Plan with these features and no other; None where the rules do not allow it.

    The text encoder is split over the tensor ranks, and HSDP shards over ranks that share work: these come with them.
    """
    on = {*on, "tensor_parallel"} if "text_encoder_parallel" in on else on
    on = {*on, "ulysses"} if "hsdp" in on and not {*on} & {*PARALLEL} else on
    source = folder_of(family, folder)
    card, engine = card_of_folder(source, catalog()), catalog().engine("native")
    assert engine is not None
    settings = DEFAULTS | {
        "version": 1,
        "model": str(source),
        "dtype": "float32",
        "prompt": "a red star!",
        "negative_prompt": "blue",
        "width": 64,
        "height": 64,
        "num_inference_steps": 4,
        "seed": 7,
        **FAMILIES[family],
    }
    if card.task.startswith("image_to_"):
        picture = folder / "input.png"
        if not picture.exists():
            noise = Image.effect_noise((64, 64), 80)
            noise.putalpha(noise.point(lambda light: 255 * (light > 128)))  # for one that fills what is transparent
            noise.save(picture)
        settings["image"] = str(picture)
    for name in on:
        settings |= SWITCHED_ON.get(name, catalog().features[name].switch_on)
    if "lora" in on:
        settings["lora"] = adapters_of(family, folder)
    resolution = resolve_settings(settings, target_of(card, engine))
    q = resolution.target.quantities(resolution.settings)
    kept = {name for name in catalog().features if q[name]} - {"vae_tiling"} == set(on) - {"vae_tiling"}
    return resolution.plan if kept else None


def features_of(family: str) -> list[str]:
    engine = catalog().engine("native")
    assert engine is not None
    claim = engine.pipelines[models.PIPELINES[family]]
    features = [name for name in (*claim.supported, *claim.only) if name not in ELSEWHERE]
    if every_pair(family):
        return features
    if family in PROVEN:
        return [PROVEN[family]]
    if family in ALIKE:
        return ["cfg_parallel", "tensor_parallel"]
    if family not in WHOLE:
        return [name for name in features if name in (*PARALLEL, "hsdp")]
    return [name for name in features if name != "compile"]  # takes long; test_execution.py compiles one


def undoes(family: str) -> bool:
    """Whether each feature alone is undone as well."""
    return family == UNDONE or (every_pair(family) and family not in (*ALIKE, *PROVEN))


def every_pair(family: str) -> bool:
    return "1" in EVERY_PAIR or family in EVERY_PAIR


def reference(of: Plan) -> Plan:
    """The same on one rank, and without what must change nothing."""
    vae = Vae(of.vae.use_tiling, use_slicing=False, patch_parallel_size=1)
    changed = {"compile": False, "attention_backend": "native", "text_encoder_tensor_parallel": False}
    return replace(of, mesh=Mesh(), hsdp=None, offload="none", vae=vae, **changed)


def plain(of: Plan) -> Plan:
    """The same without any feature."""
    return replace(reference(of), cache=None, lora=[], vae=Vae(False, False, 1))


def name_of(of: Plan) -> str:
    on = [
        of.cache.backend if of.cache else "none",
        *(["tiled"] if of.vae.use_tiling else []),
        *(["lora"] if of.lora else []),
    ]
    return f"reference {Path(of.model.id).name} {' '.join(on)}"


def combinations_of(family: str) -> Iterator[tuple[str, ...]]:
    features = features_of(family)
    yield from combinations(features, 1)
    if every_pair(family):
        yield from combinations(features, 2)
    elif family == PATCHED:
        yield from ((name, "vae_patch_parallel") for name in PARALLEL)
    elif family not in ALIKE and family not in PROVEN:
        yield "ulysses", "vae_patch_parallel"  # which needs ranks
    yield from (axes for axes, of in TRIPLES.items() if every_pair(family) or of == family)


#: What ``cases`` found to be allowed, by family and features.
ALLOWED: dict[tuple[str, tuple[str, ...]], Plan] = {}


def cases(folder: Path) -> dict[str, Case]:
    """What runs, under one torchrun with the cases of other modules."""
    table = {}
    for family in FAMILIES:
        for on in combinations_of(family):
            if found := plan(family, folder, on):
                ALLOWED[family, on] = found
                table[name_of(found)] = Case(reference(found))
                control = "vae" if found.vae.patch_parallel_size > 1 else "transformer"
                control = "text_encoder" if found.text_encoder_tensor_parallel else control
                later = "undone" if len(on) == 1 and undoes(family) else ""
                table[f"{family} {' '.join(on)}"] = Case(found, control, later)
                if later:
                    table[name_of(plain(found))] = Case(plain(found))
        if family in GUIDED:
            alone, shared = plan(family, folder, ()), plan(family, folder, ("cfg_parallel",))
            assert alone is not None
            assert shared is not None
            table[f"guided {family} alone"] = Case(alone, later="guidance")
            table[f"guided {family} shared"] = Case(shared, control="", later="guidance")
    return table


@pytest.mark.parametrize(("family", "feature"), [(name, one) for name in FAMILIES for one in features_of(name)])
def test_alone_and_in_pairs_it_computes_what_one_rank_does(results: Results, family: str, feature: str) -> None:
    mine = {on: found for (name, on), found in ALLOWED.items() if name == family and feature in on and len(on) < 3}
    assert (feature,) in mine or feature == "vae_patch_parallel"  # which needs ranks
    wrong = {on: said for on, found in mine.items() if (said := difference(results, family, on, found))}
    assert not wrong, "\n".join(f"{family} {' '.join(on)}: {said}" for on, said in wrong.items())


@pytest.mark.slow
@pytest.mark.parametrize("axes", TRIPLES)
def test_three_axes_at_once(results: Results, axes: tuple[str, ...]) -> None:
    mine = {family: found for (family, on), found in ALLOWED.items() if on == axes}
    assert TRIPLES[axes] in mine
    assert {found.mesh.world_size for found in mine.values()} == {8}
    wrong = {family: said for family, found in mine.items() if (said := difference(results, family, axes, found))}
    assert not wrong


@pytest.mark.parametrize(
    ("family", "feature"),
    [(name, one) for name in FAMILIES if undoes(name) for one in features_of(name) if one != "vae_patch_parallel"],
)
def test_a_feature_can_be_undone(results: Results, family: str, feature: str) -> None:
    found = ALLOWED[family, (feature,)]
    run, without = results(f"{family} {feature}"), results(name_of(plain(found)))
    assert run.distance(results(name_of(found)), "again") <= BOUND
    assert run.distance(without, "undone") <= BOUND
    assert apart(run.arrays[0]["undone image"], without.arrays[0]["image"]) <= 1
    if feature in ("tea_cache", "cache_dit", "lora"):
        assert run.distance(without) > BOUND
    if feature == "vae_tiling":
        assert apart(run.arrays[0]["image"], without.arrays[0]["image"]) > 1


@pytest.mark.parametrize("family", [name for name in FAMILIES if "text_encoder_parallel" in features_of(name)])
def test_each_rank_holds_a_part_of_the_text_encoder(results: Results, family: str) -> None:
    run = results(f"{family} text_encoder_parallel")
    held = [run.measured("text_encoder_parallel", rank)["text_encoder_bytes"] for rank in (0, 1)]
    folder = Path(ALLOWED[family, ("text_encoder_parallel",)].model.source)
    encoder = folder / ("text_encoder_2" if (folder / "text_encoder_2").is_dir() else "text_encoder")
    assert held[0] == held[1]
    assert 0.4 < held[0] / (encoder / "model.safetensors").stat().st_size < 0.9  # embeddings are whole


@pytest.mark.parametrize("family", GUIDED)
def test_cfg_parallel_follows_whatever_guidance_does(results: Results, family: str) -> None:
    shared, alone = results(f"guided {family} shared"), results(f"guided {family} alone")
    calls = [name for name in alone.arrays[0] if not name.endswith(("image", "latents"))]
    assert len(calls) == (6 if family.startswith("wan") else 5)
    for name in calls:
        assert shared.distance(alone, name, of=name) <= BOUND, name
        if name.startswith("after"):
            assert alone.distance(alone, name) == 0, name
        else:
            assert alone.distance(alone, name) > 1e-3, name


def difference(results: Results, family: str, on: tuple[str, ...], found: Plan) -> str:
    """What is wrong with a run; empty where it equals its reference, and its control does not."""
    try:
        run, alone = results(f"{family} {' '.join(on)}"), results(name_of(found))
    except AssertionError as error:
        return str(error).strip().splitlines()[-1]
    problems = []
    if not (distance := run.distance(alone)) <= BOUND:
        problems.append(f"latents differ by {distance:.1e}")
    if (levels := apart(run.arrays[0]["image"], alone.arrays[0]["image"])) > 1:  # rounding to bytes
        problems.append(f"pictures differ by {levels}")
    if found.mesh.world_size > 1:
        if found.vae.patch_parallel_size > 1 and not found.text_encoder_tensor_parallel:
            noticed = apart(run.arrays[0]["vae image"], alone.arrays[0]["image"]) > 5
        else:
            noticed = run.distance(alone, "broken") > 10 * BOUND
        if not noticed:
            problems.append("a broken weight is not noticed")
    if found.cache:
        backend = found.cache.backend
        reused = {str(run.measured(backend, rank)["cached_steps"]) for rank in range(found.mesh.world_size)}
        if reused != {str(alone.measured(backend)["cached_steps"])} or reused == {"[]"}:
            problems.append(f"reused steps {reused}, and alone {alone.measured(backend)}")
    return ", ".join(problems)


def apart(one: np.ndarray, other: np.ndarray) -> int:
    return int(np.abs(one.astype(int) - other).max())
