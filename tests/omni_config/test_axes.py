"""The axes that other engines have beside those of the mesh: they count as ranks, and the built-in runtime has none."""

from __future__ import annotations

import json
from math import prod
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from omni_config.catalog.load import catalog
from omni_config.checking.document import CheckResult
from omni_config.checking.export import export
from omni_config.checking.files import check_bytes
from omni_config.cli import app
from omni_config.estimate.estimate import Estimate, estimate, gpus
from omni_config.mesh import ALL_AXES, AXES, FURTHER, RANKS, further
from omni_config.resolving.target import target_of
from omni_config.schema.settings import DEFAULTS, FIELDS, validate

runner = CliRunner()
#: A size of each, and the engine and the model that take it.
EACH: dict[str, tuple[Any, str, str]] = {
    "allgather_degree": (2, "sglang", "Qwen/Qwen-Image"),
    "pipeline_parallel_size": (2, "xdit", "black-forest-labs/FLUX.1-dev"),
    "attention_2d": ([2, 3], "tensorrt-llm", "Wan-AI/Wan2.2-T2V-A14B-Diffusers"),
}


def checked(text: str, engine: str | None = None) -> CheckResult:
    name = "run.sh" if not text.startswith("version") else "config.yaml"
    (found,) = check_bytes(name, text.encode(), assume={"engine": engine} if engine else {})
    return found


def config(model: str, engine: str, gpus: int | None = None, **parallel: Any) -> str:
    hardware = {"hardware": {"gpus": gpus}} if gpus else {}
    return yaml.safe_dump(
        {"version": 1, "model": model, "engine": engine, **hardware, "parallel": parallel}, sort_keys=False
    )


def test_every_further_axis_is_tried_here() -> None:
    assert {*EACH} == {axis.setting for axis in FURTHER}
    assert {*RANKS} == {axis.setting for axis in (*AXES, *FURTHER)}
    assert len(RANKS) == len(ALL_AXES)
    assert {*RANKS} <= {*FIELDS}
    assert further(DEFAULTS) == {}


@pytest.mark.parametrize("setting", EACH)
def test_it_counts_as_ranks_and_is_named_where_it_is_in_use(setting: str) -> None:
    size, engine, model = EACH[setting]
    ranks = size if isinstance(size, int) else prod(size)
    assert checked(config(model, engine, ranks, **{setting: size})).exit_code == 0
    wrong = checked(config(model, engine, ranks + 1, **{setting: size}))
    (finding,) = (finding for finding in wrong.findings if "gpus" in finding.fields)
    if engine != "tensorrt-llm":  # which only warns that GPUs are idle
        (name,) = (axis.name for axis in FURTHER if axis.setting == setting)
        assert f" x {name} {ranks} " in finding.message
        assert finding.message.endswith(f"= {ranks}")
    plain = checked(config(model, engine, 3, ulysses_degree=2))
    assert not any(axis.name in finding.message for finding in plain.findings for axis in FURTHER)


@pytest.mark.parametrize("setting", EACH)
def test_the_built_in_runtime_refuses_it_and_its_plans_know_nothing_of_it(setting: str) -> None:
    size, engine, model = EACH[setting]
    refused = checked(config("tiny", "native", **{setting: size}))
    assert "OMNI503" in {finding.code for finding in refused.findings if finding.severity == "error"}
    plan = checked(config(model, engine, **{setting: size}) + "sampling: {prompt: a cat}\n").plan
    assert plan
    assert plan.mesh.world_size == 1
    assert setting not in json.dumps(plan.to_dict())


@pytest.mark.parametrize("setting", EACH)
def test_omni_plan_shows_it(setting: str, tmp_path: Any) -> None:
    size, engine, model = EACH[setting]
    file = tmp_path / "config.yaml"
    file.write_text(config(model, engine, ulysses_degree=1, **{setting: size}) + "sampling: {prompt: a cat}\n")
    (name,) = (axis.name for axis in FURTHER if axis.setting == setting)
    shown = json.loads(runner.invoke(app(), ["plan", "--json", str(file)]).stdout)
    ranks = size if isinstance(size, int) else prod(size)
    assert shown["further_axes"] == {name: ranks}
    table = runner.invoke(app(), ["plan", str(file)], env={"COLUMNS": "160"}).stdout
    assert f"x {name} {ranks} = {ranks} ranks" in table


@pytest.mark.parametrize(
    ("engine", "parallel"),
    [
        ("sglang", {"allgather_degree": 4}),
        ("sglang", {"allgather_degree": 2, "tensor_parallel_size": 2}),
        ("vllm-omni==0.30", {"allgather_degree": 4}),
        ("vllm-omni==0.30", {"pipeline_parallel_size": 2}),
        ("xdit", {"pipeline_parallel_size": 2, "ulysses_degree": 2}),
        ("sglang", {"ulysses_degree": 2, "vae_parallel_mode": "spatial_shard"}),
        (
            "vllm-omni==0.30",
            {"ulysses_degree": 2, "vae_patch_parallel_size": 2, "vae_parallel_mode": "spatial_shard_width"},
        ),
        (
            "tensorrt-llm",
            {"ulysses_degree": 2, "vae_patch_parallel_size": 2, "vae_parallel_mode": "spatial_shard_height"},
        ),
        ("vllm-omni==0.30", {"text_encoder_tensor_parallel_size": 2, "ulysses_degree": 2}),
        ("cache-dit", {"ulysses_degree": 2, "async_ulysses": True}),
        ("tensorrt-llm", {"ulysses_degree": 4, "attention_2d": [3, 3], "cfg_parallel_size": 2}),
        ("tensorrt-llm", {"ulysses_degree": 2, "async_ulysses": True}),
        ("vllm-omni==0.32", {"allgather_degree": 2, "ulysses_degree": 2}),
    ],
)
def test_what_is_exported_is_read_again_as_the_same(engine: str, parallel: dict[str, Any]) -> None:
    models = {"xdit": "black-forest-labs/FLUX.1-dev", "tensorrt-llm": "Wan-AI/Wan2.2-T2V-A14B-Diffusers"}
    model = models["tensorrt-llm"] if "pipeline_parallel_size" in parallel else "Qwen/Qwen-Image"
    if "text_encoder_tensor_parallel_size" in parallel:
        model = "MiniMaxAI/MiniMax-H3"
    text, findings = export(checked(config(models.get(engine, model), engine, **parallel)))
    assert text, findings
    again = checked(text, engine)
    assert again.exit_code == 0, again.findings
    assert again.node
    assert again.node.value["parallel"] == parallel
    assert not [finding for finding in again.findings if finding.code == "OMNI605"]


