"""``omni import``, ``omni export`` and ``omni diff``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from omni_config.cli import app

runner = CliRunner()

CONFIG = """\
version: 1
model: Qwen/Qwen-Image
engine: vllm-omni
hardware: {gpus: 4, memory: 80}
parallel: {ulysses_degree: 2, cfg_parallel_size: 2}
cache: {cache_dit: {Fn_compute_blocks: 2}}
lora: [{path: a.safetensors, scale: 0.5}]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text(CONFIG)
    return tmp_path


def test_import_prints_what_a_script_says_and_names_what_it_passes_by(folder: Path) -> None:
    Path("run.sh").write_text(
        "vllm serve Qwen/Qwen-Image --omni --usp 2 --port 1 --boundary-ratio 0.9 --log-stats --api-key 7\n"
    )
    result = runner.invoke(app(), ["import", "run.sh"])
    assert result.exit_code == 0
    assert yaml.safe_load(result.stdout) == {
        "version": 1,
        "model": "Qwen/Qwen-Image",
        "engine": "vllm-omni==0.30",
        "parallel": {"ulysses_degree": 2},
        "server": {"port": 1, "api_key": "7"},
    }
    assert "run.sh:1:52: OMNI605 [advice] not judged: --boundary-ratio" in result.stderr
    assert "omni: left out, as no setting stands for them: --log-stats\n" in result.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("echo hello\n", "no command or file of an engine is in it"),
        (CONFIG, "is a config of ours already"),
        ("parallelism_config: {ulysses_size: 2}\n", "names no model; next: --model MODEL"),
        ("stage_args:\n- {stage_id: 0, stage_type: llm}\n", "has no diffusion stage"),
    ],
)
def test_import_says_why_it_cannot(folder: Path, text: str, message: str) -> None:
    Path("file").write_text(text)
    result = runner.invoke(app(), ["import", "file"])
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_config_goes_to_another_engine_in_its_own_words(folder: Path) -> None:
    result = runner.invoke(app(), ["export", "--to", "vllm-omni", "a.yaml"])
    assert result.exit_code == 0
    words = "vllm serve Qwen/Qwen-Image --omni --usp 2 --cfg-parallel-size 2 --cache-backend cache_dit"
    config = "--cache-config '{\"Fn_compute_blocks\": 2}' --lora-path a.safetensors --lora-scale 0.5"
    assert " ".join(result.stdout.replace("\\\n", " ").split()) == f"{words} {config}"


@pytest.mark.parametrize(
    ("engine", "refused"),
    [
        ("sglang", "OMNI503 [error] sglang==0.5.23 has no lora like this"),
        ("xdit", "OMNI503 [error] CFG-Parallel"),
        ("cache-dit", "CFG-Parallel"),
    ],
)
def test_an_export_refuses_what_the_engine_cannot_do(folder: Path, engine: str, refused: str) -> None:
    result = runner.invoke(app(), ["export", "--to", engine, "a.yaml"])
    assert result.exit_code == 1
    assert result.stdout == ""
    assert refused in result.stderr


def test_an_export_leaves_no_setting_out(folder: Path) -> None:
    Path("a.yaml").write_text(CONFIG.replace("cache: {cache_dit: {Fn_compute_blocks: 2}}\n", ""))
    result = runner.invoke(app(), ["export", "--to", "sglang", "a.yaml"])
    assert result.exit_code == 1
    assert "OMNI503 [error] sglang==0.5.23 has no lora like this" in result.stderr
    assert runner.invoke(app(), ["export", "--to", "torch", "a.yaml"]).exit_code == 2


@pytest.mark.parametrize(
    ("old", "new", "lost"),
    [
        ("cache: {cache_dit: {Fn_compute_blocks: 2}}\n", "", []),
        ("memory: 80", "memory: 40", ["runs: yes to no", "fits: yes to no", "OMNI801"]),
        ("gpus: 4", "gpus: 2", ["runs: yes to no", "OMNI101"]),
    ],
)
def test_diff_says_which_guarantee_is_lost(folder: Path, old: str, new: str, lost: list[str]) -> None:
    Path("b.yaml").write_text(CONFIG.replace(old, new))
    result = runner.invoke(app(), ["diff", "--json", "a.yaml", "b.yaml"])
    said = json.loads(result.stdout)[0]["lost"]
    assert len(said) == len(lost)
    assert all(found.startswith(expected) for found, expected in zip(said, lost, strict=True))
    assert result.exit_code == (1 if lost else 0)
    if not new:  # the way back is the loss
        back = runner.invoke(app(), ["diff", "b.yaml", "a.yaml"])
        assert back.exit_code == 1
        assert "quality         lossless -> lossy" in back.stdout
        assert "Lost: quality: lossless to lossy" in back.stdout


def test_diff_of_equal_configs_is_empty(folder: Path) -> None:
    result = runner.invoke(app(), ["diff", "a.yaml", "a.yaml"])
    assert (result.exit_code, result.stdout.strip()) == (0, "Nothing changes.")


def test_diff_says_what_an_upgrade_of_the_engine_changes(folder: Path) -> None:
    Path("a.yaml").write_text(CONFIG.replace("gpus: 4", "gpus: 8"))
    command = ["diff", "--engine", "vllm-omni", "--engine", "vllm-omni==0.30", "a.yaml"]
    result = runner.invoke(app(), [*command, "--json"])
    (difference,) = json.loads(result.stdout)
    assert [finding["code"] for finding in difference["disappeared"]] == ["OMNI101", "OMNI601"]
    assert [finding["code"] for finding in difference["appeared"]] == ["OMNI121"]
    assert "(changed: vLLM-Omni 0.30" in runner.invoke(app(), command).stdout


@pytest.mark.parametrize("command", [["a.yaml"], ["a.yaml", "a.yaml", "--engine", "native"], ["a.yaml", "none.yaml"]])
def test_diff_that_cannot_be_made_ends_in_two(folder: Path, command: list[str]) -> None:
    assert runner.invoke(app(), ["diff", *command]).exit_code == 2
