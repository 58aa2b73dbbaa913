"""The judge of memory on a CPU: what it counts, without a launch, and what the estimate knows of adapters."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_models_folder import safetensors, tensor
from test_runs import plan

from omni_config.catalog.load import catalog
from omni_config.checking.files import check_bytes
from omni_config.estimate.memory import GIB, Memory
from omni_config.plan import Hsdp, Lora, Plan
from omni_config.planner.runs import quantities_of, runs_in

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))

import judge_memory
from judge_memory import PLANS, Row, estimated, line, summary

CARD = catalog().model("Tongyi-MAI/Z-Image")
assert CARD is not None
DIMS = {"transformer_parameters": 80, "text_encoder_parameters": 38, "num_layers": 4, "hidden_size": 1024}
DIMS |= {"num_attention_heads": 8, "num_kv_heads": 8, "ffn_dim": 2730, "refiner_layers": 1, "text_tokens": 64}
SMALL = replace(CARD, dims={**CARD.dims, **DIMS})


def of_rank(**changes: Any) -> Memory:
    whole = plan(256, "Tongyi-MAI/Z-Image", **changes.pop("parallel", {}))
    return estimated(replace(whole, model=replace(whole.model, dtype="float32"), **changes), SMALL)


def test_every_plan_is_a_config_that_can_be_launched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without launching: each command's config is checked, with the embedded model in the place of the built one."""
    for name in ("large", "tiny"):
        (tmp_path / name).mkdir()
        safetensors(tmp_path / name / "lora-0.safetensors", {"a": tensor("F32", 64, 8)})
    launched = []

    def launch(config: dict[str, Any], _: Path, **variables: str) -> Path:
        assert variables  # of the allocator
        (checked,) = check_bytes("c.yaml", json.dumps(config).encode())
        assert checked.exit_code == 0, checked.findings
        assert checked.plan is not None
        (tmp_path / "out").mkdir(exist_ok=True)
        report = {"peak_memory": [400.0, 300.0], "plan": checked.plan.to_dict()}
        (tmp_path / "out" / "report.json").write_text(json.dumps(report))
        launched.append(checked.plan)
        return tmp_path / "out" / "report.json"

    monkeypatch.setattr(judge_memory, "launch", launch)
    for one in PLANS:
        peak, made = judge_memory._peak(one, tmp_path, "tiny")
        assert peak == 400
        assert made == launched[-1]
    meshes = {made.mesh.world_size for made in launched}
    assert meshes == {1, 2}
    assert any(made.hsdp for made in launched)
    assert any(made.lora and made.mesh.tensor > 1 for made in launched)
    assert any(made.quantization for made in launched)
    assert any(made.text_encoder_tensor_parallel for made in launched)


def test_weights_of_a_rank_are_those_of_the_plan() -> None:
    whole, split = of_rank(), of_rank(parallel={"tensor_parallel_size": 2})
    assert whole.resident["DiT weights"] == pytest.approx(80e6 * 4 / GIB)
    assert "temporaries" not in whole.resident  # neither CUDA nor NCCL
    assert split.resident["DiT weights"] < 0.6 * whole.resident["DiT weights"]
    int8 = of_rank(quantization="int8_weight_only")
    assert int8.resident["DiT weights"] == pytest.approx(whole.resident["DiT weights"] / 4)
    assert int8.resident["pages of the transformer's file"] == pytest.approx(whole.resident["DiT weights"])


def test_adapters_are_counted_in_the_precision_of_the_pipeline(tmp_path: Path) -> None:
    file = safetensors(tmp_path / "a.safetensors", {"a": tensor("BF16", 3000, 1000), "b": tensor("F32", 1000, 1000)})
    lora = [Lora(str(file), 1.0)]
    assert of_rank(lora=lora).resident["LoRA adapters"] == pytest.approx(4e6 * 4 / GIB)
    tensor_ranks = of_rank(lora=lora, parallel={"tensor_parallel_size": 2})
    assert tensor_ranks.resident["LoRA adapters"] == pytest.approx(4e6 * 4 / GIB)  # whole: slices give them back
    shards = of_rank(lora=lora, hsdp=Hsdp(1, 2), parallel={"ulysses_degree": 2})
    assert shards.resident["LoRA adapters"] == pytest.approx(2e6 * 4 / GIB)


def test_adapters_that_are_not_here_are_named_as_not_counted(tmp_path: Path) -> None:
    for path in (str(tmp_path / "none.safetensors"), str(tmp_path)):
        found = of_rank(lora=[Lora(path, 1.0)])
        assert "LoRA adapters" in found.unknown
        assert "LoRA adapters" not in found.resident


def test_an_adapter_that_changed_is_read_again(tmp_path: Path) -> None:
    file = safetensors(tmp_path / "a.safetensors", {"a": tensor("F32", 1000, 1000)})
    first = of_rank(lora=[Lora(str(file), 1.0)]).resident["LoRA adapters"]
    safetensors(file, {"a": tensor("F32", 2000, 1000)})
    os.utime(file, ns=(1, 1))
    assert of_rank(lora=[Lora(str(file), 1.0)]).resident["LoRA adapters"] == pytest.approx(2 * first)


def test_rows_are_in_mib_and_compared_without_libraries() -> None:
    rows = [
        Row("a", 900.0, 400.0, Memory({"DiT weights": 0.5}, {"VAE decode": 0.01})),
        Row("b", 500.0, 400.0, Memory({"DiT weights": 0.2}, {})),
    ]
    assert line(rows[0]) == "| a | 900 | 400 | 500 | 522 | +4.4% | VAE decode |"
    assert summary(rows) == "median error 54.6%, largest 104.8%, 1 within 15 %."


def test_a_recorded_run_has_all_that_its_plan_says(tmp_path: Path) -> None:
    """What a report's plan says of prompts, adapters, precision and text encoder counts in the estimate, too."""
    one = plan(1024, tensor_parallel_size=2)
    sampling = replace(one.sampling, prompt=["a", "b", "c"], num_images_per_prompt=2)
    made: Plan = replace(
        one,
        sampling=sampling,
        quantization="int8_weight_only",
        text_encoder_tensor_parallel=True,
        lora=[Lora("a.safetensors", 0.5)],
    )
    q = quantities_of(made)
    assert q is not None
    assert (q["images"], q["quantization"], q["text_encoder_ranks"]) == (6, "int8_weight_only", 2)
    assert [item.path for item in q["lora"]] == ["a.safetensors"]
    (tmp_path / "report.json").write_text(
        json.dumps({"plan": made.to_dict(), "step_seconds": 0.5, "decode_seconds": 0.1})
    )
    (run,) = runs_in(tmp_path).runs
    assert run.quantities["images"] == 6
