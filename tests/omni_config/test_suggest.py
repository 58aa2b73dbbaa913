"""``omni suggest``: a plan that ``omni check`` passes, or the limit that is in the way and the smallest change."""

from __future__ import annotations

import json
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from omni_config.catalog.load import catalog
from omni_config.checking.files import check_bytes
from omni_config.cli import app
from omni_config.estimate.data import gpus
from omni_config.mesh import DEGREES
from omni_config.planner.candidates import candidates, sizes
from omni_config.resolving.search import valid
from omni_config.resolving.target import target_of
from omni_config.schema.settings import validate

runner = CliRunner()
MODELS = [
    ("Qwen/Qwen-Image", "native"),
    ("Qwen/Qwen-Image", "vllm-omni"),
    ("Tongyi-MAI/Z-Image-Turbo", "native"),
    ("black-forest-labs/FLUX.2-dev", "vllm-omni==0.30"),
    ("Wan-AI/Wan2.2-T2V-A14B-Diffusers", "vllm-omni"),
]


def suggested(*arguments: str) -> tuple[int, dict[str, Any]]:
    result = runner.invoke(app(["suggest"]), ["suggest", *arguments, "--json"])
    return result.exit_code, json.loads(result.stdout)


@pytest.mark.parametrize(("model", "engine"), MODELS)
def test_plans_are_valid_by_all_rules_and_none_is_missing(model: str, engine: str) -> None:
    card, known = catalog().model(model), catalog().engine(engine)
    assert card is not None
    assert known is not None
    base = validate({"version": 1, "model": model}) | {"width": 1024, "height": 1024}
    target = target_of(card, known)
    found = list(candidates(base, target, gpus()["h100"], 8))
    assert found
    assert not [plan.changes for plan in found if target.broken(base | plan.changes | {"gpus": plan.gpus})]
    shapes = [shape for size in sizes(8) for shape in valid(base, target, size)]  # by all rules
    assert {tuple(plan.changes[axis] for axis in DEGREES) for plan in found} == {
        tuple(shape[axis] for axis in DEGREES) for shape in shapes
    }


@pytest.mark.parametrize("objective", ["latency", "memory", "throughput"])
@pytest.mark.parametrize(("model", "engine"), MODELS)
def test_what_is_suggested_passes_the_check_and_fits(model: str, engine: str, objective: str) -> None:
    flags = ("--model", model, "--engine", engine, "--gpus", "8", "--gpu", "h100", "--objective", objective)
    code, found = suggested(*flags)
    assert code == 0
    for plan in found["plans"]:
        (checked,) = check_bytes("suggested.yaml", plan["config"].encode())
        assert checked.exit_code == 0, checked.findings
        assert plan["gib"] <= found["memory"]
    wanted = {"latency": "seconds", "memory": "gib", "throughput": "pictures_a_second"}[objective]
    values = [round(plan[wanted], 1) for plan in found["plans"]]
    assert values == sorted(values, reverse=objective == "throughput")


def test_the_front_trades_seconds_for_memory() -> None:
    flags = ("--engine", "vllm-omni", "--gpus", "8", "--gpu", "h100", "--size", "2048x2048")
    _, found = suggested("--model", "Qwen/Qwen-Image", *flags)
    assert len(found["pareto"]) > 2
    for quick, small in pairwise(found["pareto"]):
        assert quick["seconds"] <= small["seconds"]
        assert quick["gib"] > small["gib"]


def test_lossless_leaves_caches_out() -> None:
    flags = ("--model", "Qwen/Qwen-Image", "--gpus", "2", "--gpu", "h100")
    assert "cache" in json.dumps(suggested(*flags)[1]["plans"][0]["changes"])
    assert "cache" not in json.dumps(suggested(*flags, "--lossless")[1]["plans"][0]["changes"])


def test_where_nothing_fits_the_smallest_change_is_one_that_works() -> None:
    flags = ("--model", "Qwen/Qwen-Image-2512", "--gpus", "1", "--gpu", "a10", "--size", "4096x4096")
    code, found = suggested(*flags)
    assert code == 1
    assert "none of" in found["problem"]
    assert found["remedies"][0].startswith("1 more GPU: 2 with ring 2")
    assert suggested(*flags, "--gpus", "2")[0] == 0


