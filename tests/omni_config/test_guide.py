"""The five rules of the guide, against a brute-force reading of its sentences."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni_config.catalog.load import catalog
from omni_config.resolving.resolver import Resolution, resolve, resolve_settings
from omni_config.resolving.target import target_of
from omni_config.schema.document import Document

MODELS = ["Qwen/Qwen-Image", "Qwen/Qwen-Image-Edit", "Tongyi-MAI/Z-Image", "Tongyi-MAI/Z-Image-Turbo", "tiny"]
DEGREES = range(1, 9)
GUIDE = {"OMNI101", "OMNI102", "OMNI201", "OMNI301", "OMNI401"}


def resolved(model: str = MODELS[0], engine: str = "vllm-omni", **sections: Any) -> Resolution:
    document = Document.model_validate({"version": 1, "model": model, "engine": engine, **sections})
    card, engine_card = catalog().model(model), catalog().engine(engine)
    assert card is not None
    assert engine_card is not None
    return resolve(document, target_of(card, engine_card))


def codes(resolution: Resolution) -> set[str]:
    return {finding.code for finding in resolution.findings} & GUIDE


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    degree = st.integers(1, 8)
    return {
        "model": draw(st.sampled_from(MODELS)),
        "hardware": {"gpus": draw(st.none() | st.integers(1, 64))},
        "parallel": {
            "ulysses_degree": draw(degree),
            "ring_degree": draw(degree),
            "cfg_parallel_size": draw(degree),
            "tensor_parallel_size": draw(degree),
            "vae_patch_parallel_size": draw(degree),
        },
        "cache": {"tea_cache": draw(st.booleans()), "cache_dit": draw(st.booleans())},
        "memory": {"enable_cpu_offload": draw(st.booleans()), "enable_layerwise_offload": draw(st.booleans())},
    }


def tensor_sizes(model: str) -> set[int]:
    """Sizes that divide each dimension, by counting; the guide names 1 and 2 for Z-Image."""
    card = catalog().model(model)
    assert card is not None
    return {n for n in DEGREES if all(card.dims[name] % n == 0 for name in card.tensor_parallel_splits)}


@given(configs())
def test_the_resolver_obeys_the_guide(config: dict[str, Any]) -> None:
    parallel, memory, cache = config["parallel"], config["memory"], config["cache"]
    ulysses, ring = parallel["ulysses_degree"], parallel["ring_degree"]
    cfg, tensor = parallel["cfg_parallel_size"], parallel["tensor_parallel_size"]
    gpus = config["hardware"]["gpus"]
    expected = set()
    if gpus is not None and gpus != ulysses * ring * cfg * tensor:
        expected.add("OMNI101")
    if tensor not in tensor_sizes(config["model"]):
        expected.add("OMNI102")
    if cache["tea_cache"] and cache["cache_dit"]:
        expected.add("OMNI201")
    if memory["enable_cpu_offload"] and memory["enable_layerwise_offload"]:
        expected.add("OMNI301")
    if parallel["vae_patch_parallel_size"] > ulysses * ring * cfg * tensor:
        expected.add("OMNI401")
    result = resolved(**config)
    assert codes(result) == expected
    assert result.settings["enable_cpu_offload"] == (
        memory["enable_cpu_offload"] and not memory["enable_layerwise_offload"]
    )
    assert result.settings["vae_patch_parallel_size"] == min(
        parallel["vae_patch_parallel_size"], ulysses * ring * cfg * tensor
    )
    refused = any(finding.severity == "error" for finding in result.findings)
    assert (result.plan is None) == refused
    if result.plan is not None:
        assert result.plan.mesh.world_size == ulysses * ring * cfg * tensor


def test_gpu_count_over_all_degrees_up_to_8() -> None:
    """GPU count = ulysses x ring x cfg x tp; any mismatch is an error, and left out it is the product."""
    card, engine = catalog().model(MODELS[0]), catalog().engine("vllm-omni")
    assert card is not None
    assert engine is not None
    target = target_of(card, engine).by([catalog().by_code["OMNI101"]])
    base = resolved().settings
    for ulysses, ring, cfg, tensor in product(DEGREES, repeat=4):
        degrees = {
            "ulysses_degree": ulysses,
            "ring_degree": ring,
            "cfg_parallel_size": cfg,
            "tensor_parallel_size": tensor,
        }
        total = ulysses * ring * cfg * tensor
        for gpus, clean in ((total, True), (total + 1, False), (None, True)):
            result = resolve_settings(base | degrees | {"gpus": gpus}, target)
            assert (not result.findings) == clean
            assert result.settings["gpus"] == (gpus or total)


@given(configs())
def test_resolving_a_resolved_config_changes_nothing(config: dict[str, Any]) -> None:
    once = resolved(**config)
    twice = resolve(once.document, once.target)
    assert twice.settings == once.settings
    assert twice.document == once.document
    assert twice.plan == once.plan
    assert not any(finding.changes for finding in twice.findings)


@given(configs(), st.permutations(range(len(catalog().rules))))
def test_the_order_of_the_rules_does_not_matter(config: dict[str, Any], order: list[int]) -> None:
    result = resolved(**config)
    shuffled = [catalog().rules[index] for index in order]
    document = Document.model_validate({"version": 1, "engine": "vllm-omni", **config})
    from omni_config.schema.settings import settings_of

    other = resolve_settings(settings_of(document), result.target.by(shuffled))
    assert other.settings == result.settings
    assert set(other.findings) == set(result.findings)


@pytest.mark.parametrize("model", ["Tongyi-MAI/Z-Image", "Tongyi-MAI/Z-Image-Turbo"])
def test_z_image_splits_into_1_or_2_tensor_ranks(model: str) -> None:
    allowed = [
        size
        for size in range(1, 65)
        if "OMNI102" not in codes(resolved(model, parallel={"tensor_parallel_size": size}))
    ]
    assert allowed == [1, 2]
    card = catalog().model(model)
    assert card is not None
    assert [card.dims[name] for name in card.tensor_parallel_splits] == [30, 30, 3840, 10240, 64]


def test_adjustments_are_reported() -> None:
    result = resolved(
        parallel={"ulysses_degree": 2, "vae_patch_parallel_size": 8},
        memory={"enable_cpu_offload": True, "enable_layerwise_offload": True},
    )
    said = {finding.code: finding for finding in result.findings}
    assert "lowered to 2" in said["OMNI401"].message
    assert "layerwise offload takes priority" in said["OMNI301"].message
    assert "vae_use_tiling is switched on" in said["OMNI402"].message
    assert all(said[code].severity == "warning" for code in ("OMNI301", "OMNI401", "OMNI402"))
    plan = result.accepted_plan()  # OMNI302 refuses layerwise offload on two GPUs, which is not the point here
    assert (plan.offload, plan.vae.patch_parallel_size, plan.vae.use_tiling) == ("layerwise", 2, True)
