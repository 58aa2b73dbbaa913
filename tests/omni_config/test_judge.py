"""A config is judged alike by every command: accepted findings stay accepted, and a policy counts everywhere."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from omni_config.checking.document import from_flags, judge
from omni_config.checking.files import check_bytes, read_bytes
from omni_config.cli import app
from omni_config.schema.overrides import Override

runner = CliRunner()
CONFIG = """version: 1
model: Qwen/Qwen-Image
hardware: {gpus: 4}
parallel:
  ulysses_degree: 2  # omni: ignore[OMNI101]
"""
POLICY = """- code: ACME001
  name: seeded
  kind: requires
  needs: seed == 7
  fields: [seed]
  repairs: [{seed: 7}]
  message: the seed is not 7
  why: Results must be comparable.
  fix: set sampling.seed to 7
"""
COMMANDS = [
    "check a.yaml",
    "plan a.yaml",
    "plan a.yaml --seed 3",
    "launch a.yaml --dry-run",
    "launch a.yaml --dry-run --seed 3",
    "serve a.yaml --dry-run",
    "serve server.yaml --dry-run",
    "serve a.yaml --dry-run --seed 3",
    "export a.yaml --to vllm-omni",
    "diff a.yaml a.yaml",
    "diff a.yaml --engine native --engine vllm-omni",
    "calibrate teacache a.yaml",
    "bench a.yaml",
    "bench plain.yaml --against a.yaml",
    "prove a.yaml",
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Configs with an accepted error, with the same error, and without; commands end where a run would start."""
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text(CONFIG)
    Path("server.yaml").write_text(f"{CONFIG}server: {{port: 8091}}\n")
    Path("plain.yaml").write_text(CONFIG.replace("gpus: 4", "gpus: 2").replace("  # omni: ignore[OMNI101]", ""))
    Path("policy.yaml").write_text(POLICY)

    def started(command: str, plan: object) -> None:
        raise typer.Exit(0)

    for name in ("bench", "calibrate", "launch", "prove"):
        monkeypatch.setattr(f"omni_config.cli.{name}.require_startable", started)
    return tmp_path


def ends(command: str) -> int:
    return runner.invoke(app(), command.split()).exit_code


@pytest.mark.parametrize("command", COMMANDS)
def test_an_accepted_finding_is_accepted_by_every_command(folder: Path, command: str) -> None:
    assert ends(command) == 0


@pytest.mark.parametrize("command", [command for command in COMMANDS if not command.startswith("diff")])
def test_without_the_comment_every_command_refuses_it(folder: Path, command: str) -> None:
    for name in ("a.yaml", "server.yaml"):
        Path(name).write_text(Path(name).read_text().replace("  # omni: ignore[OMNI101]", ""))
    assert ends(command) == 1


def test_a_comment_accepts_nothing_that_a_flag_says(folder: Path) -> None:
    """A flag is on no line of the file, nor is a comment in its text one of the file."""
    Path("a.yaml").write_text("version: 1  # omni: ignore[OMNI101]\nmodel: Qwen/Qwen-Image\n")
    assert ends("plan a.yaml --gpus 4 --ulysses-degree 3") == 1
    flags = [Override(("model",), "Qwen/Qwen-Image", ("# omni: ignore[OMNI101]",)), *_gpus(4)]
    assert [finding.code for finding in judge(from_flags(flags)).findings] == ["OMNI101"]


def _gpus(count: int) -> list[Override]:
    return [Override(("hardware", "gpus"), count, ("--gpus", str(count)))]


def test_a_flag_that_repairs_what_a_comment_accepts_makes_no_warning(folder: Path) -> None:
    """The comment is needed where the file stands alone."""
    (document,) = read_bytes("a.yaml", CONFIG.encode())
    assert judge(document.overridden(_gpus(2))).findings == ()
    (unused,) = check_bytes("a.yaml", CONFIG.replace("gpus: 4", "gpus: 2").encode())
    assert [finding.code for finding in unused.findings] == ["OMNI907"]