@pytest.mark.parametrize("setting", EACH)
@pytest.mark.parametrize("engine", ["xdit", "cache-dit", "diffusers", "tensorrt-llm", "sglang", "vllm-omni==0.30"])
def test_an_engine_without_it_refuses_to_be_exported_to(setting: str, engine: str) -> None:
    size = EACH[setting][0]
    card = catalog().engine(engine)
    assert card
    feature = next(name for name, item in catalog().features.items() if item.fields == (setting,))
    document = checked(config("Qwen/Qwen-Image", engine, **{setting: size}))
    assert card.has_for_some(feature) or "OMNI503" in {finding.code for finding in document.findings}


def estimated(engine: str, **settings: Any) -> Estimate:
    card, known = catalog().model("Qwen/Qwen-Image"), catalog().engine(engine)
    assert card
    assert known
    written = validate({"version": 1, "model": card.id, "engine": engine}) | settings
    target = target_of(card, known).by(())
    return estimate(target.quantities(target.applied(written)[0]), gpus()["h100"])


def test_gathering_is_quicker_with_more_ranks_and_holds_all_keys_and_values() -> None:
    runs = [estimated("sglang", allgather_degree=size, width=2048, height=2048) for size in (1, 2, 4, 8)]
    seconds = [run.seconds.value for run in runs if run.seconds]
    assert seconds == sorted(seconds, reverse=True)
    assert ["all-gather" in run.terms for run in runs] == [False, True, True, True]
    ulysses = estimated("sglang", ulysses_degree=4, width=2048, height=2048)
    assert runs[2].memory.phases["DiT activations"] > ulysses.memory.phases["DiT activations"]
    assert runs[2].memory.phases["DiT activations"] < runs[0].memory.phases["DiT activations"]


def test_stages_share_the_weights_and_patches_keep_them_at_work() -> None:
    runs = [estimated("xdit", pipeline_parallel_size=size) for size in (1, 2, 4)]
    weights = [run.memory.resident["DiT weights"] for run in runs]
    assert weights == pytest.approx([weights[0], weights[0] / 2, weights[0] / 4])
    seconds = [run.seconds.value for run in runs if run.seconds]
    assert seconds == sorted(seconds, reverse=True)
    in_turn = [estimated("vllm-omni==0.30", pipeline_parallel_size=size) for size in (1, 2, 4)]
    assert in_turn[2].seconds
    assert runs[2].seconds
    assert in_turn[2].seconds.value > runs[2].seconds.value  # without patches, stages wait for each other
    assert in_turn[2].memory.resident["DiT weights"] == pytest.approx(weights[2])


def test_2d_attention_moves_less_than_a_ring_of_as_many_ranks_and_a_column_is_a_gather() -> None:
    big = {"width": 4096, "height": 4096}
    square = estimated("sglang", attention_2d=(4, 4), **big)
    line = estimated("sglang", attention_2d=(16, 1), **big)
    gather = estimated("sglang", allgather_degree=16, **big)
    assert square.terms["2D attention"] < line.terms["2D attention"]
    assert line.terms["2D attention"] == pytest.approx(gather.terms["all-gather"])
    assert square.memory.phases["DiT activations"] < line.memory.phases["DiT activations"]
    one = estimated("sglang", **big)
    assert one.seconds
    assert square.seconds
    assert square.seconds.value < one.seconds.value / 4


def test_asynchronous_ulysses_hides_a_part_of_the_exchange() -> None:
    plain = estimated("tensorrt-llm", ulysses_degree=4)
    hidden = estimated("tensorrt-llm", ulysses_degree=4, async_ulysses=True)
    assert 0 < hidden.terms["all-to-all"] < plain.terms["all-to-all"]
    assert {name: hidden.terms[name] for name in ("projections", "attention")} == {
        name: plain.terms[name] for name in ("projections", "attention")
    }


def test_strips_of_the_image_share_the_decode() -> None:
    size = {"ulysses_degree": 4, "vae_patch_parallel_size": 4, "width": 2048, "height": 2048}
    whole = estimated("vllm-omni==0.30", ulysses_degree=4, width=2048, height=2048)
    strips = estimated("vllm-omni==0.30", vae_parallel_mode="spatial_shard_width", **size)
    assert strips.terms["VAE decode"] == pytest.approx(whole.terms["VAE decode"] / 4)
    assert strips.memory.phases["VAE decode"] < 0.5 * whole.memory.phases["VAE decode"]
