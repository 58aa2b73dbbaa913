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
    (finding,) = (finding for finding in wrong.findings if finding.severity == "error")
    assert f" {size} " in finding.message
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
    assert shown["further_axes"] == {name: size}
    table = runner.invoke(app(), ["plan", str(file)], env={"COLUMNS": "160"}).stdout
    assert f"x {name} {size} = {ranks} ranks" in table


@pytest.mark.parametrize(
    ("engine", "parallel"),
    [
        ("sglang", {"allgather_degree": 4}),
        ("sglang", {"allgather_degree": 2, "tensor_parallel_size": 2}),
        ("vllm-omni==0.30", {"allgather_degree": 4}),
        ("vllm-omni==0.32", {"allgather_degree": 2, "ulysses_degree": 2}),
    ],
)
def test_what_is_exported_is_read_again_as_the_same(engine: str, parallel: dict[str, Any]) -> None:
    text, findings = export(checked(config("Qwen/Qwen-Image", engine, **parallel)))
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
