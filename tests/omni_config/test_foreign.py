"""Files of other engines are understood where they stand: shell, containers, YAML; findings point at the flag."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from omni_config.checking.document import CheckResult
from omni_config.checking.files import check_bytes
from omni_config.checking.fix import fix
from omni_config.cli import app

runner = CliRunner()

SCRIPT = r"""#!/bin/bash
set -euo pipefail
MODEL=Qwen/Qwen-Image   # a variable
PORT=${PORT:-8091}
ARGS=(--usp 2
      --ring 3)
nohup vllm serve "$MODEL" --omni --port "$PORT" \
  --cache-backend=cache_dit \
  --cache-config '{"Fn_compute_blocks": 1,
                   "max_warmup_step": 8}' \
  "${ARGS[@]}" --cfg-parallel-size "$(nproc)" > log.txt 2>&1 &
"""

COMPOSE = """\
version: "3.8"
services:
  web: {image: nginx, command: ["nginx", "-g", "daemon off;"]}
  image:
    image: vllm/vllm-omni:v0.30.0
    command: >
      --model Qwen/Qwen-Image
      --cfg-parallel-size 4
"""

KUBERNETES = """\
apiVersion: apps/v1
kind: Deployment
spec:
  template:
    spec:
      containers:
        - name: omni
          image: vllm/vllm-omni:v0.30.0
          command: ["/bin/sh", "-c"]
          args:
            - |
              echo "starting"
              exec vllm serve Qwen/Qwen-Image --omni \\
                --cfg-parallel-size 4
"""

DOCKERFILE = """\
FROM vllm/vllm-omni:v0.30.0
ENTRYPOINT ["vllm", "serve"]
CMD ["Qwen/Qwen-Image", "--omni", \\
     "--cfg-parallel-size", "4"]
"""

STAGES = """\
stage_args:
  - stage_id: 0
    stage_type: llm
    engine_args: {tensor_parallel_size: 4}
  - stage_id: 1
    stage_type: diffusion
    engine_args:
      model: Qwen/Qwen-Image
      parallel_config:
        cfg_parallel_size: 4
