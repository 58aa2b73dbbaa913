"""Search: nothing nearer works than what is called nearest, conflicts are minimal, and enumeration misses nothing."""

from __future__ import annotations

import time
from itertools import combinations, product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omni_config.catalog.load import catalog
from omni_config.mesh import DEGREES
from omni_config.resolving.search import conflict, nearest, valid
from omni_config.resolving.target import Target, target_of
from omni_config.schema.document import Document
from omni_config.schema.settings import settings_of

CARDS = [
    ("tiny", "native"),
    ("Tongyi-MAI/Z-Image", "native"),
    ("Tongyi-MAI/Z-Image-Turbo", "vllm-omni"),
    ("Qwen/Qwen-Image", "vllm-omni"),
    ("Qwen/Qwen-Image", "vllm-omni==0.30"),
]
DOMAIN: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(DEGREES, (1, 2, 3, 4, 6, 8)),
    "gpus": (None, 1, 2, 4, 8),
    "tea_cache": (False, True),
    "cache_dit": (False, True),
    "enable_cpu_offload": (False, True),
    "enable_layerwise_offload": (False, True),
}


def start(model: str, engine: str, **settings: Any) -> tuple[Any, Target]:
    document = Document.model_validate({"version": 1, "model": model, "engine": engine})
    card, known = catalog().model(model), catalog().engine(engine)
    assert card
    assert known
    return settings_of(document) | settings, target_of(card, known)


@st.composite
def broken(draw: st.DrawFn) -> tuple[Any, Target]:
    chosen = {name: draw(st.sampled_from(values)) for name, values in DOMAIN.items()}
    return start(*draw(st.sampled_from(CARDS)), **chosen)


@given(broken())
@settings(max_examples=60, deadline=None)
def test_what_is_called_nearest_works_and_nothing_with_fewer_changes_does(case: tuple[Any, Target]) -> None:
    config, target = case
    found = nearest(config, target)
    assert found
    for changes in found:
        assert not target.broken(config | changes)
        assert all(config[name] != value for name, value in changes.items())
    fewest = min(map(len, found))
    assert len(found[0]) == fewest
    for size in range(min(fewest, 2)):  # every way to change fewer settings, by brute force
        for names in combinations(DOMAIN, size):
            for values in product(*(DOMAIN[name] for name in names)):
                changed = config | dict(zip(names, values, strict=True))
                assert target.broken(changed), (names, values)


@given(broken())
@settings(max_examples=25, deadline=None)
def test_a_conflict_cannot_hold_and_is_minimal(case: tuple[Any, Target]) -> None:
    config, target = case
    core = conflict(config, target, list(DOMAIN))
    if core:
        assert not nearest(config, target, fixed=core, most=1)
        for name in core:
            assert nearest(config, target, fixed=[other for other in core if other != name], most=1)


def test_a_conflict_of_two_rules_is_named() -> None:
    case = start("Tongyi-MAI/Z-Image-Turbo", "vllm-omni", tensor_parallel_size=2, ulysses_degree=6, gpus=12)
    assert conflict(*case, ["gpus", "tensor_parallel_size", "ulysses_degree"]) == (
        "tensor_parallel_size",
        "ulysses_degree",
    )


def test_all_valid_plans_are_enumerated() -> None:
    config, target = start("Qwen/Qwen-Image", "vllm-omni")
    switches = {"cache_dit": (False, True), "tea_cache": (False, True)}
    found = list(valid(config, target, 8, switches))
    brute = [
        dict(zip(DEGREES, degrees, strict=True)) | {"cache_dit": cache_dit, "tea_cache": tea_cache}
        for degrees in product((1, 2, 4, 8), repeat=4)
        for cache_dit, tea_cache in product((False, True), repeat=2)
        if degrees[0] * degrees[1] * degrees[2] * degrees[3] == 8
        and not target.broken(
            config
            | dict(zip(DEGREES, degrees, strict=True))
            | {"gpus": 8, "cache_dit": cache_dit, "tea_cache": tea_cache}
        )
    ]
    keys = [*DEGREES, "cache_dit", "tea_cache"]
    assert sorted([item[key] for key in keys] for item in found) == sorted(
        [item[key] for key in keys] for item in brute
    )
    assert len(found) == len({str(item) for item in found}) > 10


@pytest.mark.parametrize("gpus", [1, 7, 1024])
def test_a_search_ends_soon(gpus: int) -> None:
    """A bound against exponential growth; the benchmark measures the time itself."""
    case = start(
        "Tongyi-MAI/Z-Image", "vllm-omni", gpus=gpus, tensor_parallel_size=7, ulysses_degree=11, tea_cache=True
    )
    begun = time.monotonic()
    nearest(*case)
    assert time.monotonic() - begun < 10
