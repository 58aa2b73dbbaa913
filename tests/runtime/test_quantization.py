"""Quantization: 8 bits keep the image of the reference, on several ranks as on one, and what cannot run says so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

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
TEXT_KINDS = {"int8_weight_only": 35.0, "fp8_weight_only": 25.0}
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
    texts = {kind: replace(plain, text_encoder_quantization=kind) for kind in TEXT_KINDS}
    table |= {f"text {kind}": Case(text, later="undone") for kind, text in texts.items()}
    text = texts["int8_weight_only"]
    table["both"] = Case(replace(text, quantization="int8_weight_only"))
    table["text ulysses"] = Case(
        replace(text, quantization="int8_weight_only", mesh=MESHES["ulysses"]), "text_encoder", whole=True
    )
    table["text tensor"] = Case(
        replace(text, mesh=MESHES["tensor"], text_encoder_tensor_parallel=True), "text_encoder", whole=True
    )
    table["text hsdp"] = Case(replace(text, mesh=MESHES["ulysses"], hsdp=Hsdp(1, 2)), control="")
    table |= {f"text {offload}": Case(replace(text, offload=offload)) for offload in ("model", "layerwise")}
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


@pytest.mark.parametrize("kind", TEXT_KINDS)
def test_text_encoders_stay_near_the_reference(results: Results, kind: str) -> None:
    own, none = results(f"text {kind}"), results("none")
    assert own.distance(none) > 1e-5  # something was rounded
    assert own.psnr(none) > TEXT_KINDS[kind]
    assert own.distance(none, "undone") <= 1e-4
    measured = own.measured("quantization")
    layers = text_layers(load.pipeline(tiny_qwen()).text_encoder)
    assert (measured["layers"], measured["text_encoder_layers"]) == (0, len(layers))
    numbers = sum(layer.weight.numel() for layer in layers)
    assert numbers < measured["text_encoder_bytes"] < 1.2 * numbers


def text_layers(encoder: Any) -> list[Any]:
    """Those of the blocks of a Qwen2.5-VL that read text."""
    blocks = encoder.model.language_model.layers
    return [module for module in blocks.modules() if type(module).__name__ == "Linear"]


def test_both_at_once_keep_35_db(results: Results) -> None:
    assert results("both").psnr(results("none")) > 35.0
    assert results("both").distance(results("int8_weight_only")) > 1e-5


def test_ranks_have_the_quantized_text_encoder_too(results: Results) -> None:
    assert results("text ulysses").distance(results("both")) <= 1e-4
    assert results("text ulysses").distance(results("both"), "broken") > 1e-3
    assert results("text hsdp").distance(results("text int8_weight_only")) <= 1e-4


def test_tensor_ranks_share_the_quantized_text_encoder(results: Results) -> None:
    whole, own = results("text int8_weight_only"), results("text tensor")
    assert own.distance(whole) <= 1e-4
    assert own.distance(whole, "broken") > 1e-3
    held, all_of_it = (one.measured("quantization")["text_encoder_bytes"] for one in (own, whole))
    assert held / all_of_it == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("offload", ["model", "layerwise"])
def test_offload_moves_the_quantized_text_encoder(results: Results, offload: str) -> None:
    assert results(f"text {offload}").distance(results("text int8_weight_only")) <= 1e-5


@pytest.mark.parametrize("family", ["flux", "wan", "z_image"])
def test_text_encoders_of_other_families_keep_35_db(family: str, tmp_path: Path) -> None:
    """T5 and CLIP, UMT5, Qwen3, by what they make of a prompt; another prompt is further away."""
    import diffusers
    import torch

    plan = tiny_qwen(text_encoder_quantization="int8_weight_only")
    pipe = diffusers.DiffusionPipeline.from_pretrained(models.build(family, tmp_path))
    quantization = next(feature for feature in apply.ORDER if feature.name == "quantization")

    def texts(prompt: str) -> list[torch.Tensor]:
        with torch.no_grad():
            found = pipe.encode_prompt(prompt)
        return [
            one for one in (torch.as_tensor(part[0]) for part in found if part is not None and len(part)) if one.ndim
        ]

    def psnr(a: list[torch.Tensor], b: list[torch.Tensor]) -> float:
        return min(
            float(10 * torch.log10((y.max() - y.min()) ** 2 / ((x - y) ** 2).mean()))
            for x, y in zip(a, b, strict=True)
            if y.max() > y.min()
        )

    before, other = texts("a red circle"), texts("a big square")
    handle = quantization.apply(pipe, plan, None)
    assert handle.measure()["text_encoder_layers"] > 0
    after = texts("a red circle")
    assert 35.0 < psnr(after, before) < float("inf")
    assert psnr(other, before) < 35.0
    handle.undo()
    assert psnr(texts("a red circle"), before) == float("inf")


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
