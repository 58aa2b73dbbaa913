"""The acceptance on GPUs (tests/gpu), rehearsed without one: its cases run, and one that fails stops no other."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

from omni_config.catalog.load import catalog
from omni_config.estimate.data import decoders

FOLDER = Path(__file__).parents[1] / "gpu"
#: Cases end as their names say; a later start goes on behind the last one that has begun.
FAKE = """
import json, sys, time
_, rows, _, *names = sys.argv[1:]
def tell(**words):
    with open(rows, "a") as file:
        file.write(json.dumps(words) + "\\n")
for name in names:
    tell(begin=name)
    if name == "dies":
        sys.exit(3)
    if name == "hangs":
        time.sleep(60)
    if name == "fails":
        tell(end=name, error="ValueError: no")
        sys.exit(1)
    tell(end=name, features={}, psnr=200.0)
"""


def loaded(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"gpu_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def acceptance(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setitem(sys.modules, "cases", loaded("cases"))  # not that of tests/runtime
    return loaded("__main__")


def test_tiny_pipelines_run_without_a_gpu_and_are_a_table(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    words = [
        "--model",
        "flux",
        "--json",
        str(file),
        *(word for name in ("plain", "TeaCache") for word in ("--case", name)),
    ]
    line = [sys.executable, str(FOLDER), "--tiny", *words]
    done = subprocess.run(line, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(file.read_text())
    assert json.loads(done.stdout.splitlines()[-1]) == result
    assert [(row["model"], row["case"]) for row in result["rows"]] == [("flux", "plain"), ("flux", "TeaCache")]
    assert all(row["result"].startswith("runs") for row in result["rows"]), result["rows"]
    assert result["rows"][0]["psnr"] > 60
    assert "| flux | TeaCache |" in done.stdout


def test_a_case_that_fails_dies_or_hangs_is_a_row_and_the_others_go_on(
    acceptance: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "worker.py").write_text(FAKE)
    monkeypatch.setattr(acceptance, "HERE", tmp_path)
    names = ("first", "fails", "dies", "hangs", "last")
    cases = [acceptance.Case(name, limit=1.0 if name == "hangs" else 30.0) for name in names]
    rows = [*acceptance.run("flux", cases, time.monotonic() + 60, tiny=True)]
    assert {row["case"]: row["result"] for row in rows} == {
        "first": "runs",
        "fails": "failed: ValueError: no",
        "dies": "failed: exit code 3",
        "hangs": "failed: more than 1 s",
        "last": "runs",
    }


@pytest.mark.parametrize("name", ["flux", "wan", "z-image", "qwen-image"])
def test_the_pipelines_have_the_dimensions_of_the_published_models(name: str) -> None:
    import torch

    models = loaded("models")
    subject = models.SUBJECTS[name]
    with models._made_on(torch.device("meta"), torch.bfloat16):
        pipe = subject.build()
    millions = {
        part: sum(weight.numel() for weight in module.parameters()) / 1e6
        for part, module in pipe.components.items()
        if isinstance(module, torch.nn.Module)
    }
    card = catalog().model(subject.card)
    encoders = sum(count for part, count in millions.items() if part.startswith("text_encoder"))
    assert millions["transformer"] == pytest.approx(card.dims["transformer_parameters"], rel=0.002)
    assert encoders == pytest.approx(card.dims["text_encoder_parameters"], rel=0.01)
    assert millions["vae"] == pytest.approx(decoders()[card.vae].parameters, rel=0.01)


def test_where_no_time_is_left_the_rest_is_not_run(acceptance: ModuleType) -> None:
    rows = [*acceptance.run("flux", [acceptance.Case("one")], time.monotonic() - 1, tiny=True)]
    assert [row["result"] for row in rows] == ["not run: no time left"]


def test_a_missed_goal_stands_in_the_row(acceptance: ModuleType) -> None:
    told = {"against": 1.03, "gib": 10.0, "estimated_gib": 12.0, "seconds": 4.0, "estimated_seconds": 4.4}
    told |= {"psnr": 12.0, "features": {"tea_cache": {"cached_steps": [3, 5]}}}
    assert acceptance.judged(acceptance.Case("plain"), told, tiny=False) == (
        "runs, 2 steps reused; misses: latents are 12 dB from those of the plain pipeline, "
        "a step takes 1.030 of plain diffusers', memory estimated +20%"
    )
    assert acceptance.judged(acceptance.Case("plain", exact=False), told, tiny=True) == "runs, 2 steps reused"
