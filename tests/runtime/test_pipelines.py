"""The other families, with random weights: several ranks compute what one computes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import models
import pytest
from cases import DBCACHE, Case, Result, tiny

from omni_config.plan import Cache, Mesh, Model

pytestmark = pytest.mark.timeout(600)
Results = Callable[[str], Result]
BOUND = 1e-5

MESHES = {
    "ulysses-2": Mesh(ulysses=2),
    "ring-2": Mesh(ring=2),
    "tensor-2": Mesh(tensor=2),
    "cfg-2": Mesh(cfg=2),
    "cfg-2 ulysses-2": Mesh(cfg=2, ulysses=2),
    "ring-2 ulysses-2": Mesh(ring=2, ulysses=2),
    "ulysses-2 tensor-2": Mesh(ulysses=2, tensor=2),
}
# Random weights change their minds at every step, so these thresholds are higher than those of trained ones.
CACHES = {
    "tea_cache": Cache("tea_cache", {"rel_l1_thresh": 0.3, "coefficients": [0.0, 0.0, 0.0, 1.0, 0.0]}),
    "cache_dit": Cache("cache_dit", DBCACHE | {"residual_diff_threshold": 0.6, "max_warmup_steps": 1}),
}
CACHED = ("ulysses-2", "cfg-2")
FAMILIES = {"qwen_image": ("QwenImagePipeline", {"true_cfg_scale": 3.0})}


def cases(folder: Path) -> dict[str, Case]:
    """What runs, under one torchrun with the cases of other modules."""
    table = {}
    for family, (pipeline, guidance) in FAMILIES.items():
        plan = tiny(model=Model(family, str(models.build(family, folder)), pipeline, "text_to_image", "float32"))
        plan = replace(plan, sampling=replace(plan.sampling, prompt="a red star!", guidance=guidance))
        table[family] = Case(plan)
        table |= {f"{family} {name}": Case(replace(plan, mesh=mesh)) for name, mesh in MESHES.items()}
        for cache, parameters in CACHES.items():
            cached = replace(plan, cache=parameters, sampling=replace(plan.sampling, num_inference_steps=8))
            table[f"{family} {cache}"] = Case(cached)
            table |= {f"{family} {cache} {name}": Case(replace(cached, mesh=MESHES[name])) for name in CACHED}
    return table


@pytest.mark.parametrize("name", MESHES)
@pytest.mark.parametrize("family", FAMILIES)
def test_equal_to_one_rank(results: Results, family: str, name: str) -> None:
    assert results(f"{family} {name}").distance(results(family)) <= BOUND
    assert results(f"{family} {name}").distance(results(family), "broken") > 10 * BOUND


@pytest.mark.parametrize("name", CACHED)
@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("family", FAMILIES)
def test_caches_decide_as_on_one_rank(results: Results, family: str, cache: str, name: str) -> None:
    alone, shared = results(f"{family} {cache}"), results(f"{family} {cache} {name}")
    assert 0 < len(alone.measured(cache)["cached_steps"]) < 8
    assert shared.measured(cache)["cached_steps"] == alone.measured(cache)["cached_steps"]
    assert shared.distance(alone) <= 1e-4
    assert shared.distance(alone, "broken") > 1e-3
