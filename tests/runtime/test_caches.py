"""Step caches on the trained model: they save steps, cost little, and decide alike on every rank."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cases import DBCACHE, Case, Result, tiny

from omni_config.catalog.load import catalog
from omni_config.plan import Mesh, Plan, TeaCache
from omni_config.schema.settings import DEFAULTS

pytestmark = pytest.mark.timeout(1800)
Results = Callable[[str], Result]
BOUND = 1e-4
STEPS = 20
FEWER = 12  # where ranks are compared, and not quality

CACHES = {
    # The first two as by default.
    "tea_cache": TeaCache(DEFAULTS["rel_l1_thresh"], catalog().model("tiny").teacache_coefficients),
    "cache_dit": DBCACHE,
    "taylorseer": replace(DBCACHE, enable_taylorseer=True, taylorseer_order=2),
    "scm": replace(DBCACHE, scm_steps_mask_policy="fast", scm_steps_policy="static", max_warmup_steps=2),
}
MESHES = {
    "ulysses": Mesh(ulysses=2),
    "ring": Mesh(ring=2),
    "tensor": Mesh(tensor=2),
    "cfg": Mesh(cfg=2),
}
PAIRS = [(cache, mesh) for cache in ("tea_cache", "cache_dit") for mesh in MESHES]


def plan(cache: str = "", mesh: str = "", steps: int = FEWER) -> Plan:
    result = tiny(cache=CACHES.get(cache), mesh=MESHES.get(mesh, Mesh()))
    return replace(result, sampling=replace(result.sampling, num_inference_steps=steps))


def cases(folder: Path) -> dict[str, Case]:
    """What runs, under one torchrun with the cases of other modules."""
    table = {"none": Case(plan(steps=STEPS))}
    table |= {cache: Case(plan(cache, steps=STEPS)) for cache in CACHES}
    table |= {f"{cache} alone": Case(plan(cache)) for cache in ("tea_cache", "cache_dit")}
    table |= {f"{cache} {mesh}": Case(plan(cache, mesh)) for cache, mesh in PAIRS}
    return table


@pytest.mark.parametrize("cache", CACHES)
def test_steps_are_saved_at_little_cost(results: Results, cache: str) -> None:
    own, none = results(cache), results("none")
    feature = "tea_cache" if cache == "tea_cache" else "cache_dit"
    cached = own.measured(feature)["cached_steps"]
    assert own.ranks[0].steps_cached == len(cached)
    assert own.ranks[0].steps_computed == STEPS - len(cached)
    assert 4 <= len(cached) < STEPS
    assert own.distance(none) > BOUND  # what is reused is not what would have been computed
    assert own.psnr(none) > (25 if cache == "scm" else 35)  # a static mask reuses whatever the difference is


def test_taylorseer_extrapolates(results: Results) -> None:
    assert results("taylorseer").distance(results("cache_dit")) > BOUND


def test_scm_decides_beforehand(results: Results) -> None:
    import cache_dit

    mask = cache_dit.steps_mask(mask_policy="fast", total_steps=STEPS)
    assert results("scm").measured("cache_dit")["cached_steps"] == [step for step, one in enumerate(mask) if not one]


@pytest.mark.parametrize(("cache", "mesh"), PAIRS)
def test_ranks_decide_as_one(results: Results, cache: str, mesh: str) -> None:
    both, alone = results(f"{cache} {mesh}"), results(f"{cache} alone")
    steps = {rank: both.measured(cache, rank)["cached_steps"] for rank in (0, 1)}
    assert steps[0] == steps[1] == alone.measured(cache)["cached_steps"]
    assert both.distance(alone) <= BOUND
    assert both.distance(alone, "broken") > 10 * BOUND
