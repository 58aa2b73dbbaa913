"""Launches that work: files, report, progress, and independence of the working directory."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from cases import DBCACHE
from PIL import Image

from omni_config.plan import Mesh, Plan, Vae
from runtime import LaunchError, Progress, Report, command, launch
from runtime.errors import CannotRunError
from runtime.events import Rank
from runtime.launcher import torchrun
from runtime.pipeline import load


def test_importing_the_runtime_loads_neither_torch_nor_diffusers() -> None:
    code = "import runtime, sys; print(sorted({'torch', 'diffusers', 'cache_dit', 'numpy'} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_a_picture_a_report_and_traces(plan: Plan, processes, run_folders: Path) -> None:
    plan = replace(plan, cache=DBCACHE, vae=Vae(True, True, 1))
    seen: list[Progress] = []
    report = launch(plan, timeout=120, on_progress=seen.append, profile=True)

    folder = Path(plan.output)
    assert sorted(path.name for path in folder.iterdir()) == [
        "a-red-star-on-a-white-background-7.png",
        "report.json",
        "trace-rank0.json.gz",
        "trace-rank1.json.gz",
    ]
    for rank in range(2):
        with gzip.open(folder / f"trace-rank{rank}.json.gz") as file:
            names = [event["name"] for event in json.load(file)["traceEvents"] if "name" in event]
        assert {name for name in names if name.startswith("ProfilerStep#")} == {f"ProfilerStep#{n}" for n in (2, 3, 4)}
        assert any("generate.py" in name and "after_step" in name for name in names)
    assert Image.open(report.images[0]).size == (64, 64)
    assert Report.from_json((folder / "report.json").read_bytes()) == report
    assert report.plan == plan.to_dict()
    assert report.steps_computed + report.steps_cached == 8
    assert report.steps_cached == len(report.features["cache_dit"]["cached_steps"])
    assert len(report.peak_memory) == 2
    assert min(report.peak_memory) > 50
    assert 0 < report.step_seconds < report.seconds
    assert 0 < report.load_seconds < report.seconds
    assert report.versions["diffusers"] == "0.42.1"
    vae = {"tiling": True, "slicing": True, "decoder_calls": 1, "most_pictures_a_call": 1}
    assert report.features["vae"] == vae

    phases = list(dict.fromkeys(progress.phase for progress in seen))
    assert phases == ["starting", "loading", "denoising", "decoding", "saving", "done"]
    steps = [(progress.step, progress.steps) for progress in seen if progress.phase == "denoising"]
    assert steps == [(step, 8) for step in range(9)]
    assert processes() == []
    assert list(run_folders.glob("omni-*")) + list(run_folders.glob("torchelastic*")) == []


def test_ranks_keep_bytecode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    worker = tmp_path / "worker.py"
    worker.write_text("import os, sys; print(sys.dont_write_bytecode, 'PYTHONDONTWRITEBYTECODE' in os.environ)")
    with torchrun.run_folder() as run:
        line = torchrun.command(1, "any", [str(run)], worker=worker)
        log, ranks = run / torchrun.LOG, [Rank(run, 0)]
        with pytest.raises(LaunchError) as caught:
            torchrun.run(line, run, ranks, timeout=60, log=log, on_progress=lambda *_: None)
    assert caught.value.cause.endswith("torchrun ended with 0: False False")


def test_folders_with_our_names_do_not_shadow_ours(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("runtime", "omni_config", "matrix"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise ImportError('the {name} of the user')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    report = launch(replace(plan, mesh=Mesh(), output="here"), timeout=120)
    assert (tmp_path / report.images[0]).is_file()
    assert (tmp_path / "here" / "report.json").is_file()


def test_the_printed_command_runs_by_itself(plan: Plan, tmp_path: Path) -> None:
    plan = replace(plan, mesh=Mesh())
    plan_file = tmp_path / "plan.json"
    plan_file.write_text(json.dumps(plan.to_dict()))
    line = command(plan, plan_file)
    assert line[0] == sys.executable
    assert line[line.index("--nproc-per-node") + 1] == "1"
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert [path.suffix for path in Path(plan.output).iterdir()] == [".png"]


def test_a_plan_that_cannot_run_says_why(plan: Plan) -> None:
    model = replace(plan.model, pipeline="QwenImagePipeline")
    with pytest.raises(LaunchError, match="holds a ZImagePipeline") as caught:
        launch(replace(plan, mesh=Mesh(), model=model), timeout=120)
    assert caught.value.rank == 0
    assert caught.value.exit_code == 1
    assert "\n" not in str(caught.value)


def test_what_is_not_a_checkpoint(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CannotRunError, match="is not a diffusers folder"):
        load.pipeline(replace(plan, model=replace(plan.model, source=str(tmp_path))))
    (tmp_path / "model_index.json").write_text("{")
    with pytest.raises(CannotRunError, match="is not a diffusers folder"):
        load.pipeline(replace(plan, model=replace(plan.model, source=str(tmp_path))))
    # What a hub that does not answer comes to, without its 20 s of retries.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CannotRunError, match="some/model is no local folder, and the hub could not give it"):
        load.pipeline(replace(plan, model=replace(plan.model, source="some/model")))
