"""``omni suggest --from``: recorded runs move the efficiencies that they depend on; the datasheet holds the rest."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from math import log
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from omni_config.catalog.load import catalog
from omni_config.cli import app
from omni_config.estimate.data import Gpu, gpus
from omni_config.plan import Plan
from omni_config.planner.fit import fit, step_seconds
from omni_config.planner.runs import Run, quantities_of, runs_in
from omni_config.resolving.resolver import resolve
from omni_config.resolving.target import target_of
from omni_config.schema.document import Document

H100 = gpus()["h100"]
#: How a certain H100 really is: slower products, faster attention, slow collectives.
TRUE = replace(
    H100,
    learned={name: (v, v, v) for name, v in {"matmul_hopper": 0.5, "attention_hopper": 0.6, "nvlink": 0.5}.items()},
)


def plan(pixels: int = 1024, model: str = "Qwen/Qwen-Image", **parallel: int) -> Plan:
    card, engine = catalog().model(model), catalog().engine("native")
    assert card
    assert engine
    sampling = {"prompt": "a red star", "negative_prompt": "", "width": pixels, "height": pixels}
    document = {"version": 1, "model": model, "parallel": parallel, "sampling": sampling}
    found = resolve(Document.model_validate(document), target_of(card, engine)).plan
    assert found
    return found


PLANS = [
    plan(),
    plan(2048),
    plan(512),
    plan(ulysses_degree=4),
    plan(2048, ulysses_degree=2),
    plan(2048, cfg_parallel_size=2),
    plan(1536, tensor_parallel_size=2),
    plan(1536, tensor_parallel_size=4),
]


def runs_of(plans: list[Plan], gpu: Gpu, noise: float = 0.02, seed: int = 1) -> list[Run]:
    chance, result = random.Random(seed), []
    for number, one in enumerate(plans):
        q = quantities_of(one)
        assert q is not None
        result.append(Run(f"run {number}", q, step_seconds(q, gpu) * chance.lognormvariate(0, noise)))
    return result


def test_a_plan_means_the_quantities_that_it_was_made_of() -> None:
    q = quantities_of(plan(2048, ulysses_degree=2, cfg_parallel_size=2))
    assert q is not None
    assert (q["world_size"], q["cfg_branches"], q["width"], q["dtype"]) == (4, 2, 2048, "bfloat16")
    assert quantities_of(replace(plan(), model=replace(plan().model, id="no/such", source="no/such"))) is None


def test_runs_find_what_is_true_and_tell_of_plans_that_were_not_run() -> None:
    learned = fit(runs_of(PLANS, TRUE), H100).gpu
    found = learned.efficiencies()
    for name in ("matmul_hopper", "attention_hopper"):
        assert abs(log(found[name] / TRUE.efficiencies()[name])) < 0.5 * abs(
            log(H100.efficiencies()[name] / TRUE.efficiencies()[name])
        )
    others = [plan(1280), plan(1792, ulysses_degree=2, cfg_parallel_size=2), plan(1024, "Tongyi-MAI/Z-Image")]
    inside = 0
    for run in runs_of(others, TRUE):
        q = run.quantities
        assert step_seconds(q, learned) == pytest.approx(run.step_seconds, rel=0.1)
        low, high = (step_seconds(q, learned, learned.efficiencies(end)) for end in ("best", "worst"))
        sheet = [step_seconds(q, H100, H100.efficiencies(end)) for end in ("best", "worst")]
        inside += low <= run.step_seconds <= high
        assert high / low < sheet[1] / sheet[0]
    assert inside == len(others)


def test_without_a_run_that_depends_on_it_an_efficiency_stays() -> None:
    learned = fit(runs_of([plan()], TRUE), H100)
    assert "nvlink" not in learned.gpu.learned
    assert learned.gpu.efficiencies()["decode"] == H100.efficiencies()["decode"]
    (moved,) = learned.moved
    assert abs(moved.after / moved.run.step_seconds - 1) < abs(moved.before / moved.run.step_seconds - 1)
    assert "matmul_hopper" in moved.efficiencies


def test_one_run_far_off_does_not_move_what_is_certain_beyond_reason() -> None:
    run, *_ = runs_of([plan()], H100, noise=0)
    learned = fit([replace(run, step_seconds=run.step_seconds * 1.02)], H100).gpu
    for name, value in learned.efficiencies().items():
        assert H100.efficiencies()[name] == 0 or 0.9 < value / H100.efficiencies()[name] < 1.1


def report(of: Plan, seconds: float, **changes: Any) -> dict[str, Any]:
    values = {"version": 3, "plan": of.to_dict(), "step_seconds": seconds, "decode_seconds": 0.0, "steps_cached": 0}
    return values | changes


def test_files_of_a_folder_are_read_and_others_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "report.json").write_text(json.dumps(report(plan(), 0.3)))
    series = {"name": "config", "plan": plan(512).to_dict(), "step_seconds": [0.1, 0.3, 0.2]}
    (tmp_path / "bench.json").write_text(json.dumps({"config": series, "against": series, "ratios": {}}))
    (tmp_path / "other.json").write_text("[1, 2]")
    (tmp_path / "broken.json").write_text('{"step_seconds": 1, "plan": {"version": 1}}')
    found = runs_in(tmp_path)
    assert [run.step_seconds for run in found.runs] == [0.3, 0.2, 0.2]
    (refused,) = found.refused  # broken.json is one of ours, of another version; other.json is nobody's
    assert refused.startswith(f"{tmp_path / 'broken.json'}: ")
    with pytest.raises(ValueError, match=r"neither a report.json, nor"):
        runs_in(tmp_path / "other.json")
    with pytest.raises(ValueError, match="no such file or folder"):
        runs_in(tmp_path / "none")


def test_the_command_shows_what_each_run_changed(tmp_path: Path) -> None:
    for number, (one, run) in enumerate(zip(PLANS, runs_of(PLANS, TRUE), strict=True)):
        (tmp_path / f"{number}.json").write_text(json.dumps(report(one, run.step_seconds)))
    words = [
        "suggest",
        "--model",
        "Qwen/Qwen-Image",
        "--gpus",
        "4",
        "--gpu",
        "h100",
        "--negative-prompt",
        "",
        "--lossless",
    ]
    before = json.loads(CliRunner().invoke(app(["suggest"]), [*words, "--json"]).stdout)
    result = CliRunner().invoke(app(["suggest"]), [*words, "--from", str(tmp_path), "--json"])
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert len(found["runs"]) == len(PLANS)
    assert found["runs"][0]["efficiencies"]["matmul_hopper"]["after"] < 0.62
    widths = [one["plans"][0]["estimate"]["seconds"] for one in (before, found)]
    assert widths[1]["high"] / widths[1]["low"] < widths[0]["high"] / widths[0]["low"]
    shown = CliRunner().invoke(app(["suggest"]), [*words, "--from", str(tmp_path)], env={"COLUMNS": "200"})
    assert "8 runs, after the datasheet" in shown.stdout
    assert "matmul_hopper 0.65 to" in shown.stdout
    wrong = CliRunner().invoke(app(["suggest"]), [*words, "--from", str(tmp_path / "none")])
    assert (wrong.exit_code, "no such file or folder" in wrong.stderr) == (2, True)
