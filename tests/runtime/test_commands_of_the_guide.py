"""The offline commands of the guide run as they stand: only the model is another, small enough for this machine.

They can be typed after ``omni launch``. Commands of other pages, with flags that only their own program has, are files
that ``omni launch`` takes; they run where OMNI_EVERY_COMMAND is set.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

import omni_config
from omni_config.cli import app
from omni_config.plan import Plan
from runtime.proof import batch

pytestmark = pytest.mark.timeout(900)
TABLE = Path(omni_config.__file__).parent / "engines" / "vllm_omni" / "examples.yaml"
GUIDE = "user guide, feature compatibility"
#: What stands in for a model; "large" ones make large images of few tokens.
SMALL = {
    "Qwen/Qwen-Image": "large_qwen_image",
    "Qwen/Qwen-Image-Edit": "large_qwen_image_edit",
    "Tongyi-MAI/Z-Image-Turbo": "large_z_image",
}
EMBEDDED = {"Qwen/Qwen-Image": "tiny-qwen", "Tongyi-MAI/Z-Image-Turbo": "tiny"}


def documented() -> dict[str, dict[str, Any]]:
    """The commands of documentation pages that make images without a server, of models that the runtime has."""
    entries = [
        entry
        for entry in yaml.safe_load(TABLE.read_text())
        if "python " in entry["text"]
        and "docs" in entry["source"]
        and entry["understood"]["model"] in SMALL
        and "passed_by" not in entry
    ]
    if not os.environ.get("OMNI_EVERY_COMMAND"):
        entries = [one for one in entries if GUIDE in one["source"]]
    return {f"{number} {' '.join([*entry['understood']][2:])}": entry for number, entry in enumerate(entries)}


COMMANDS = documented()


def words(entry: dict[str, Any], folder: Path) -> list[str]:
    """What is typed after ``omni launch``."""
    model = entry["understood"]["model"]
    embedded = model in EMBEDDED and "width" not in entry["understood"]
    small = EMBEDDED[model] if embedded else str(_build(SMALL[model], folder))
    if GUIDE in entry["source"]:
        typed = shlex.split(entry["text"])
        typed[typed.index("--model") + 1] = small
        return typed[2:]  # after: python examples/...py
    file = folder / "command.sh"
    file.write_text(entry["text"])
    return [str(file), "--model", small, "--engine", "native"]


@cache
def _build(family: str, folder: Path) -> Path:
    return models.build(family, folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands find their input images."""
    folder = tmp_path_factory.mktemp("guide")
    for name in ("input.png", "path/to/input/image.jpg", "qwen_bear.png", "qwen-bear.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((96, 64), 80).convert("RGB").save(folder / name)
    return folder


@pytest.fixture(scope="module")
def plans(folder: Path) -> dict[str, Plan]:
    """What ``omni launch`` would start."""
    plans = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, entry in COMMANDS.items():
            typed = words(entry, folder)
            result = CliRunner().invoke(app(), ["launch", "--dry-run", *typed])
            assert result.exit_code == 0, (typed, result.stderr)
            started = shlex.split(result.stdout)
            plans[name] = Plan.from_json((folder / started[-1]).read_bytes())
            assert started[started.index("--nproc-per-node") + 1] == str(plans[name].mesh.world_size)
    return plans


@pytest.fixture(scope="module")
def outcomes(plans: dict[str, Plan], folder: Path) -> dict[str, batch.Outcome]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("OMP_NUM_THREADS", "1")
        return batch.run({name: batch.Case(plan) for name, plan in plans.items()}, timeout=600)


def test_the_six_of_the_guide_are_among_them() -> None:
    assert len([entry for entry in COMMANDS.values() if GUIDE in entry["source"]]) == 6


@pytest.mark.parametrize("name", COMMANDS)
def test_it_makes_its_image(outcomes: dict[str, batch.Outcome], plans: dict[str, Plan], name: str) -> None:
    outcome, plan, said = outcomes[name], plans[name], COMMANDS[name]["understood"]
    assert outcome.error is None, f"{outcome.error}\n{outcome.traceback}"
    degrees = ("ulysses_degree", "ring_degree", "cfg_parallel_size", "tensor_parallel_size")
    assert len(outcome.ranks) == plan.mesh.world_size == np.prod([said.get(degree, 1) for degree in degrees])
    image = outcome.arrays[0]["image"]
    assert image.shape == (1, plan.sampling.height, plan.sampling.width, 3)
    assert {said.get("width", plan.sampling.width), said.get("height", plan.sampling.height)} == set(image.shape[1:3])
    assert image.std() > 1
    for rank in outcome.arrays[1:]:
        assert np.abs(rank["latents"] - outcome.arrays[0]["latents"]).max() <= 1e-4
    features = outcome.ranks[0].features
    for backend in ("tea_cache", "cache_dit"):
        assert (backend in features) == said.get(backend, False)
    steps = outcome.ranks[0].steps_computed + outcome.ranks[0].steps_cached
    assert steps == plan.sampling.num_inference_steps == said.get("num_inference_steps", steps)


def test_through_the_command_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    line = [sys.executable, "-m", "omni_config", "launch", *words(next(iter(COMMANDS.values())), folder), "--json"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert len(report["peak_memory"]) == 2
    with Image.open(report["images"][0]) as image:
        assert image.size == (64, 64)