@pytest.mark.parametrize(
    "command",
    [
        "check plain.yaml",
        "fix plain.yaml --diff",
        "plan plain.yaml",
        "launch plain.yaml --dry-run",
        "serve plain.yaml --dry-run",
        "export plain.yaml --to vllm-omni",
        "suggest plain.yaml --gpu h100",
        "diff seeded.yaml plain.yaml",
        "prove plain.yaml",
        "bench plain.yaml",
        "bench seeded.yaml --against plain.yaml",
        "calibrate teacache plain.yaml",
    ],
)
def test_a_policy_counts_in_every_command(folder: Path, command: str) -> None:
    Path("seeded.yaml").write_text(f"{Path('plain.yaml').read_text()}sampling: {{seed: 7}}\n")
    assert ends(f"{command} --rules policy.yaml") == 1
    assert ends(f"{command.replace('plain', 'seeded')} --rules policy.yaml") == 0
    assert ends(f"{command} --rules none.yaml") == 2


def test_a_suggestion_leaves_out_the_rule_of_an_accepted_finding(folder: Path) -> None:
    text = (
        Path("plain.yaml").read_text().replace("  ulysses_degree: 2\n", "  ulysses_degree: 2\nsampling:\n  seed: 3\n")
    )
    Path("a.yaml").write_text(text)
    assert ends("suggest a.yaml --gpu h100 --rules policy.yaml") == 1
    Path("a.yaml").write_text(text.replace("seed: 3", "seed: 3  # omni: ignore[ACME001]"))
    assert ends("suggest a.yaml --gpu h100 --rules policy.yaml") == 0


def test_an_error_that_appears_beside_another_is_a_lost_guarantee(folder: Path) -> None:
    Path("a.yaml").write_text(CONFIG.replace("  # omni: ignore[OMNI101]", "") + "cache: {tea_cache: true}\n")
    result = runner.invoke(app(), ["diff", "a.yaml", "--engine", "vllm-omni", "--engine", "xdit"])
    assert result.exit_code == 1
    assert "OMNI503 TeaCache is not supported" in result.stdout
    assert runner.invoke(app(), ["diff", "a.yaml", "--engine", "vllm-omni", "--engine", "vllm-omni"]).exit_code == 0


def test_a_setting_that_the_second_engine_ignores_is_a_lost_guarantee(folder: Path) -> None:
    Path("a.yaml").write_text("version: 1\nmodel: Qwen/Qwen-Image\nlora: [{path: a.safetensors, scale: 0.5}]\n")
    result = runner.invoke(app(), ["diff", "a.yaml", "--engine", "vllm-omni", "--engine", "sglang"])
    assert result.exit_code == 1
    assert "lora: sglang==0.5.23 has nothing like it and ignores it" in result.stdout


def test_a_setting_that_is_lowered_from_now_on_is_a_lost_guarantee(folder: Path) -> None:
    text = Path("plain.yaml").read_text()
    Path("old.yaml").write_text(f"{text}  vae_patch_parallel_size: 2\nvae: {{vae_use_tiling: true}}\n")
    Path("new.yaml").write_text(f"{text}  vae_patch_parallel_size: 4\nvae: {{vae_use_tiling: true}}\n")
    result = runner.invoke(app(), ["diff", "old.yaml", "new.yaml"])
    assert result.exit_code == 1
    assert "Lost: parallel.vae_patch_parallel_size: OMNI401" in result.stdout


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (
            "Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
            "OMNI503 [error] Step Execution is not supported for {}: it makes a batch in",
        ),
        ("Qwen/Qwen-Image-Edit", "OMNI503 [error] Step Execution is not supported for {}: it makes each edit alone"),
        ("tiny", "OMNI506 [error] Step Execution works for tiny with engine native only where server"),
    ],
)
def test_why_no_request_joins_a_batch_of_the_built_in_runtime(folder: Path, model: str, why: str) -> None:
    Path("a.yaml").write_text(f"version: 1\nmodel: {model}\nexecution: {{step_execution: true}}\n")
    result = runner.invoke(app(), ["check", "a.yaml"])
    assert result.exit_code == 1
    assert why.format(f"{model} by engine native") in result.stdout.replace("\n", " ")
