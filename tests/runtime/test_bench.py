"""Benchmarks: real launches of steps that only wait for each other, in turn; and the arithmetic of their ratio."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest
from conftest import HOOKED_WORKER
from typer.testing import CliRunner

from omni_config.cli import app
from runtime import launch
from runtime.measure import bench
from runtime.measure.bench import Ratio, Series, ratio

ROOT = Path(__file__).parents[2]


def test_a_ratio_is_of_neighbours() -> None:
    a = Series("a", {}, (1.0, 2.0, 10.0), (1.0, 1.0, 1.0), (1.0, 1.0, 1.0))
    b = Series("b", {}, (2.0, 3.0, 25.0), (1.0, 1.0, 1.0), (1.0, 1.0, 1.0))
    assert ratio(a, b, "step_seconds") == Ratio(2.0, 1.5, 2.5)
    assert a.medians["step_seconds"] == 2.0


def test_two_configs_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[int] = []

    def light(plan, **options):
        ran.append(plan.sampling.num_inference_steps)
        return launch(plan, worker=HOOKED_WORKER, **options)

    monkeypatch.setattr(bench, "launch", functools.wraps(launch)(light))
    monkeypatch.setenv("OMNI_TEST_HOOKS", json.dumps({"latents": str(tmp_path), "light": True}))
    quick = str(ROOT / "examples" / "quickstart.yaml")
    plot = tmp_path / "plot.svg"
    line = ["bench", quick, "--num-inference-steps", "6", "--against", quick, "--repeats", "1", "--plot", str(plot)]
    done = CliRunner().invoke(app(["bench", "plan"]), [*line, "--json"])
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert ran == [6, 20, 6, 20]  # to warm up, and once in turn
    assert len(result["config"]["seconds"]) == len(result["against"]["peak_memory"]) == 1
    assert result["config"]["medians"]["step_seconds"] >= 0.05  # what a light step waits
    assert 0.1 < result["ratios"]["seconds"]["median"] < 0.8  # 6 steps to 20
    assert plot.read_text().lstrip().startswith("<?xml")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.npy", "1.npy", "plot.svg"]


def test_a_plot_has_a_format() -> None:
    done = CliRunner().invoke(app(["bench", "plan"]), ["bench", "--model", "tiny", "--plot", "plot.txt"])
    assert done.exit_code == 2
    assert "plot.txt: a plot is a .png or .svg file" in done.output
