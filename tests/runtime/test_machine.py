"""``omni calibrate machine``: two ranks measure each other, and what they write is a machine that commands take."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from cases import tiny
from typer.testing import CliRunner

from omni_config.cli import app
from omni_config.estimate.data import gpus
from omni_config.estimate.machine import gpu_of, machine_of, text_of
from omni_config.planner.fit import step_seconds
from omni_config.planner.runs import quantities_of
from runtime.measure.machine import Shape, _known, measure

EMBEDDED = tiny()
EMBEDDED = replace(
    EMBEDDED,
    sampling=replace(
        EMBEDDED.sampling,
        negative_prompt=None,
        guidance={"guidance_scale": 0.0},
        guidance_branches=1,
        width=32,
        height=32,
    ),
)


@pytest.mark.timeout(900)
def test_two_ranks_measure_a_machine_that_estimates_plans(tmp_path: Path) -> None:
    seen: list[str] = []
    shape = Shape(hidden=32, ffn=64, heads=2, head_size=16)
    found = measure(
        2, [shape], EMBEDDED, tokens=(16, 64), seconds=0.5, timeout=300, on_progress=lambda name, *_: seen.append(name)
    )
    assert {"rates", "calls"} <= set(seen)
    assert found.device == "cpu"
    assert {(one.rows, one.inputs, one.outputs) for one in found.matmul} == {
        (rows, 32, outputs) for rows in (16, 64) for outputs in (32, 64)
    }
    assert {(one.tokens, one.heads) for one in found.attention} == {(16, 1), (16, 2), (64, 1), (64, 2)}
    assert {one.kind for one in found.collectives} == {"all-to-all", "ring", "all-reduce", "all-gather"}
    assert all(one.ranks == 2 and len(one.bytes) == len(one.seconds) == 5 for one in found.collectives)
    assert set(found.block) == {"alone", "ulysses", "ring", "tensor"}
    assert list(found.links) == ["memory"]
    assert found.made
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", found.made.date)
    assert "torch" in found.made.versions
    path = tmp_path / "machine.yaml"
    path.write_text(text_of(found))
    again, ours = machine_of(path), gpu_of(found)
    q = quantities_of(EMBEDDED)
    assert q is not None
    assert step_seconds(q, again) == pytest.approx(step_seconds(q, ours))
    config = tmp_path / "config.yaml"
    config.write_text(f"version: 1\nmodel: tiny\nhardware: {{machine: {path}}}\n")
    subprocess.check_call([sys.executable, "-m", "omni_config", "check", str(config)])


def test_a_gpu_is_known_by_the_name_of_its_driver_and_its_memory() -> None:
    assert _known({"name": "NVIDIA H200", "memory": 139.8}) == "h200"
    assert _known({"name": "NVIDIA A100-SXM4-80GB", "memory": 79.1}) == "a100"
    assert _known({"name": "NVIDIA A100-SXM4-40GB", "memory": 39.4}) == "a100-40gb"
    assert _known({"name": "NVIDIA GeForce RTX 4090", "memory": gpus()["rtx-4090"].memory}) == "rtx-4090"
    assert _known({"name": "Some other GPU", "memory": 24}) is None


def test_options_of_the_other_calibration_are_refused(tmp_path: Path) -> None:
    runner = CliRunner()
    result = runner.invoke(app(["calibrate"]), ["calibrate", "machine", "--prompts", "x.txt"])
    assert (result.exit_code, "--prompts is for teacache" in result.stderr) == (2, True)
    result = runner.invoke(app(["calibrate"]), ["calibrate", "teacache", "--model", "tiny", "--ranks", "2"])
    assert (result.exit_code, "--ranks and --seconds are for machine" in result.stderr) == (2, True)
