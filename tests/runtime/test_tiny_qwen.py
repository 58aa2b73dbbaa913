"""The embedded Qwen-Image on several ranks, on trained weights; its step caches save steps at little cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cases import DBCACHE, Case, Result, by_ranks, tiny_qwen

from omni_config.catalog.load import catalog
from omni_config.plan import Mesh, TeaCache

pytestmark = pytest.mark.timeout(600)
Results = Callable[[str], Result]
BOUND = 1e-5
STEPS = 50  # as in the guide's commands, which the defaults are for; at 20, a step is further from the next one

MESHES = {
    "ulysses-2": Mesh(ulysses=2),
    "ulysses-4": Mesh(ulysses=4),
    "ring-2": Mesh(ring=2),
    "ring-3 ulysses-2": Mesh(ring=3, ulysses=2),  # uneven parts
    "tensor-2": Mesh(tensor=2),
    "ulysses-2 tensor-2": Mesh(ulysses=2, tensor=2),
    "cfg-2": Mesh(cfg=2),
}
CACHES = {  # as by default
    "tea_cache": TeaCache(0.2, catalog().model("tiny-qwen").teacache_coefficients),
    "cache_dit": DBCACHE,
}


def cases(folder: Path) -> dict[str, Case]:
    """What runs, under one torchrun with the cases of other modules."""
    longer = replace(tiny_qwen(), sampling=replace(tiny_qwen().sampling, num_inference_steps=STEPS))
    return (
        {"alone": Case(tiny_qwen()), "none": Case(longer)}
        | {name: Case(tiny_qwen(mesh=mesh)) for name, mesh in MESHES.items()}
        | {name: Case(replace(longer, cache=cache)) for name, cache in CACHES.items()}
    )


@pytest.mark.parametrize("name", by_ranks(MESHES))
def test_equal_to_one_rank(results: Results, name: str) -> None:
    assert results(name).distance(results("alone")) <= BOUND
    assert results(name).distance(results("alone"), "broken") > 10 * BOUND


@pytest.mark.parametrize("cache", CACHES)
def test_caches_save_steps_at_little_cost(results: Results, cache: str) -> None:
    own, none = results(cache), results("none")
    assert 4 <= len(own.measured(cache)["cached_steps"]) < STEPS
    assert own.distance(none) > BOUND  # what is reused is not what would have been computed
    assert own.psnr(none) > 35
