"""Quantization: 8 bits keep the image of the reference, on several ranks as on one, and what cannot run says so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import models
import pytest
from cases import DBCACHE, Case, Result, tiny_qwen

from omni_config.plan import Hsdp, Lora, Mesh
from runtime.errors import CannotRunError
from runtime.pipeline import apply, load
from runtime.ranks import generate

pytest.importorskip("torchao", reason="torchao is not installed; next: pip install 'omni-config[quantization]'")
pytestmark = pytest.mark.timeout(1800)
Results = Callable[[str], Result]
#: What each keeps at least, in dB of latents, and the ranks that it is proven on.
KINDS = {"int8_weight_only": 40.0, "fp8_weight_only": 30.0, "int8": 30.0}
MESHES = {"ulysses": Mesh(ulysses=2), "cfg": Mesh(cfg=2), "tensor": Mesh(tensor=2)}


def cases(folder: Path) -> dict[str, Case]:
    """What runs, under one torchrun with the cases of other modules."""
    plain = tiny_qwen()
    quantized = replace(plain, quantization="int8_weight_only")
    adapter = models.adapter(load.pipeline(plain).transformer, folder, seed=5)
    adapted = {"lora": [Lora(str(adapter), 0.5)]}
    table = {"none": Case(plain), "adapted": Case(replace(plain, **adapted))}
    table |= {kind: Case(replace(plain, quantization=kind), later="undone") for kind in KINDS}
    table |= {mesh: Case(replace(quantized, mesh=MESHES[mesh]), whole=True) for mesh in MESHES}
    table["tensor undone"] = Case(replace(quantized, mesh=MESHES["tensor"]), later="undone", control="")
    table["lora"] = Case(replace(quantized, **adapted))
    table["cache"] = Case(replace(quantized, cache=DBCACHE, mesh=MESHES["ulysses"]), control="")
    table |= {offload: Case(replace(quantized, offload=offload)) for offload in ("model", "layerwise")}
    return table


@pytest.mark.parametrize("kind", KINDS)
def test_images_stay_near_the_reference_and_weights_take_a_byte(results: Results, kind: str) -> None:
    own, none = results(kind), results("none")
    assert own.distance(none) > 1e-4  # something was rounded
    assert own.psnr(none) > KINDS[kind]
    measured = own.measured("quantization")
    layers, numbers = measured["layers"], parameters()
    assert layers == 7 * 14  # blocks, and the layers of each
    assert numbers < measured["bytes"] < 1.1 * numbers


def parameters() -> int:
    """Those of the layers of all blocks."""
    import torch

    blocks = load.pipeline(tiny_qwen()).transformer.transformer_blocks
    layers = [module for module in blocks.modules() if isinstance(module, torch.nn.Linear)]
    return sum(layer.weight.numel() for layer in layers)


@pytest.mark.parametrize("kind", [*KINDS, "tensor undone"])
def test_undone_the_weights_are_what_they_were(results: Results, kind: str) -> None:
    assert results(kind).distance(results("none"), "undone") <= 1e-4


@pytest.mark.parametrize("mesh", MESHES)
def test_ranks_compute_what_one_does(results: Results, mesh: str) -> None:
    assert results(mesh).distance(results("int8_weight_only")) <= 1e-4
    assert results(mesh).distance(results("none"), "broken") > 1e-2


def test_tensor_ranks_hold_half_of_the_quantized_weights(results: Results) -> None:
    whole, own = (results(name).measured("quantization")["bytes"] for name in ("int8_weight_only", "tensor"))
    assert own / whole == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("offload", ["model", "layerwise"])
def test_offload_changes_nothing(results: Results, offload: str) -> None:
    assert results(offload).distance(results("int8_weight_only")) <= 1e-5


def test_adapters_stay_beside_the_quantized_layers(results: Results) -> None:
    assert results("lora").measured("lora")["layers"] > 0
    assert results("lora").psnr(results("adapted")) > 40.0
    assert results("lora").distance(results("int8_weight_only")) > 1e-2


def test_caches_and_ranks_go_with_it(results: Results) -> None:
    assert results("cache").psnr(results("none")) > 30.0


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"quantization": "fp8"}, "fp8 cannot run on cpu: .*8.9.*next: set execution.quantization to fp8_weight_only"),
        ({"quantization": "int8", "hsdp": Hsdp(1, 2)}, "HSDP cannot shard quantized weights"),
    ],
)
def test_what_cannot_run_is_refused_in_one_line(changes: dict[str, object], cause: str) -> None:
    plan = tiny_qwen(**changes)
    pipe = load.pipeline(plan)
    quantization = next(feature for feature in apply.ORDER if feature.name == "quantization")
    with pytest.raises(CannotRunError, match=cause) as caught:
        quantization.apply(pipe, plan, None)
    assert "\n" not in str(caught.value)


def test_libraries_keep_their_settings() -> None:
    import torch

    before = torch.get_float32_matmul_precision()
    plan = tiny_qwen(quantization="int8_weight_only")
    plan = replace(plan, sampling=replace(plan.sampling, num_inference_steps=1))
    pipe = load.pipeline(plan)
    handles = apply.apply(pipe, plan, None)
    generate.call(pipe, plan, **generate.arguments(plan))
    apply.undo(handles)
    assert torch.get_float32_matmul_precision() == before
