"""Every offline command of the guide can be typed after ``omni launch``, with its own flags and no file at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from omni_config.cli import app
from omni_config.plan import Plan

runner = CliRunner()
IMAGE = "--model Qwen/Qwen-Image --prompt landscape"
EDIT = "--model Qwen/Qwen-Image-Edit --prompt sunset --negative-prompt blurry --image input.png"

#: Each command with what its Plan must say.
COMMANDS = {
    "TeaCache + Ulysses-SP": (
        f"{IMAGE} --cache-backend tea_cache --ulysses-degree 2",
        {"mesh.ulysses": 2, "cache.backend": "tea_cache"},
    ),
    "Cache-DiT + Ring-Attention": (
        f"{IMAGE} --cache-backend cache_dit --ring-degree 2",
        {"mesh.ring": 2, "cache.backend": "cache_dit"},
    ),
    "Cache + CFG-Parallel": (
        f"{EDIT} --cache-backend cache_dit --cfg-parallel-size 2 --cfg-scale 4.0",
        {"mesh.cfg": 2, "cache.backend": "cache_dit", "sampling.guidance": {"true_cfg_scale": 4.0}},
    ),
    "CFG-Parallel + Ulysses-SP": (
        f"{EDIT} --cache-backend cache_dit --cfg-parallel-size 2 --ulysses-degree 2 --cfg-scale 4.0",
        {"mesh.cfg": 2, "mesh.ulysses": 2},
    ),
    "Hybrid Ulysses + Ring + VAE tiling": (
        f"{IMAGE} --cache-backend cache_dit --ulysses-degree 2 --ring-degree 2 --num-inference-steps 50 --width 2048 "
        "--height 2048 --vae-use-tiling",
        {"mesh.ulysses": 2, "mesh.ring": 2, "vae.use_tiling": True, "sampling.width": 2048},
    ),
    "Cache + Tensor Parallelism": (
        "--model Tongyi-MAI/Z-Image-Turbo --prompt cat --cache-backend tea_cache --tensor-parallel-size 2 "
        "--num-inference-steps 9",
        {"mesh.tensor": 2, "cache.backend": "tea_cache", "sampling.num_inference_steps": 9},
    ),
    "short forms, with a JSON of cache parameters": (
        f"{IMAGE} --cache-backend tea_cache --cache-config {json.dumps({'rel_l1_thresh': 0.3})!r} --usp 2 --ring 2",
        {"mesh.ulysses": 2, "mesh.ring": 2, "cache.rel_l1_thresh": 0.3},
    ),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_of_the_guide_makes_its_plan(name: str) -> None:
    import shlex

    command, expected = COMMANDS[name]
    result = runner.invoke(app(), ["plan", "--json", "--engine", "vllm-omni", *shlex.split(command)])
    assert result.exit_code == 0, result.stderr
    plan = json.loads(result.stdout)
    for path, value in expected.items():
        found = plan
        for part in path.split("."):
            found = found[part]
        assert found == value, path


@pytest.mark.parametrize("name", COMMANDS)
def test_a_dry_run_prints_the_torchrun_command_and_keeps_the_plan(name: str, tmp_path: Path) -> None:
    import shlex

    output = ["--output", str(tmp_path)]
    result = runner.invoke(app(), ["launch", "--dry-run", *shlex.split(COMMANDS[name][0]), *output])
    assert result.exit_code == 0, result.stderr
    plan = Plan.from_json((tmp_path / "plan.json").read_bytes())
    words = shlex.split(result.stdout)
    assert words[words.index("--nproc-per-node") + 1] == str(plan.mesh.world_size)
    assert str(tmp_path / "plan.json") in words


def test_a_pipeline_that_the_runtime_does_not_run_is_a_finding() -> None:
    result = runner.invoke(app(), ["launch", "--dry-run", "--model", "stabilityai/stable-audio-open-1.0"])
    assert result.exit_code == 1
    assert "OMNI513" in result.stderr


def test_launch_prints_the_command_of_an_engine_that_is_not_installed() -> None:
    command = ["launch", "--engine", "vllm-omni", "--model", "Qwen/Qwen-Image", "--usp", "2"]
    result = runner.invoke(app(), command)
    assert result.exit_code == 1
    assert result.stdout == "vllm serve Qwen/Qwen-Image --omni \\\n  --usp 2\n"
    assert "vllm-omni is not installed here" in result.stderr
    assert runner.invoke(app(), [*command, "--dry-run"]).exit_code == 0


def test_launch_starts_the_engine_that_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "sglang"
    program.write_text(f'#!/bin/sh\necho "$SGLANG_CACHE_DIT_ENABLED $*" > {tmp_path}/said\nexit 3\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    command = ["launch", "--engine", "sglang", "--model", "Qwen/Qwen-Image", "--cache-backend", "cache_dit"]
    assert runner.invoke(app(), command).exit_code == 3
    assert (tmp_path / "said").read_text() == "true serve --model-path Qwen/Qwen-Image\n"


def test_launch_without_anything_says_what_it_needs() -> None:
    result = runner.invoke(app(), ["launch"])
    assert result.exit_code == 2
    assert "--model" in result.stderr
