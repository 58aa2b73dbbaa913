"""What starts a server on a cluster: what published schemas and our own check say of it, and what it starts."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from typer.testing import CliRunner

from omni_config.cli import app
from omni_config.cli.inputs import document_of, with_server

KUBERNETES = "1.31"
NATIVE = ["tiny", "--usp", "2", "--data-parallel-size", "3", "--max-queue", "9"]
VIDEO = ["Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "--usp", "2", "--data-parallel-size", "3"]
OTHERS = {
    "vllm-omni": "version: 1\nmodel: Qwen/Qwen-Image\nengine: vllm-omni==0.30\nparallel: {ulysses_degree: 2}\n",
    "sglang": "version: 1\nmodel: Qwen/Qwen-Image\nengine: sglang==0.5.23\nparallel: {ulysses_degree: 2}\n",
}
IMAGES = {"vllm-omni": "vllm/vllm-omni:v0.30.0", "sglang": "lmsysorg/sglang:v0.5.23"}


def run(*line: str) -> Any:
    return CliRunner().invoke(app(["serve", "check"]), line)


def emit(cluster: str, line: list[str]) -> str:
    result = run("serve", *line, "--emit", cluster)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return result.stdout


def line_of(kind: str, folder: Path) -> list[str]:
    lines = {"native": NATIVE, "video": VIDEO}
    if kind in lines:
        return lines[kind]
    path = folder / f"{kind}.yaml"
    path.write_text(OTHERS[kind])
    return [str(path)]


def objects(text: str) -> dict[str, Any]:
    return {document["kind"]: document for document in yaml.safe_load_all(text)}


@pytest.mark.parametrize("kind", ["native", "video", *OTHERS])
def test_manifests_of_kubernetes_are_valid_and_our_check_reads_them(kind: str, tmp_path: Path) -> None:
    text = emit("kubernetes", line_of(kind, tmp_path))
    found = objects(text)
    for document in found.values():
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    (tmp_path / "emitted.yaml").write_text(text)
    checked = run("check", str(tmp_path / "emitted.yaml"), "--json")
    assert (checked.exit_code, json.loads(checked.stdout)["findings"]) == (0, [])
    pod = found["Deployment"]["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    (port,) = found["Service"]["spec"]["ports"]
    assert container["ports"] == [{"name": port["name"], "containerPort": port["port"]}]
    for name in ("Service", "Deployment", "PodDisruptionBudget"):
        selector = found[name]["spec"]["selector"]
        assert selector.get("matchLabels", selector) == pod["metadata"]["labels"]
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["spec"]["volumes"]}
    assert ("HorizontalPodAutoscaler" in found) == (kind == "native")
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 6 if kind == "video" else 2}


def test_replicas_of_images_are_pods_and_those_of_videos_share_one_with_their_jobs() -> None:
    images, videos = (objects(emit("kubernetes", line)) for line in (NATIVE, VIDEO))
    assert images["HorizontalPodAutoscaler"]["spec"]["minReplicas"] == 3
    assert "replicas" not in images["Deployment"]["spec"]  # the autoscaler's
    assert videos["Deployment"]["spec"]["replicas"] == 1
    assert videos["Deployment"]["spec"]["strategy"] == {"type": "Recreate"}
    configs = [yaml.safe_load(found["ConfigMap"]["data"]["config.yaml"]) for found in (images, videos)]
    assert [config["parallel"]["data_parallel_size"] for config in configs] == [1, 3]


def test_the_config_in_a_manifest_is_the_one_that_is_served_behind_a_key(tmp_path: Path) -> None:
    config = objects(emit("kubernetes", NATIVE))["ConfigMap"]["data"]["config.yaml"]
    (tmp_path / "config.yaml").write_text(config)
    ours = json.loads(run("serve", *NATIVE, "--dry-run").stdout)
    theirs = json.loads(run("serve", str(tmp_path / "config.yaml"), "--dry-run").stdout)
    assert theirs["plan"] == ours["plan"]
    assert theirs["server"] == ours["server"] | {"host": "0.0.0.0"}
    assert yaml.safe_load(config)["server"]["api_key_file"] == "/run/secrets/omni/api-key"


@pytest.mark.parametrize("kind", ["native", "video", *OTHERS])
def test_a_compose_file_is_valid_and_our_check_reads_it(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "compose.yaml"
    path.write_text(emit("compose", line_of(kind, tmp_path)))
    program = Path(sys.executable).with_name("check-jsonschema")
    subprocess.run([program, "--builtin-schema", "vendor.compose-spec", path], check=True, capture_output=True)
    checked = run("check", str(path), "--json")
    assert (checked.exit_code, json.loads(checked.stdout)["findings"]) == (0, [])
    (service,) = yaml.safe_load(path.read_text())["services"].values()
    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert device["count"] == (2 if kind in OTHERS else 6)
    assert service["image"].startswith(IMAGES.get(kind, "omni-config:"))


def test_a_finding_in_a_manifest_is_where_its_config_says_it(tmp_path: Path) -> None:
    text = emit("kubernetes", NATIVE).replace("ulysses_degree: 2", "tensor_parallel_size: 3")
    (tmp_path / "emitted.yaml").write_text(text)
    found = run("check", str(tmp_path / "emitted.yaml"), "--json")
    finding = next(one for one in json.loads(found.stdout)["findings"] if one["severity"] == "error")
    line = text.splitlines()[finding["location"]["line"] - 1]
    assert (finding["code"], line.strip()) == ("OMNI102", "tensor_parallel_size: 3")
    compose = emit("compose", NATIVE).replace("data_parallel_size: 3", "data_parallel_size: 3\n        ulyses: 2")
    (tmp_path / "compose.yaml").write_text(compose)
    assert "OMNI904" in run("check", str(tmp_path / "compose.yaml")).output


def test_a_config_of_a_manifest_that_is_no_yaml_is_a_finding(tmp_path: Path) -> None:
    text = emit("kubernetes", NATIVE).replace("model: tiny", "model: [tiny")
    (tmp_path / "emitted.yaml").write_text(text)
    found = run("check", str(tmp_path / "emitted.yaml"))
    assert (found.exit_code, "OMNI901" in found.output) == (2, True)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["tiny", "--emit", "slurm"], "expected kubernetes, ray, compose"),
        (["tiny", "--api-key", "secret", "--emit", "compose"], "comes from a secret"),
        (["tiny", "--usp", "4", "--emit", "compose"], "OMNI103"),
        (["Qwen/Qwen-Image", "--engine", "vllm-omni", "--emit", "ray"], "vllm-omni==VERSION"),
        (["Qwen/Qwen-Image", "--engine", "sglang==0.5.23", "--prompt", "a", "--emit", "ray"], "remove sampling"),
        (["Qwen/Qwen-Image", "--engine", "xdit==0.7", "--emit", "ray"], "xdit"),
        (["Qwen/Qwen-Image", "--ring", "2", "--usp", "2", "--gpus-per-node", "2", "--emit", "ray"], "runs on one"),
    ],
)
def test_what_cannot_be_emitted(line: list[str], words: str) -> None:
    result = run("serve", *line)
    assert result.exit_code in (1, 2)
    assert words in result.output
    assert "secret" not in result.stdout


def test_serve_takes_configs_of_engines_without_a_section_of_the_server(tmp_path: Path) -> None:
    result = run("serve", *line_of("sglang", tmp_path), "--dry-run")
    assert result.exit_code == 0, result.output
    assert shlex.split(result.stdout.replace("\\\n", ""))[:4] == ["sglang", "serve", "--model-path", "Qwen/Qwen-Image"]
    path = tmp_path / "native.yaml"
    path.write_text("version: 1\nmodel: tiny\n")
    assert with_server(document_of(path, ())).node.value["server"] == {}  # type: ignore[union-attr]


def application(text: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The application of a module of Ray Serve, with Ray's decorator left out."""
    settings: dict[str, Any] = {}

    def deployment(**said: Any) -> Any:
        settings.update(said)

        def bound(cls: Any) -> Any:
            cls.bind = classmethod(lambda cls: cls)
            return cls

        return bound

    ray = types.ModuleType("ray")
    ray.serve = types.SimpleNamespace(deployment=deployment)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ray", ray)
    module: dict[str, Any] = {}
    exec(compile(text, "emitted.py", "exec"), module)
    return module["app"], settings, module


@pytest.mark.parametrize("kind", ["native", "video", *OTHERS])
def test_an_application_of_ray_serve(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, settings, module = application(emit("ray", line_of(kind, tmp_path)), monkeypatch)
    copies, gpus = {"native": (3, 2), "video": (1, 6)}.get(kind, (1, 2))
    assert (settings["num_replicas"], settings["ray_actor_options"]) == (copies, {"num_gpus": gpus})
    command = module["COMMAND"]
    assert command[command.index("--port") + 1] == "{port}"
    if kind not in OTHERS:
        (tmp_path / "config.yaml").write_text(module["CONFIG"])
        assert run("serve", str(tmp_path / "config.yaml"), "--dry-run").exit_code == 0