def test_a_model_of_unknown_size_is_refused_with_what_is_missing() -> None:
    flags = [
        "suggest",
        "--model",
        "ByteDance-Seed/BAGEL-7B-MoT",
        "--engine",
        "vllm-omni",
        "--gpus",
        "1",
        "--gpu",
        "h100",
    ]
    result = runner.invoke(app(["suggest"]), flags)
    assert result.exit_code == 2
    assert "parameters of the transformer" in result.stderr


@pytest.mark.parametrize("objective", ["latency", "throughput"])
@pytest.mark.parametrize("suffix", [".svg", ".html"])
def test_the_plans_and_their_steps_are_drawn(tmp_path: Path, suffix: str, objective: str) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / f"front{suffix}"
    flags = ("--model", "Qwen/Qwen-Image", "--gpus", "4", "--gpu", "h100", "--plot", str(path))
    assert suggested(*flags, "--objective", objective)[0] == 0
    text = path.read_text()
    assert "<svg" in text
    assert "milliseconds of a step" in text
    assert ("images a minute" in text) == (objective == "throughput")


def test_plans_are_drawn_in_the_terminal() -> None:
    words = ["suggest", "--model", "Qwen/Qwen-Image", "--gpus", "4", "--gpu", "h100", "--plot", "-"]
    front = runner.invoke(app(["suggest"]), words).stdout
    assert "the Pareto front (o)" in front
    assert front.count("*") >= 1
    under_load = runner.invoke(app(["suggest"]), [*words, "--objective", "throughput"]).stdout
    drawn = under_load.partition("images a minute over")[2]
    bars = [line for line in drawn.splitlines() if " ms " in line]
    assert len(bars) >= 3
    assert all("█" in bar for bar in bars)
    assert "█ FFN" in drawn


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        ("vllm-omni", "vllm serve black-forest-labs/FLUX.1-dev"),
        ("sglang", "--model-path black-forest-labs/FLUX.1-dev"),
        ("sglang==0.5.20", "--ulysses-degree 4"),
        ("xdit", "xdit --model"),
        ("tensorrt-llm", "trtllm-serve"),
        ("cache-dit", "parallelism_config:"),
    ],
)
@pytest.mark.parametrize("gpus", ["1", "4"])
def test_plans_are_exported_as_the_command_of_every_engine(engine: str, words: str, gpus: str) -> None:
    flags = ("--model", "black-forest-labs/FLUX.1-dev", "--gpus", gpus, "--gpu", "h100", "--export", engine)
    code, found = suggested(*flags)
    assert code == 0
    for plan in found["plans"]:
        assert "engine: " + engine.partition("=")[0] in plan["config"]
        assume = {"engine": found_version(plan["config"]), "model": "black-forest-labs/FLUX.1-dev"}
        for checked in check_bytes("exported", plan["command"].encode(), assume=assume):
            assert checked.exit_code == 0, checked.findings
    if gpus == "4":
        assert words in found["plans"][0]["command"]


def found_version(config: str) -> str:
    return next(line.partition(": ")[2] for line in config.splitlines() if line.startswith("engine"))


def test_an_engine_that_is_not_exported_to_is_refused() -> None:
    flags = ["suggest", "--model", "Qwen/Qwen-Image", "--gpus", "1", "--gpu", "h100"]
    for more, words in (
        (["--export", "native"], "expected one of"),
        (["--export", "sglang", "--engine", "xdit"], "plans for sglang"),
    ):
        result = runner.invoke(app(["suggest"]), [*flags, *more], env={"COLUMNS": "300"})
        assert result.exit_code == 2
        assert words in result.stderr


def test_1024_gpus_are_planned_in_a_second_or_so() -> None:
    """Of processor time, as other jobs run beside the tests; the benchmark measures it by the clock."""
    card, engine = catalog().model("Qwen/Qwen-Image"), catalog().engine("vllm-omni")
    assert card
    assert engine
    settings = validate({"version": 1, "model": card.id, "engine": engine.id, "sampling": {"negative_prompt": ""}})
    begun = time.process_time()
    assert len(list(candidates(settings, target_of(card, engine), gpus()["h100"], 1024))) > 1000
    assert time.process_time() - begun < 3