"""

SGLANG = """\
model_path: Qwen/Qwen-Image
num_gpus: 4
enable_cfg_parallel: true
tp_size: 4
"""


def checked(text: str, name: str = "file") -> CheckResult:
    (only,) = check_bytes(name, text.encode())
    return only


def places(item: CheckResult) -> dict[str, str]:
    return {finding.code: str(finding.span) for finding in item.findings}


def under_the_caret(item: CheckResult, code: str) -> str:
    span = next(finding.span for finding in item.findings if finding.code == code)
    assert span is not None
    return span.source.line(span.line)[span.column - 1 : span.end - 1]


def test_a_script_is_read_through_variables_arrays_quotes_and_continued_lines() -> None:
    item = checked(SCRIPT, "run.sh")
    assert item.resolution is not None
    settings = item.resolution.settings
    assert (settings["model"], settings["ulysses_degree"], settings["ring_degree"]) == ("Qwen/Qwen-Image", 2, 3)
    assert settings["cache_dit"]
    assert settings["Fn_compute_blocks"] == 1
    assert under_the_caret(item, "OMNI105") == "--ring 3)"[:8]
    assert under_the_caret(item, "OMNI608") == '"max_warmup_step"'
    assert places(item)["OMNI608"] == "run.sh:10:20"
    (passed,) = (finding for finding in item.findings if finding.code == "OMNI605")
    assert "--cfg-parallel-size (its value is known only to a run)" in passed.message


@pytest.mark.parametrize(
    ("text", "place", "mark"),
    [
        (COMPOSE, "file:8:7", "--cfg-parallel-size 4"),
        (KUBERNETES, "file:14:17", "--cfg-parallel-size 4"),
        (DOCKERFILE, "file:4:7", "--cfg-parallel-size"),
        (STAGES, "file:10:28", "4"),
    ],
    ids=["compose", "kubernetes", "dockerfile", "stages"],
)
def test_a_finding_points_at_the_flag_in_the_original_file(text: str, place: str, mark: str) -> None:
    item = checked(text)
    assert places(item)["OMNI109"] == place
    assert under_the_caret(item, "OMNI109").startswith(mark)


def test_only_diffusion_stages_are_judged_and_the_others_are_named() -> None:
    (passed,) = (finding for finding in checked(STAGES).findings if finding.code == "OMNI605")
    assert passed.message == "not judged: stage 0 (no diffusion stage)"
    text = checked(STAGES.replace("stage_type: diffusion", "stage_type: llm"))
    assert [finding.code for finding in text.findings] == ["OMNI605"]
    assert text.exit_code == 0


def test_a_config_file_of_sglang_is_checked_and_its_gpus_are_counted() -> None:
    assert places(checked(SGLANG))["OMNI135"] == "file:2:11"


@pytest.mark.parametrize(
    ("flags", "passed", "codes"),
    [
        ("--ulysses-degree 2", "", {"OMNI135"}),  # --num-gpus is 1
        ("--num-gpus 2 --ulysses-degree 2", "", set()),
        ("--num-gpus 4 --ulysses-degree 2 --dp-size 2", "", set()),
        ("--num-gpus 4 --ulysses-degree 2 --dp-size 1", "", {"OMNI135"}),
        ("--num-gpus 2 --sp-degree 2", "", set()),
        ("--sp-degree 2", "", {"OMNI135"}),
        ("--num-gpus 4 --sp-degree 2", "", {"OMNI135"}),
        ("--num-gpus 4 --sp-degree 4 --kv-gather-degree 4", "", set()),
        ("--num-gpus 2 --sp-degree 4 --kv-gather-degree 2", "", {"OMNI1201"}),
        ("--num-gpus 4 --enable-cfg-parallel", "", set()),
        ("--num-gpus 4 --enable-cfg-parallel --kv-gather-degree 2", "", set()),
        ("--num-gpus 8 --enable-cfg-parallel --kv-gather-degree 2", "", {"OMNI135"}),
        ("--num-gpus 2 --kv-gather-degree 2", "", {"OMNI135"}),  # CFG-parallel takes both by itself
        ("--num-gpus 2 --kv-gather-degree 2 --cfg-parallel-size 1", "", set()),
        ("--num-gpus 4 --kv-gather-degree 2", "", set()),
        ("--num-gpus 8 --kv-gather-degree 2", "", {"OMNI135"}),
        ("--num-gpus 4 --kv-gather-degree 2 --ulysses-degree 2", "", {"OMNI1201"}),
        ("--num-gpus 4 --tp-size 2", "", set()),
        ("--num-gpus 2 --enable-cfg-parallel --prompt cat", "", set()),  # the model has a negative prompt by itself
    ],
)
def test_ranks_of_sglang_are_counted_as_it_counts_them(flags: str, passed: str, codes: set[str]) -> None:
    found = checked(f"sglang generate --model-path Qwen/Qwen-Image {flags}\n").findings
    assert [f.message.removeprefix("not judged: ") for f in found if f.code == "OMNI605"] == [passed][: bool(passed)]
    assert {f.code for f in found if f.severity != "advice"} == codes


@pytest.mark.parametrize("axis", ["--pipeline-parallel-size 2", "--allgather-degree 2"])
def test_axes_that_are_not_ours_have_their_share_of_the_gpus(axis: str) -> None:
    text = f"vllm serve Wan-AI/Wan2.2-T2V-A14B-Diffusers --omni --num-gpus 4 --cfg-parallel-size 2 {axis}\n"
    (found,) = check_bytes("run.sh", text.encode(), assume={"engine": "vllm-omni==0.30"})
    assert [f.message for f in found.findings if f.severity != "advice"] == []
    (found,) = check_bytes("run.sh", text.replace("gpus 4", "gpus 6").encode())
    assert found.exit_code == 1


def test_a_file_without_a_model_is_judged_as_far_as_that_goes() -> None:
    text = "parallelism_config:\n  ulysses_size: 2\n  tp_size: 5\n"
    assert [finding.code for finding in checked(text).findings if finding.severity == "error"] == []
    (named,) = check_bytes("file", text.encode(), assume={"model": "Qwen/Qwen-Image"})
    assert "OMNI102" in places(named)


def test_a_comment_accepts_a_finding_in_a_script_too() -> None:
    line = "vllm serve Qwen/Qwen-Image --omni --cfg-parallel-size 4"
    assert checked(line).exit_code == 1
    accepted = checked(f"{line}  # omni: ignore[OMNI109]")
    assert accepted.exit_code == 0
    assert [finding.code for finding in accepted.ignored] == ["OMNI109"]


def test_scripts_in_a_folder_are_found_and_other_files_are_set_aside(tmp_path: Path) -> None:
    (tmp_path / "run.sh").write_text(SCRIPT)
    (tmp_path / "other.sh").write_text("echo vllm\n")
    result = runner.invoke(app(), ["check", str(tmp_path)])
    assert result.exit_code == 1
    assert "1 config checked. 1 other file set aside." in result.stdout


def test_language_models_are_left_alone() -> None:
    for text in ("vllm serve Qwen/Qwen3-8B -tp 4\n", "sglang serve --model-path Qwen/Qwen3-8B --tp 4\n"):
        assert not checked(text).foreign


def test_fix_mends_a_script_through_its_array_and_the_key_of_its_json() -> None:
    fixed = fix("run.sh", SCRIPT, unsafe=True)
    assert fixed.after == SCRIPT.replace("--ring 3", "--ring 4").replace("max_warmup_step", "max_warmup_steps")
    assert fixed.failed == ()


@pytest.mark.parametrize(
    "text", ["vllm serve 'unclosed --omni", "vllm serve $(", "ARGS=(vllm --omni", "vllm serve --omni `"]
)
def test_a_broken_script_is_no_traceback(text: str) -> None:
    assert check_bytes("run.sh", text.encode())


def test_a_folder_is_judged_by_the_class_that_it_names(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "AnimaPipeline"}')
    line = f"vllm serve {tmp_path} --omni --num-gpus 2 --cfg-parallel-size 2\n"
    (checked,) = check_bytes("run.sh", line.encode(), assume={"engine": "vllm-omni==0.30"})
    assert "OMNI5160" in {finding.code for finding in checked.findings}
    (tmp_path / "model_index.json").write_text("[")
    (checked,) = check_bytes("run.sh", line.encode(), assume={"engine": "vllm-omni==0.30"})
    assert {finding.severity for finding in checked.findings} == {"advice"}
