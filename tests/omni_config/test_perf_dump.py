"""``omni suggest --from`` takes SGLang's perf dumps, with the command that made them, and says what it leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_runs import H100, TRUE
from typer.testing import CliRunner

from omni_config.cli import app
from omni_config.planner.fit import decode_seconds, fit, step_seconds
from omni_config.planner.runs import Recorded, runs_in

COMMAND = (
    "sglang generate --model-path Qwen/Qwen-Image --prompt 'a red star' --negative-prompt '' --width 1024 "
    "--height 1024 --num-inference-steps 50"
)


def dump(step: float = 0.2, model: str = "Qwen/Qwen-Image", steps: int = 50, decoding: float = 0.1) -> dict[str, Any]:
    """What SGLang 0.5.23 writes (perf_logger.py:391, with the meta of entrypoints/cli/generate.py:145); seconds in."""
    stages = {
        "InputValidationStage": 0.00004,
        "TextEncodingStage": 0.0512,
        "TimestepPreparationStage": 0.0021,
        "LatentPreparationStage": 0.0002,
        "DenoisingStage": 3 * step + (steps - 1) * step,
        "DecodingStage": decoding,
    }
    memory = dict.fromkeys(("allocated_mb", "reserved_mb", "peak_allocated_mb", "peak_reserved_mb"), 57_344.0)
    return {
        "timestamp": "2026-11-30T12:00:00.000000+00:00",
        "request_id": "mocked_fake_id_for_offline_generate",
        "commit_hash": "N/A",
        "tag": "cli_generate",
        "total_duration_ms": 1000 * (sum(stages.values()) + 0.02),
        "steps": [{"name": name, "duration_ms": 1000 * seconds} for name, seconds in stages.items()],
        "denoise_steps_ms": [
            {"step": number, "duration_ms": 1000 * step * (1 if number else 3)} for number in range(steps)
        ],
        "memory_checkpoints": {"after_DenoisingStage": memory | {"peak_host_anon_mb": 0.0}},
        "meta": {"prompt": "a red star", "model": model},
    }


def written(folder: Path, words: str = "", values: Any = None, script: str = "bench.sh") -> Path:
    file = folder / "perf.json"
    file.write_text(json.dumps(values or dump()))
    (folder / script).write_text(f"#!/bin/bash\nset -e\n{COMMAND} {words} --perf-dump-path out/perf.json\n")
    return file


def test_a_dump_is_a_run_of_the_command_that_names_it(tmp_path: Path) -> None:
    file = written(tmp_path, "--num-gpus 2 --tp-size 2 --enable-cfg-parallel false")
    (run,) = runs_in(file).runs
    assert run.step_seconds == pytest.approx(0.2)  # neither the first step, nor in milliseconds
    assert run.decode_seconds is None
    q = run.quantities
    assert (q["tensor_parallel_size"], q["width"], q["num_inference_steps"], q["cfg_branches"]) == (2, 1024, 50, 2)
    assert "InputValidationStage, TextEncodingStage" in " ".join(run.unused)
    assert "the memory" in run.unused


def test_what_sglang_shares_by_itself_is_part_of_the_plan(tmp_path: Path) -> None:
    (run,) = runs_in(written(tmp_path, "--num-gpus 4")).runs
    assert (run.quantities["cfg_parallel_size"], run.quantities["allgather_degree"]) == (2, 2)


def test_decoding_counts_only_where_stages_end_with_their_work(tmp_path: Path) -> None:
    (run,) = runs_in(written(tmp_path)).runs
    assert any("SGLANG_DIFFUSION_SYNC_STAGE_PROFILING=1" in one for one in run.unused)
    text = (tmp_path / "bench.sh").read_text()
    (tmp_path / "bench.sh").write_text(text.replace("sglang", "SGLANG_DIFFUSION_SYNC_STAGE_PROFILING=1 sglang"))
    (run,) = runs_in(tmp_path / "perf.json").runs
    assert run.decode_seconds == pytest.approx(0.1)
    assert not any("SYNC" in one for one in run.unused)


def test_a_run_with_a_cache_is_left_out(tmp_path: Path) -> None:
    file = written(tmp_path)
    text = (tmp_path / "bench.sh").read_text()
    (tmp_path / "bench.sh").write_text(text.replace("sglang", "SGLANG_CACHE_DIT_ENABLED=true sglang"))
    with pytest.raises(ValueError, match="has a cache"):
        runs_in(file)


@pytest.mark.parametrize(
    ("words", "values", "reason"),
    [
        (
            "",
            dump(model="black-forest-labs/FLUX.1-dev"),
            "is of Qwen/Qwen-Image, and the dump of black-forest-labs/FLUX",
        ),
        ("", dump(steps=28), "makes 50 steps, and the dump has 28"),
        ("", dump(steps=1), "has 1 denoising steps"),
        ("--height $SIZE", None, "only a run knows"),
        ("--num-gpus 3 --ulysses-degree 2 --tp-size 2", None, "OMNI"),
        ("", dump() | {"denoise_steps_ms": [0.2, 0.2]}, "of another form"),
    ],
)
def test_what_cannot_be_used_is_said(tmp_path: Path, words: str, values: Any, reason: str) -> None:
    file = written(tmp_path, words, values)
    with pytest.raises(ValueError, match=reason):
        runs_in(file)
    assert reason in runs_in(tmp_path).refused[0]


def test_a_dump_without_its_command_is_no_run(tmp_path: Path) -> None:
    file = tmp_path / "perf.json"
    file.write_text(json.dumps(dump()))
    with pytest.raises(
        ValueError, match=r"says neither sizes nor degrees, and no command in a \.sh file beside it has"
    ):
        runs_in(file)
    file.write_text(json.dumps(dump() | {"tag": "server_perf_dump", "meta": {"model": "Qwen/Qwen-Image"}}))
    with pytest.raises(ValueError, match="one of a server says nothing of its request"):
        runs_in(file)


def test_dumps_of_one_name_belong_to_the_command_of_their_folder(tmp_path: Path) -> None:
    for degree in (1, 2):
        folder = tmp_path / f"u{degree}"
        folder.mkdir()
        (folder / "perf.json").write_text(json.dumps(dump()))
    lines = [
        f"{COMMAND} --num-gpus {n} --tp-size {n} --enable-cfg-parallel false --perf-dump-path=./u{n}/perf.json"
        for n in (1, 2)
    ]
    (tmp_path / "bench.sh").write_text("\n".join(lines))
    assert [run.quantities["tensor_parallel_size"] for run in runs_in(tmp_path).runs] == [1, 2]
    (tmp_path / "bench.sh").write_text("\n".join([lines[0], lines[0]]))
    found = runs_in(tmp_path)
    assert found.runs == ()
    assert any("2 commands in a .sh file beside it have" in reason for reason in found.refused)


def fitted_runs(folder: Path) -> Recorded:
    """Dumps of plans on a GPU that is really TRUE."""
    lines = []
    for number, words in enumerate(("", "--num-gpus 2 --tp-size 2 --enable-cfg-parallel false", "--num-gpus 2")):
        file = folder / f"{number}.json"
        lines.append(f"{COMMAND} {words} --perf-dump-path {file.name}")
        (folder / "bench.sh").write_text("SGLANG_DIFFUSION_SYNC_STAGE_PROFILING=1 " + lines[-1])
        file.write_text(json.dumps(dump()))
        q = runs_in(file).runs[0].quantities
        values = dump(step_seconds(q, TRUE), decoding=decode_seconds(q, TRUE, TRUE.efficiencies()))
        file.write_text(json.dumps(values))
    (folder / "bench.sh").write_text("\n".join(lines))
    return runs_in(folder)


def test_efficiencies_are_fitted_as_from_reports(tmp_path: Path) -> None:
    learned = fit(fitted_runs(tmp_path).runs, H100)
    for moved in learned.moved[1:]:
        assert moved.after == pytest.approx(moved.run.step_seconds, rel=0.05)
    assert "matmul_hopper" in learned.moved[0].efficiencies


def test_the_command_says_what_it_could_not_use(tmp_path: Path) -> None:
    fitted_runs(tmp_path)
    (tmp_path / "alone.json").write_text(json.dumps(dump()))
    words = ["suggest", "--model", "Qwen/Qwen-Image", "--gpus", "2", "--gpu", "h100", "--from", str(tmp_path)]
    shown = CliRunner().invoke(app(["suggest"]), words, env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    assert (
        f"{tmp_path / '0.json'}: not used: the first step, which warms up; the stages InputValidation" in shown.stdout
    )
    assert f"left out: {tmp_path / 'alone.json'}: a perf dump says neither sizes nor degrees" in shown.stdout
    found = json.loads(CliRunner().invoke(app(["suggest"]), [*words, "--json"]).stdout)
    assert len(found["runs"]) == 3
    assert len(found["runs_refused"]) == 1
    for file in tmp_path.glob("*.sh"):
        file.unlink()
    none = CliRunner().invoke(app(["suggest"]), words)
    assert (none.exit_code, "none of its runs can be used" in none.stderr) == (2, True)
