"""Files that are not ours, and of no engine that is read, are named in one sentence; folders without any say so."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from omni_config.checking.files import check, check_bytes
from omni_config.cli import app

runner = CliRunner()

LIGHTX2V = '{"infer_steps": 40, "target_height": 480, "target_width": 832, "enable_cfg": %s, "parallel": %s}'


def one(name: str, text: str) -> tuple[str, str]:
    (checked,) = check_bytes(name, text.encode())
    (finding,) = checked.findings
    return finding.code, finding.message


@pytest.mark.parametrize(
    ("name", "text", "like"),
    [
        ("a.yaml", "apiVersion: v1\nkind: Service\n", "a Kubernetes manifest (Service) without a container of a known"),
        ("a.yaml", "apiVersion: v2\nname: a\nversion: 1.0.0\n", "the Chart.yaml of a Helm chart"),
        ("a.yaml", "services: {web: {image: nginx}}\n", "a compose file without"),
        ("a.yaml", "on: push\njobs: {}\n", "a workflow of GitHub Actions"),
        ("a.yaml", "generator: {model_path: a/b, engine: {num_gpus: 2}}\n", "a config of FastVideo"),
        ("a.yaml", "a: {{ .Values.image }}\n", "a Helm template"),
        ("a.yaml", "model: llama\nmax_tokens: 3\n", "YAML with the keys model, max_tokens"),
        ("a.yaml", "version: 1\n", "YAML with the keys version"),
        ("a.yaml", "- 1\n- 2\n", "a list in YAML"),
        ("a.json", '{"nodes": [], "links": []}', "a workflow of ComfyUI"),
        ("a.json", '{"3": {"class_type": "KSampler", "inputs": {}}}', "a workflow of ComfyUI"),
        ("a.json", '{"_class_name": "WanPipeline", "vae": []}', "a configuration file of a diffusers model"),
        ("a.json", '{"a": 1, "b": 2}', "JSON with the keys a, b"),
        ("a.json", "[1]", "a list in JSON"),
        ("a.json", "{}", "an empty mapping in JSON"),
        ("a.py", "import a\nvllm = a.b(c)\n", "a Python script"),
        ("-", "import a\n\nprint(a.b(c=[1, 2]))\n", "a Python script"),
        ("a.ipynb", '{"cells": []}', "a notebook"),
        ("README.md", "# A\n\nvllm: a model server\n", "a Markdown file"),
        ("-", "#!/bin/sh\necho hello\n", "a shell script without a command of a known engine"),
        ("run.sh", "set -x\n\n# args\npython train.py\n", "a shell script without a command of a known engine"),
        ("Dockerfile", "FROM nginx\nRUN echo\n", "a Dockerfile without a command of a known engine"),
        ("a.toml", "[a]\nb = 1\n", "a TOML file"),
        ("-", "just words: [\n", "plain text"),
    ],
)
def test_a_file_of_another_form_is_named_and_no_key_of_it_is_judged(name: str, text: str, like: str) -> None:
    code, message = one(name, text)
    assert code == "OMNI908"
    assert message.startswith(f"not a form that is read here: it looks like {like}")


@pytest.mark.parametrize(
    "text",
    ["version: 1\nmodel: tiny\nparalel: {}\n", "parallel: {}\nsampling: {prompt: a}\n", "version: 1\nmodel: [\n"],
)
def test_what_says_that_it_is_ours_is_judged_by_our_schema(text: str) -> None:
    (checked,) = check_bytes("a.yaml", text.encode())
    assert {finding.code for finding in checked.findings} <= {"OMNI901", "OMNI904", "OMNI906"}
    assert checked.exit_code == 2


def test_yaml_that_is_broken_says_where() -> None:
    assert one("a.yaml", "a: [\n")[0] == "OMNI901"


def test_one_such_file_is_unusable(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text("import a\n")
    assert runner.invoke(app(), ["check", str(path)]).exit_code == 2


@pytest.mark.parametrize("files", [{}, {"a.yaml": "a: 1\n", "b.sh": "echo\n"}])
def test_a_folder_without_a_file_that_is_read_says_so(tmp_path: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    result = runner.invoke(app(), ["check", str(tmp_path)])
    assert result.exit_code == 2
    assert "All good" not in result.output
    assert "no file that is read here" in result.output
    assert (f"{len(files)} files are of other forms" in result.output) == bool(files)


def test_files_of_other_forms_are_counted_beside_a_config(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("version: 1\nmodel: tiny\n")
    (tmp_path / "b.yaml").write_text("model: llama\n")
    result = runner.invoke(app(), ["check", str(tmp_path)])
    assert result.exit_code == 0
    assert "All good: 1 config checked. 1 other file set aside." in result.output


@pytest.mark.parametrize(
    ("enable_cfg", "parallel", "codes", "said"),
    [
        ("true", "false", ["OMNI605"], "one process"),
        ("true", '{"cfg_p_size": 2, "seq_p_size": 4}', ["OMNI605"], "its sizes make 8 processes"),
        ("false", '{"cfg_p_size": 2}', ["OMNI617", "OMNI605"], "its sizes make 2 processes"),
        ("false", '{"tensor_p_size": 4}', ["OMNI605"], "its sizes make 4 processes"),
    ],
)
def test_lightx2v_is_known_by_its_keys(enable_cfg: str, parallel: str, codes: list[str], said: str) -> None:
    (checked,) = check_bytes("a.json", (LIGHTX2V % (enable_cfg, parallel)).encode())
    assert sorted(finding.code for finding in checked.findings) == sorted(codes)
    assert any(said in finding.message for finding in checked.findings)
    assert (checked.exit_code != 0) == ("OMNI617" in codes)


@pytest.mark.parametrize(
    ("more", "codes"),
    [
        ('"feature_caching": "Tea"', []),
        ('"feature_caching": "TeaCache"', ["OMNI641"]),
        ('"feature_caching": "Mag", "warmup": true', ["OMNI641"]),
        ('"feature_caching": "NoCaching", "warmup": true', []),
        ('"offload_granularity": "block"', ["OMNI642"]),
        ('"cpu_offload": true, "offload_granularity": "block"', []),
    ],
)
def test_caches_and_offload_of_lightx2v(more: str, codes: list[str]) -> None:
    text = (LIGHTX2V % ("true", "false"))[:-1] + f", {more}}}"
    (checked,) = check_bytes("a.json", text.encode())
    assert [finding.code for finding in checked.findings if finding.code != "OMNI605"] == codes
    assert all(finding.span and finding.span.source.line(finding.span.line) for finding in checked.findings)


@pytest.mark.parametrize(("processes", "codes"), [(8, []), (4, ["OMNI641"])])
def test_a_command_of_lightx2v_is_held_against_its_file(tmp_path: Path, processes: int, codes: list[str]) -> None:
    (tmp_path / "a.json").write_text(LIGHTX2V % ("true", '{"cfg_p_size": 2, "seq_p_size": 4}'))
    script = tmp_path / "run.sh"
    script.write_text(
        f"torchrun --nproc_per_node={processes} -m lightx2v.infer \\\n  --model_cls wan2.1 --config_json a.json\n"
    )
    (checked,) = check(script)
    assert [finding.code for finding in checked.findings if finding.code != "OMNI605"] == codes
    assert any("a command of LightX2V, of which only a.json is judged" in one.message for one in checked.findings)


@pytest.mark.parametrize(
    ("text", "severity"),
    [
        ("vllm serve Wan-AI/Wan2.2-T2V-A14B-Diffusers -tp 2\n", "error"),
        ("vllm serve /models/Wan2.2-T2V-A14B-Diffusers --port 1\n", "error"),
        ("vllm-omni serve Qwen/Qwen-Image\n", "error"),
        ("docker run vllm/vllm-omni:v0.30.0 vllm serve /models/wan\n", "warning"),
        ("vllm serve meta-llama/Llama-3.1-8B\n", None),
        ("vllm serve Qwen/Qwen-Image --omni\n", None),
    ],
)
def test_plain_vllm_is_named_where_a_diffusion_model_is_meant(text: str, severity: str | None) -> None:
    (checked,) = check_bytes("run.sh", text.encode())
    found = [finding.severity for finding in checked.findings if finding.code == "OMNI616"]
    assert found == ([severity] if severity else [])
