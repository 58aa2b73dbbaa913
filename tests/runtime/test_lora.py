"""LoRA adapters: they change the picture, on several ranks as on one, and a file that does not fit is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import models
import pytest
import torch
from cases import DBCACHE, Case, Result, tiny
from safetensors.torch import load_file, save_file

from omni_config.plan import Lora, Mesh, Model, Plan, TeaCache
from runtime import LaunchError, launch
from runtime.errors import CannotRunError
from runtime.features import lora
from runtime.pipeline import apply, load
from runtime.ranks import generate

pytestmark = pytest.mark.timeout(1800)
Results = Callable[[str], Result]
BOUND = 1e-5
FAMILIES = {"z_image": ("ZImagePipeline", "guidance_scale"), "qwen_image": ("QwenImagePipeline", "true_cfg_scale")}
MESHES = {
    "ulysses-2": Mesh(ulysses=2),
    "ring-2": Mesh(ring=2),
    "tensor-2": Mesh(tensor=2),
    "cfg-2": Mesh(cfg=2),
}
SHARED = [*(("z_image", name) for name in MESHES), ("qwen_image", "ulysses-2"), ("qwen_image", "tensor-2")]
CACHES = {
    "tea_cache": TeaCache(0.3, (0.0, 0.0, 0.0, 1.0, 0.0)),
    "cache_dit": DBCACHE,
}
CACHED = {"tea_cache": "ulysses-2", "cache_dit": "tensor-2"}
STEPS = 12


def with_adapters(family: str, folder: Path) -> Plan:
    """A Plan with two adapters of random weights, of which the second is subtracted."""
    source = models.build(family, folder)
    pipeline, argument = FAMILIES[family]
    plan = tiny(model=Model(family, str(source), pipeline, "text_to_image", "float32"))
    transformer = load.pipeline(plan).transformer
    paths = [models.adapter(transformer, source, seed) for seed in (1, 2)]
    sampling = replace(plan.sampling, guidance={argument: 3.0})
    return replace(plan, sampling=sampling, lora=[Lora(str(paths[0]), 0.5), Lora(str(paths[1]), -0.3)])


def cases(folder: Path) -> dict[str, Case]:
    """What runs, under one torchrun with the cases of other modules."""
    table = {}
    for family in FAMILIES:
        plan = with_adapters(family, folder)
        table[f"{family} without"] = Case(replace(plan, lora=[]))
        table[f"{family} of scale 0"] = Case(replace(plan, lora=[replace(one, scale=0.0) for one in plan.lora]))
        table[family] = Case(plan)
        table |= {f"{family} {name}": Case(replace(plan, mesh=MESHES[name])) for of, name in SHARED if of == family}
    plan = table["z_image"].plan
    table["layerwise"] = Case(replace(plan, offload="layerwise"))
    table["model"] = Case(replace(plan, offload="model", mesh=Mesh(tensor=2)))
    trained = tiny()
    path = models.adapter(load.pipeline(trained).transformer, folder)
    sampling = replace(trained.sampling, num_inference_steps=STEPS)
    trained = replace(trained, sampling=sampling, lora=[Lora(str(path), 0.1)])
    for name, cache in CACHES.items():
        table[name] = Case(replace(trained, cache=cache))
        table[f"{name} shared"] = Case(replace(trained, cache=cache, mesh=MESHES[CACHED[name]]))
    return table


@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_change_the_picture_by_their_scales(results: Results, family: str) -> None:
    without, both = results(f"{family} without"), results(family)
    assert results(f"{family} of scale 0").distance(without) == 0
    assert both.distance(without) > 1e-3
    layers = {"z_image": (4 + 2 + 2) * 6, "qwen_image": 3 * 6}[family]
    assert both.measured("lora") == {"layers": layers, "fused": False}
    assert results(f"{family} tensor-2").measured("lora", rank=1) == {"layers": layers, "fused": True}


@pytest.mark.parametrize(("family", "name"), SHARED)
def test_equal_to_one_rank(results: Results, family: str, name: str) -> None:
    assert results(f"{family} {name}").distance(results(family)) <= BOUND
    assert results(f"{family} {name}").distance(results(family), "broken") > 10 * BOUND


@pytest.mark.parametrize(("kind", "moved"), [("model", "models"), ("layerwise", "blocks_fetched")])
def test_offload_moves_adapters_too(results: Results, kind: str, moved: str) -> None:
    assert results(kind).distance(results("z_image")) <= BOUND
    assert results(kind).measured("offload")[moved]


@pytest.mark.parametrize("cache", CACHES)
def test_caches_decide_as_on_one_rank(results: Results, cache: str) -> None:
    alone, shared = results(cache), results(f"{cache} shared")
    assert 0 < len(alone.measured(cache)["cached_steps"]) < STEPS
    assert shared.measured(cache)["cached_steps"] == alone.measured(cache)["cached_steps"]
    assert shared.distance(alone) <= 1e-4
    assert shared.distance(alone, "broken") > 1e-3


@pytest.fixture(scope="module")
def plan_with_adapters(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return with_adapters("z_image", tmp_path_factory.mktemp("lora"))


@pytest.mark.parametrize(("tensor", "bound"), [(1, 0.0), (2, BOUND)])
def test_undone_it_computes_what_it_did(plan_with_adapters: Plan, tensor: int, bound: float) -> None:
    plan = replace(plan_with_adapters, mesh=Mesh(tensor=tensor))
    pipe = load.pipeline(plan)

    def latents() -> torch.Tensor:
        with torch.inference_mode():
            return pipe(**generate.arguments(plan) | {"output_type": "latent"}).images

    before = latents()
    handle = lora.apply(pipe, plan, None)
    assert (latents() - before).abs().max() > 1e-3
    handle.undo()
    assert (latents() - before).abs().max() <= bound


Weights = dict[str, torch.Tensor]
FIRST = "transformer.layers.0.attention.to_q"
UNFIT = {
    "another name": (lambda w: {k.replace("to_q", "to_x"): v for k, v in w.items()}, r"it has .*to_x\.lora_A"),
    "one key too many": (lambda w: w | {"text_encoder.q.lora_A.weight": torch.zeros(1)}, "it has text_encoder"),
    "another size": (lambda w: {k: v[:, :3].contiguous() for k, v in w.items()}, "size mismatch for .*to_q"),
    "DoRA": (lambda w: w | {f"{FIRST}.dora_scale": torch.zeros(1)}, r"it has .*dora_scale"),
    "whole weights": (lambda w: {"layers.0.attention.to_q.weight": torch.zeros(1)}, "it has layers"),
    "nothing": (lambda w: {}, "it holds no weights"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_an_adapter_that_does_not_fit_is_refused_in_one_line(
    plan_with_adapters: Plan, tmp_path: Path, name: str
) -> None:
    change, cause = UNFIT[name]
    path = tmp_path / "adapter.safetensors"
    save_file(change(load_file(plan_with_adapters.lora[0].path)), path)
    pipe = load.pipeline(plan_with_adapters)
    with pytest.raises(CannotRunError, match=f"adapter.safetensors is no LoRA adapter for ZImage.*{cause}") as caught:
        lora.apply(pipe, replace(plan_with_adapters, lora=[Lora(str(path), 1.0)]), None)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_refused(plan_with_adapters: Plan, tmp_path: Path) -> None:
    whole = Path(plan_with_adapters.lora[0].path).read_bytes()
    for name, data, cause in (
        ("half.safetensors", whole[: len(whole) // 2], "cannot be read as a safetensors file"),
        ("text.safetensors", b"hello", "cannot be read as a safetensors file"),
        ("pickle.bin", whole, r"is no \.safetensors file"),
        ("gone.safetensors", None, "no such file"),
    ):
        if data is not None:
            (tmp_path / name).write_bytes(data)
        plan = replace(plan_with_adapters, lora=[Lora(str(tmp_path / name), 1.0)])
        with pytest.raises(CannotRunError, match=f"{name}.*{cause}"):
            apply.apply(load.pipeline(plan), plan, None)


def test_a_launch_names_the_file(plan: Plan, tmp_path: Path) -> None:
    path = tmp_path / "adapter.safetensors"
    path.write_bytes(b"")
    with pytest.raises(
        LaunchError, match=r"rank 0 failed while loading: .*adapter\.safetensors cannot be read"
    ) as caught:
        launch(replace(plan, mesh=Mesh(), lora=[Lora(str(path), 1.0)]), timeout=120)
    assert "\n" not in str(caught.value)
