"""What starts a server on a cluster: what published schemas and our own check say of it, and what it starts."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import types
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
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


SPANS = """\
version: 1
model: Qwen/Qwen-Image
engine: sglang==0.5.23
hardware: {gpus: 8, gpus_per_node: 4}
parallel: {ulysses_degree: 4, ring_degree: 2}
"""
GROUP = "LeaderWorkerSet"
SPANNING = ["Qwen/Qwen-Image", "--ring", "2", "--usp", "2", "--gpus-per-node", "2"]
KEDA = ("--keda", "http://prometheus:9090")


def only(required: str = "", **properties: Any) -> dict[str, Any]:
    """The schema of a mapping that has no other keys."""
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }


TEXT, COUNT, ANY = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "object"}
LABELS = {"type": "object", "additionalProperties": TEXT, "minProperties": 1}
TEMPLATE = only("spec", metadata=only(labels=LABELS), spec=ANY)
TARGET = only("name", apiVersion=TEXT, kind=TEXT, name=TEXT)
SCALER = only("serverAddress query threshold", serverAddress=TEXT, query=TEXT, threshold=TEXT, ignoreNullValues=TEXT)
READ = only(port=TEXT, path=TEXT, authorization=only(credentials=only("key", name=TEXT, key=TEXT)))
#: Of each published definition, the fields that we write, with their types and those that are required.
PUBLISHED = {
    # kubernetes-sigs/lws 0.9: config/crd/bases/leaderworkerset.x-k8s.io_leaderworkersets.yaml
    "leaderworkerset.x-k8s.io/v1 LeaderWorkerSet": only(
        "leaderWorkerTemplate",
        replicas=COUNT,
        leaderWorkerTemplate=only(
            "workerTemplate",
            size=COUNT,
            restartPolicy={"enum": ["Default", "RecreateGroupOnPodRestart", "RecreateGroupAfterStart", "None"]},
            leaderTemplate=TEMPLATE,
            workerTemplate=TEMPLATE,
        ),
    ),
    # kedacore/keda: config/crd/bases/keda.sh_scaledobjects.yaml; keda.sh/docs/2.13/scalers/prometheus
    "keda.sh/v1alpha1 ScaledObject": only(
        "scaleTargetRef triggers",
        scaleTargetRef=TARGET,
        minReplicaCount=COUNT,
        maxReplicaCount=COUNT,
        triggers={"type": "array", "items": only("type metadata", type={"const": "prometheus"}, metadata=SCALER)},
    ),
    # prometheus-operator 0.91: example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml
    "monitoring.coreos.com/v1 PodMonitor": only(
        "selector podMetricsEndpoints",
        selector=only(matchLabels=LABELS),
        podMetricsEndpoints={"type": "array", "items": READ},
    ),
}


def validate(document: dict[str, Any]) -> None:
    """Against the schema of Kubernetes, or what a definition of others has."""
    name = f"{document['apiVersion']} {document['kind']}"
    if name not in PUBLISHED:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
        return
    metadata = only("name", name=TEXT, labels=LABELS)
    schema = only("apiVersion kind metadata spec", apiVersion=TEXT, kind=TEXT, metadata=metadata, spec=PUBLISHED[name])
    jsonschema.validate(document, schema)
    for template in pods(document):
        pod = {"apiVersion": "v1", "kind": "Pod", **template}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


def pods(document: dict[str, Any]) -> list[dict[str, Any]]:
    """The templates of the pods of a LeaderWorkerSet: the first one's, and the others'."""
    template = document["spec"].get("leaderWorkerTemplate", {})
    return [template[name] for name in ("leaderTemplate", "workerTemplate") if name in template]


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


def test_a_plan_over_machines_is_a_group_of_pods_that_meet(tmp_path: Path) -> None:
    path = tmp_path / "spans.yaml"
    path.write_text(SPANS)
    text = emit("kubernetes", [str(path)])
    found = objects(text)
    for document in found.values():
        validate(document)
    group = found["LeaderWorkerSet"]
    assert group["spec"]["leaderWorkerTemplate"]["size"] == 2
    leader, worker = pods(group)
    containers = [pod["spec"]["containers"][0] for pod in (leader, worker)]
    assert containers[0]["command"] == containers[1]["command"]
    words = containers[0]["command"]
    said = dict(pairwise(words))
    assert [said[name] for name in ("--num-gpus", "--nnodes", "--node-rank")] == ["8", "2", "$(LWS_WORKER_INDEX)"]
    assert said["--dist-init-addr"].startswith("$(LWS_LEADER_ADDRESS):")
    assert [container["resources"]["limits"] for container in containers] == [{"nvidia.com/gpu": 4}] * 2
    # Of the two only the first answers requests: SGLang has no HTTP server on the others.
    assert ["ports" in container and "readinessProbe" in container for container in containers] == [True, False]
    # kubernetes-sigs/lws 0.9, pkg/controllers/leaderworkerset_controller.go: a headless Service of the group's name.
    assert found["Service"]["metadata"]["name"] != group["metadata"]["name"]
    selector = found["Service"]["spec"]["selector"]
    assert selector == leader["metadata"]["labels"] | {"leaderworkerset.sigs.k8s.io/worker-index": "0"}
    (tmp_path / "emitted.yaml").write_text(text)
    checked = run("check", str(tmp_path / "emitted.yaml"), "--json")
    assert checked.exit_code == 0
    assert {one["severity"] for one in json.loads(checked.stdout)["findings"]} <= {"advice"}


@pytest.mark.parametrize(
    ("config", "workload", "gauge"),
    [
        ("tiny", "Deployment", "omni_queue_depth"),
        (OTHERS["vllm-omni"], "Deployment", "vllm_omni:num_requests_waiting"),
        (OTHERS["sglang"], "Deployment", "sglang:diffusion_num_queue_reqs"),
        (SPANS, "LeaderWorkerSet", "sglang:diffusion_num_queue_reqs"),
    ],
)
def test_keda_scales_on_the_gauge_that_the_engine_shows(config: str, workload: str, gauge: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(config)
    found = objects(emit("kubernetes", [config if config == "tiny" else str(path), *KEDA]))
    for document in found.values():
        validate(document)
    assert "HorizontalPodAutoscaler" not in found
    assert "replicas" not in found[workload]["spec"]  # the scaler's
    scaled, read = found["ScaledObject"]["spec"], found["PodMonitor"]
    assert scaled["scaleTargetRef"]["kind"] == workload
    (trigger,) = scaled["triggers"]
    assert trigger["metadata"]["serverAddress"] == KEDA[1]
    assert trigger["metadata"]["query"] == f'sum({gauge}{{job=~".+/{read["metadata"]["name"]}"}})'
    assert read["spec"]["selector"]["matchLabels"] == found["Service"]["spec"]["selector"]
    (endpoint,) = read["spec"]["podMetricsEndpoints"]
    assert ("authorization" in endpoint) == (config == "tiny")  # of the others only /v1 asks for the key
    container = (pods(found[workload]) or [found[workload]["spec"]["template"]])[0]["spec"]["containers"][0]
    assert ("--enable-metrics" in container["command"]) == gauge.startswith("sglang")


@pytest.mark.parametrize(("config", "workload"), [*((text, "Deployment") for text in OTHERS.values()), (SPANS, GROUP)])
def test_the_pool_of_llm_d_finds_the_pods_that_answer(config: str, workload: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(config)
    found = objects(emit("llm-d", [str(path)]))
    for document in found.values():
        validate(document)
    answers, *others = pods(found[workload]) or [found[workload]["spec"]["template"]]
    # llm-d's guides/omni-serving/router/*.values.yaml select this label, its base pods listen on this port.
    assert answers["metadata"]["labels"]["llm-d.ai/guide"] == "omni-serving"
    assert not any("llm-d.ai/guide" in pod["metadata"]["labels"] for pod in others)
    (container,) = answers["spec"]["containers"]
    assert container["ports"] == [{"name": "http", "containerPort": 8000}]
    assert container["command"][container["command"].index("--port") + 1] == "8000"
    selector = found[workload]["spec"].get("selector", {"matchLabels": {}})["matchLabels"]
    assert selector.items() <= answers["metadata"]["labels"].items()


def test_the_built_in_runtime_listens_where_the_pool_of_llm_d_asks() -> None:
    found = objects(emit("llm-d", NATIVE))
    assert yaml.safe_load(found["ConfigMap"]["data"]["config.yaml"])["server"]["port"] == 8000
    assert found["HorizontalPodAutoscaler"]["spec"]["minReplicas"] == 3


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
    assert theirs["server"] == ours["server"] | {"host": "0.0.0.0", "store": "/var/lib/omni"}
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


def test_what_a_config_reads_of_a_machine_is_in_the_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, path = tmp_path / "lo$ras", tmp_path / "config.yaml"
    folder.mkdir()
    config = "version: 1\nmodel: Qwen/Qwen-Image\nserver: {lora_folder: %s}\n"
    path.write_text(config % folder)
    read = [str(folder)]
    text = emit("compose", [str(path)])
    assert text.startswith(f"# Each node must have, under the same path: {', '.join(read)}\n")
    (service,) = yaml.safe_load(text)["services"].values()
    binds = [volume for volume in service["volumes"] if isinstance(volume, dict)]
    assert [bind["source"].replace("$$", "$") for bind in binds] == read
    assert all(bind == {**bind, "type": "bind", "target": bind["source"], "read_only": True} for bind in binds)
    (tmp_path / "compose.yaml").write_text(text)
    program = Path(sys.executable).with_name("check-jsonschema")
    line = [program, "--builtin-schema", "vendor.compose-spec", tmp_path / "compose.yaml"]
    subprocess.run(line, check=True, capture_output=True)
    deployment = objects(emit("kubernetes", [str(path)]))["Deployment"]
    kubernetes_validate.validate(deployment, KUBERNETES, strict=True)
    pod = deployment["spec"]["template"]["spec"]
    of_nodes = {volume["name"]: volume["hostPath"]["path"] for volume in pod["volumes"] if "hostPath" in volume}
    mounts = [mount for mount in pod["containers"][0]["volumeMounts"] if mount["name"] in of_nodes]
    assert [(of_nodes[mount["name"]], mount["mountPath"], mount["readOnly"]) for mount in mounts] == [
        (one, one, True) for one in read
    ]
    monkeypatch.chdir(tmp_path)
    path.write_text(config % folder.name)
    assert "give an absolute path" in run("serve", str(path), "--emit", "compose").output
    assert folder.name in emit("ray", [str(path)]).splitlines()[0]


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
        (["tiny", "--emit", "slurm"], "expected kubernetes, llm-d, ray, compose"),
        (["tiny", "--api-key", "secret", "--emit", "compose"], "comes from a secret"),
        (["tiny", "--usp", "4", "--emit", "compose"], "OMNI103"),
        (["Qwen/Qwen-Image", "--engine", "vllm-omni", "--emit", "ray"], "vllm-omni==VERSION"),
        (["Qwen/Qwen-Image", "--engine", "sglang==0.5.23", "--prompt", "a", "--emit", "ray"], "remove sampling"),
        (["Qwen/Qwen-Image", "--engine", "xdit==0.7", "--emit", "ray"], "xdit"),
        (["Qwen/Qwen-Image", "--ring", "2", "--usp", "2", "--gpus-per-node", "2", "--emit", "ray"], "runs on one"),
        ([*SPANNING, "--engine", "vllm-omni==0.30", "--emit", "kubernetes"], "unless Ray does it for 0.32"),
        (
            [*SPANNING, "--engine", "sglang==0.5.23", "--emit", "compose"],
            "only --emit kubernetes and llm-d start SGLang",
        ),
        (["tiny", "--emit", "dynamo"], "ai-dynamo/dynamo#13667"),
        (["tiny", *KEDA], "give --emit kubernetes, too"),
        (["tiny", *KEDA, "--emit", "compose"], "KEDA scales what runs on Kubernetes"),
        ([*VIDEO, *KEDA, "--emit", "kubernetes"], "jobs of videos live where"),
        (["Qwen/Qwen-Image", "--engine", "sglang==0.5.20", *KEDA, "--emit", "kubernetes"], "sglang==0.5.22 does"),
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
