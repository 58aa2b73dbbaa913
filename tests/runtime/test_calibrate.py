"""Calibration of TeaCache: the same points give the same polynomial, which predicts better than the input itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cases import tiny

from runtime import calibrate
from runtime.measure.calibrate import fit

ROOT = Path(__file__).parents[2]
CONFIG = """
version: 1
model: tiny
cache:
  tea_cache: true
sampling:
  num_inference_steps: 8
"""


def test_a_polynomial_is_found_again() -> None:
    true = [2.0, -1.0, 0.5, 1.5, 0.1]
    moved = np.linspace(0.05, 0.9, 30)
    found = fit(tiny(), ["a"], list(zip(moved.tolist(), np.polyval(true, moved).tolist(), strict=True)))
    assert found.coefficients == pytest.approx(true, abs=1e-8)
    assert found.fit_error < 1e-9 < found.identity_error
    assert found.lowest == pytest.approx(np.polyval(true, 0.05))


def test_two_runs_of_the_command_are_equal_and_beat_the_identity(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "prompts.txt").write_text("a red star\n\na blue circle on a black background\n")
    line = [sys.executable, "-m", "omni_config", "calibrate", "teacache", "config.yaml", "--prompts", "prompts.txt"]
    runs = [
        json.loads(subprocess.check_output([*line, "--json", "--out", f"{run}.yaml"], cwd=tmp_path, timeout=300))
        for run in "ab"
    ]
    assert runs[0] == runs[1]
    assert len(runs[0]["points"]) == 2 * 7  # two prompts, and each step but the first
    assert runs[0]["fit_error"] < 0.9 * runs[0]["identity_error"]
    text = (tmp_path / "a.yaml").read_text()
    (tmp_path / "config.yaml").write_text(CONFIG.replace("cache:\n  tea_cache: true\n", text))
    assert "coefficients: [" in text
    moved = [before for before, _ in runs[0]["points"]]
    assert f"lowest: {min(moved):.3g}, highest: {max(moved):.3g}}}" in text
    subprocess.check_call([sys.executable, "-m", "omni_config", "check", "config.yaml"], cwd=tmp_path)


def test_what_cannot_be_calibrated() -> None:
    with pytest.raises(ValueError, match="too few steps for a fit"):
        calibrate(tiny(), ["a"])
