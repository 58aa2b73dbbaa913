"""Commands are read with what stands around them: variables, entry points, ConfigMaps, charts, steps of CI."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from omni_config.checking.document import CheckResult
from omni_config.checking.files import check, check_bytes
from omni_config.cli import app
from omni_config.reading import render
from omni_config.reading.discover import SCRIPTS, SUFFIXES
from omni_config.schema.settings import FIELDS

runner = CliRunner()


def one(text: str, name: str = "a.yaml") -> CheckResult:
    (result,) = check_bytes(name, text.encode())
    assert result.foreign, [finding.message for finding in result.findings]
    return result


def said(result: CheckResult, setting: str) -> Any:
    assert result.node is not None
    node = result.node.find(FIELDS[setting])
    return None if node is None else node.value


def passed_by(result: CheckResult) -> str:
    return "".join(finding.message for finding in result.findings if finding.code == "OMNI605")


ULYSSES = [
    "exec vllm serve Qwen/Qwen-Image --omni --usp 2",
    "sudo -E nohup vllm serve Qwen/Qwen-Image --omni --usp 2 &",
    "env A=b vllm serve Qwen/Qwen-Image --omni --usp 2",
    "sh -c 'vllm serve Qwen/Qwen-Image --omni --usp 2'",
    "bash -lc 'exec vllm serve Qwen/Qwen-Image \"$@\"' -- --omni --usp 2",
    "bash -c 'N=2; vllm serve Qwen/Qwen-Image --omni --usp $N'",
    "export N=2\nbash -c 'vllm serve Qwen/Qwen-Image --omni --usp $N'",
    "N=2 bash -c 'vllm serve Qwen/Qwen-Image --omni --usp $N'",
    "python -m vllm_omni.entrypoints.cli.main serve Qwen/Qwen-Image --omni --usp 2",
    "python3 -m vllm_omni.entrypoints.openai.api_server --model Qwen/Qwen-Image --usp 2",
    "python -m dynamo.vllm.omni --model Qwen/Qwen-Image --usp 2 --output-modalities image",
    "python -m dynamo.vllm --model Qwen/Qwen-Image --omni --usp 2",
    "python3 -m dynamo.sglang --image-diffusion-worker --model-path Qwen/Qwen-Image --ulysses-degree 2",
    "torchrun --nproc-per-node 2 -m cache_dit.generate qwen_image --parallel ulysses",
    "srun -N1 --gres gpu:2 --mpi=pmix vllm serve Qwen/Qwen-Image --omni --usp 2",
    "docker run --rm -it -p 80:80 -v /a:/b vllm/vllm-omni:v0.30.0 --model Qwen/Qwen-Image --usp 2",
    "docker run -d vllm/vllm-omni:v0.30.0 Qwen/Qwen-Image --usp 2",
    "docker run --entrypoint vllm some/image serve Qwen/Qwen-Image --omni --usp 2",
    "docker run -eN=2 --env M=3 some/image sh -c 'vllm serve Qwen/Qwen-Image --omni --usp $N'",
    "podman run vllm/vllm-omni:v0.30.0 vllm serve Qwen/Qwen-Image --omni --usp 2",
    "docker compose up -d && docker exec omni vllm serve Qwen/Qwen-Image --omni --usp 2",
    "if true; then vllm serve Qwen/Qwen-Image --omni --usp 2; fi",
]


@pytest.mark.parametrize("text", ULYSSES)
def test_a_command_is_found_behind_what_starts_it(text: str) -> None:
    result = one(text + "\n", "run.sh")
    assert (said(result, "model"), said(result, "ulysses_degree")) == ("Qwen/Qwen-Image", 2)


@pytest.mark.parametrize(
    "text",
    [
        "docker run vllm/vllm-omni:v0.30.0 sleep infinity",
        "docker run vllm/vllm-omni:v0.30.0 bash",
        "docker run vllm/vllm-openai:v0.30.0 --model Qwen/Qwen3-8B",
        'vllm serve Qwen/Qwen-Image $ARGS "$@"',  # --omni may be among them
        "python -m dynamo.vllm --model Qwen/Qwen3-8B",
        "python -m sglang.launch_server --model-path Qwen/Qwen3-8B --tp 8",
        "N=2 docker build -t vllm-omni .",
    ],
)
def test_other_commands_start_no_diffusion_model(text: str) -> None:
    (result,) = check_bytes("run.sh", (text + "\n").encode())
    assert [finding.code for finding in result.findings] == ["OMNI908"]


def test_a_container_of_plain_vllm_serves_no_diffusion_model() -> None:
    result = one("docker run vllm/vllm-openai:v0.30.0 --model Qwen/Qwen-Image\n", "run.sh")
    assert [(finding.code, finding.severity) for finding in result.findings] == [("OMNI616", "error")]


def test_variables_of_the_shell_do_not_go_into_a_container() -> None:
    serve = "sglang serve --model-path Qwen/Qwen-Image"
    assert said(one(f"SGLANG_CACHE_DIT_ENABLED=1 {serve}\n", "run.sh"), "cache_dit") == {}
    assert said(one(f"SGLANG_CACHE_DIT_ENABLED=1 docker run a/b {serve}\n", "run.sh"), "cache_dit") is None
    assert said(one(f"docker run -e SGLANG_CACHE_DIT_ENABLED=1 a/b {serve}\n", "run.sh"), "cache_dit") == {}
    assert (
        said(
            one(f"SGLANG_CACHE_DIT_ENABLED=1 docker run -e SGLANG_CACHE_DIT_ENABLED a/b {serve}\n", "run.sh"),
            "cache_dit",
        )
        == {}
    )


def test_a_variable_that_only_a_run_knows_is_no_value() -> None:
    text = """\
services:
  a:
    image: lmsysorg/sglang:v0.5.23
    environment: {SGLANG_CACHE_DIT_ENABLED: "1", SGLANG_CACHE_DIT_FN: , SGLANG_CACHE_DIT_WARMUP: "${WARMUP}"}
    command: sglang serve --model-path Qwen/Qwen-Image
"""
    result = one(text)
    assert {finding.code for finding in result.findings if finding.severity != "advice"} == set()
    for name in ("SGLANG_CACHE_DIT_FN", "SGLANG_CACHE_DIT_WARMUP"):
        assert f"{name} (known only to a run)" in passed_by(result)


DOCKERFILE = """\
ARG TAG=v0.30.0
FROM vllm/vllm-omni:${TAG}
ENV MODEL=Qwen/Qwen-Image \\
    USP=2
"""


@pytest.mark.parametrize(
    ("lines", "usp"),
    [
        ("CMD vllm serve $MODEL --omni --usp $USP\n", 2),
        ('CMD ["--model", "Qwen/Qwen-Image", "--usp", "4"]\n', 4),
        ('ENTRYPOINT ["vllm", "serve", "--omni"]\nCMD ["Qwen/Qwen-Image", "--usp", "4"]\n', 4),
        ('ENV USP 4\nENTRYPOINT ["sh", "-c", "exec vllm serve $MODEL --omni --usp $USP"]\n', 4),
    ],
)
def test_a_dockerfile_is_read_with_its_arguments_and_variables(lines: str, usp: int) -> None:
    result = one(DOCKERFILE + lines, "Dockerfile.cuda")
    assert (said(result, "model"), said(result, "ulysses_degree")) == ("Qwen/Qwen-Image", usp)
    assert "vllm-omni:v0.30.0" in result.judged_by


def test_each_container_is_judged_by_its_own_image() -> None:
    text = """\
services:
  a: {image: "vllm/vllm-omni:v0.28.0", command: vllm serve Qwen/Qwen-Image --omni}
  b: {image: "vllm/vllm-omni:v0.30.0", command: vllm serve Qwen/Qwen-Image --omni}
  c: {image: "vllm/vllm-omni:${TAG:-v0.26.0}", command: [--model, Qwen/Qwen-Image]}
"""
    assert [result.judged_by.partition(",")[0] for result in check_bytes("a.yaml", text.encode())] == [
        "vllm-omni==0.28.0",
        "vllm-omni==0.30.0",
        "vllm-omni==0.26.0",
    ]


def test_a_version_with_a_zero_is_judged_by_the_same_facts() -> None:
    text = "docker run vllm/vllm-omni:v0.30.0 vllm serve Qwen/Qwen-Image --omni --no-such-flag 1\n"
    assert "OMNI611" in {finding.code for finding in one(text, "run.sh").findings}


COMPOSE = """\
services:
  a:
    image: vllm/vllm-omni:v0.30.0
    env_file: [omni.env, {path: gone.env, required: false}]
    environment: {VAE: "2"}
    command: ["vllm", "serve", "${MODEL:-Qwen/Qwen-Image}", "--omni", "--usp", "${USP}", "--port=$$PORT"]
"""


def test_compose_reads_the_files_of_variables_beside_it(tmp_path: Path) -> None:
    (tmp_path / "omni.env").write_text("# degrees\nexport USP='2'\n")
    path = tmp_path / "compose.yaml"
    path.write_text(COMPOSE)
    (result,) = check(path)
    assert (said(result, "model"), said(result, "ulysses_degree")) == ("Qwen/Qwen-Image", 2)
    assert "the variables of gone.env (not found beside this file)" in passed_by(result)
    (tmp_path / "omni.env").unlink()
    (result,) = check(path)
    assert said(result, "ulysses_degree") is None
    assert "--usp (its value is known only to a run)" in passed_by(result)


CONFIG_MAP = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: omni}
data:
  USP: "4"
  MODEL: Qwen/Qwen-Image
  start.sh: |
    vllm serve Qwen/Qwen-Image --omni --ring 2
---
apiVersion: apps/v1
kind: StatefulSet
spec:
  template:
    spec:
      containers:
        - image: vllm/vllm-omni:v0.30.0
          envFrom: [{configMapRef: {name: omni}}, {configMapRef: {name: other}}]
          env:
            - {name: VAE, valueFrom: {configMapKeyRef: {name: omni, key: USP}}}
            - {name: CFG, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
          args: [$(MODEL), --usp, $(USP), --vae-patch-parallel-size=$(VAE), --vae-use-tiling, --ring, $(RING),
                 --cfg-parallel-size, $(CFG)]
"""


def test_a_config_map_of_the_same_file_is_read() -> None:
    script, pod = check_bytes("a.yaml", CONFIG_MAP.encode())
    assert said(script, "ring_degree") == 2
    assert (said(pod, "model"), said(pod, "ulysses_degree")) == ("Qwen/Qwen-Image", 4)
    assert said(pod, "vae_patch_parallel_size") == 4
    for words in ("the variables of ConfigMap other (not in this file)", "--ring (its", "--cfg-parallel-size (its"):
        assert words in passed_by(pod)


@pytest.mark.parametrize(
    "text",
    [
        "on: push\nenv: {USP: 2}\njobs:\n  a:\n    steps:\n      - run: vllm serve Qwen/Qwen-Image --omni --usp $USP\n",
        "test:\n  image: vllm/vllm-omni:v0.30.0\n  script:\n    - vllm serve Qwen/Qwen-Image --omni --usp 2\n",
        "steps:\n  - label: a\n    commands:\n      - vllm serve Qwen/Qwen-Image --omni --usp 2\n",
        "num_nodes: 1\nresources: {accelerators: H100:2}\nrun: |\n  vllm serve Qwen/Qwen-Image --omni --usp 2\n",
        "apiVersion: ray.io/v1\nkind: RayJob\nspec:\n  entrypoint: vllm serve Qwen/Qwen-Image --omni --usp 2\n",
        "apiVersion: serving.kserve.io/v1beta1\nkind: InferenceService\nspec:\n  predictor:\n    containers:\n"
        "      - command: [vllm, serve, Qwen/Qwen-Image]\n        args: [--omni, --usp, '2']\n",
        "apiVersion: jobset.x-k8s.io/v1alpha2\nkind: JobSet\nspec:\n  replicatedJobs:\n    - template: {spec: "
        "{template: {spec: {containers: [{command: [sh, -c, 'vllm serve Qwen/Qwen-Image --omni --usp 2']}]}}}}\n",
        "apiVersion: ome.io/v1beta1\nkind: ClusterServingRuntime\nspec:\n  engineConfig:\n    runner:\n"
        "      command: [sglang, serve, --model-path, Qwen/Qwen-Image, --num-gpus, '2', --ulysses-degree, '2']\n",
        "image: {repository: vllm/vllm-omni, tag: v0.30.0}\nargs: [--model, Qwen/Qwen-Image, --usp, '2']\n",
    ],
    ids=["github", "gitlab", "buildkite", "skypilot", "ray", "kserve", "jobset", "ome", "values"],
)
def test_a_command_is_found_in_its_manifest(text: str) -> None:
    result = one(text)
    assert (said(result, "model"), said(result, "ulysses_degree")) == ("Qwen/Qwen-Image", 2)


def test_what_only_an_expression_knows_is_unknown() -> None:
    text = "jobs:\n  a:\n    steps:\n      - run: vllm serve Qwen/Qwen-Image --omni --usp ${{ matrix.usp }} --ring 2\n"
    result = one(text)
    assert (said(result, "ulysses_degree"), said(result, "ring_degree")) == (None, 2)
    assert "--usp (its value is known only to a run)" in passed_by(result)


TEMPLATE = """\
{{- if .Values.enabled }}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "a.fullname" . }}
  labels:
    {{- include "a.labels" . | nindent 4 }}
spec:
  replicas: {{ .Values.replicas | default 1 }}
  template:
    spec:
      containers:
        - name: {{ .Chart.Name }}
          image: "{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}"
          command: ["vllm", "serve"]
          args:
            - {{ .Values.model | quote }}
            - --omni
            - --usp
            - {{ .Values.usp | quote }}
            - "--ring={{ .Values.ring | default 2 }}"
            {{- if .Values.tiling }}
            - --vae-use-tiling
            {{- else }}
            - --no-such-flag
            {{- end }}
            {{/* more */}}
            - --cfg-parallel-size={{ .Values.cfg }}
          resources:
            limits:
              nvidia.com/gpu: {{ .Values.gpus }}
{{- end }}
"""
VALUES = """\
enabled: true
model: Qwen/Qwen-Image
image: {repository: vllm/vllm-omni, tag: v0.30.0}
usp: 2
ring: null
tiling: true
gpus: 4
"""


@pytest.fixture
def chart(tmp_path: Path) -> Path:
    (tmp_path / "templates").mkdir()
    (tmp_path / "Chart.yaml").write_text("apiVersion: v2\nname: a\nversion: 0.1.0\n")
    (tmp_path / "values.yaml").write_text(VALUES)
    (tmp_path / "templates" / "deployment.yaml").write_text(TEMPLATE)
    return tmp_path


def of_template(chart: Path) -> list[CheckResult]:
    return check(chart / "templates" / "deployment.yaml")


def test_a_template_is_filled_in_with_the_values_of_its_chart(chart: Path) -> None:
    (result,) = of_template(chart)
    assert (said(result, "model"), said(result, "ulysses_degree"), said(result, "ring_degree")) == (
        "Qwen/Qwen-Image",
        2,
        2,
    )
    assert said(result, "vae_use_tiling") is True
    assert "--cfg-parallel-size (its value is known only to a run)" in passed_by(result)
    assert "vllm-omni:v0.30.0" in result.judged_by
    assert {finding.code for finding in result.findings if finding.severity != "advice"} == set()


def test_a_finding_in_a_template_has_its_place(chart: Path) -> None:
    (chart / "values.yaml").write_text(VALUES.replace("tiling: true", "tiling: false"))
    (result,) = of_template(chart)
    (finding,) = [finding for finding in result.findings if finding.code == "OMNI611"]
    assert finding.span is not None
    assert (
        finding.span.source.line(finding.span.line)[finding.span.column - 1 : finding.span.end - 1] == "--no-such-flag"
    )


def test_gpus_of_a_template_are_counted(chart: Path) -> None:
    template = chart / "templates" / "deployment.yaml"
    template.write_text(TEMPLATE.replace("            - --cfg-parallel-size={{ .Values.cfg }}\n", ""))
    assert "OMNI810" not in {finding.code for result in of_template(chart) for finding in result.findings}
    (chart / "values.yaml").write_text(VALUES.replace("gpus: 4", "gpus: 2"))
    assert "OMNI810" in {finding.code for result in of_template(chart) for finding in result.findings}


@pytest.mark.parametrize(
    "change", [("if .Values.tiling", "if or .Values.a .Values.b"), ("if .Values.tiling", "with .Values.a")]
)
def test_a_branch_that_only_a_render_knows_is_left_out_and_named(chart: Path, change: tuple[str, str]) -> None:
    template = chart / "templates" / "deployment.yaml"
    template.write_text(TEMPLATE.replace(*change))
    (result,) = of_template(chart)
    assert said(result, "vae_use_tiling") is None
    assert "words that only a render of the template knows" in passed_by(result)


def test_a_template_without_its_chart_is_read_as_far_as_it_is_plain(tmp_path: Path) -> None:
    (result,) = check_bytes("deployment.yaml", TEMPLATE.encode())
    assert "OMNI604" in {finding.code for finding in result.findings}
    assert "--usp (its value is known only to a run)" in passed_by(result)


def test_a_chart_that_is_off_deploys_nothing(chart: Path) -> None:
    (chart / "values.yaml").write_text(VALUES.replace("enabled: true", "enabled: false"))
    (result,) = of_template(chart)
    assert not result.foreign


def test_a_chart_is_rendered_first(chart: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = chart / "bin"
    folder.mkdir()
    helm = folder / "helm"
    helm.write_text('#!/bin/sh\n[ "$1 $2" = "template release" ] && exec cat "$3/rendered.yaml"\n')
    helm.chmod(0o755)
    (chart / "rendered.yaml").write_text(
        "containers:\n  - command: [vllm, serve, Qwen/Qwen-Image, --omni, --no-such-flag]\n"
    )
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    result = runner.invoke(app(), ["check", "--render", str(chart)])
    assert result.exit_code == 1
    assert f"{chart} (helm template):2:" in result.output
    (chart / "rendered.yaml").unlink()
    result = runner.invoke(app(), ["check", "--render", str(chart)])
    assert result.exit_code == 2
    assert "helm template release" in result.output


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("Chart.yaml", "helm is not installed"),
        ("kustomization.yaml", "kustomize nor kubectl is not installed"),
        ("other.yaml", "neither a chart of Helm (Chart.yaml) nor an overlay (kustomization.yaml)"),
    ],
)
def test_what_cannot_be_rendered_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, words: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / file).write_text("a: 1\n")
    result = runner.invoke(app(), ["check", "--render", str(tmp_path)])
    assert result.exit_code == 2
    assert words in result.output


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_an_overlay_is_built_by_kubectl(tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text("resources: [pod.yaml]\n")
    (tmp_path / "pod.yaml").write_text(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a, command: [vllm, serve,"
        " Qwen/Qwen-Image, --omni, --usp, '2']}]}\n"
    )
    name, text = render.render(str(tmp_path))
    assert name.startswith(str(tmp_path))
    assert said(one(text.decode()), "ulysses_degree") == 2


def test_nothing_to_check_is_said() -> None:
    result = runner.invoke(app(), ["check"])
    assert result.exit_code == 2
    assert "give files or folders" in result.output


def test_a_folder_has_steps_of_ci_and_every_dockerfile(tmp_path: Path) -> None:
    line = "vllm serve Qwen/Qwen-Image --omni --usp 2"
    for name in (".github/workflows/a.yml", ".buildkite/b.yaml"):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_text(f"steps:\n  - run: {line}\n")
    for name in ("Dockerfile", "Dockerfile.cuda", "Containerfile"):
        (tmp_path / name).write_text(f"FROM a\nCMD {line}\n")
    for name in ("job.sbatch", "run.sh"):
        (tmp_path / name).write_text(f"{line}\n")
    (tmp_path / "c.json").write_text('{"command": ["vllm", "serve", "Qwen/Qwen-Image", "--omni", "--usp", "2"]}\n')
    (tmp_path / "d.py").write_text("from vllm_omni import Omni\nOmni(model='Qwen/Qwen-Image')\n")
    result = runner.invoke(app(), ["check", str(tmp_path)])
    assert "9 configs checked" in result.output, result.output


def test_a_hook_sets_files_of_other_purposes_aside(tmp_path: Path) -> None:
    for name, text in {"a.py": "import os\n", "b.yaml": "a: 1\n", "c.sh": "echo\n", "d.py": "", "e.json": "{}"}.items():
        (tmp_path / name).write_text(text)
    names = [str(path) for path in sorted(tmp_path.iterdir())]
    assert runner.invoke(app(), ["check", *names]).exit_code == 2
    result = runner.invoke(app(), ["check", "--set-aside", *names])
    assert result.exit_code == 0
    assert "5 files are of other forms" in result.output
    (tmp_path / "run.sh").write_text("vllm serve Qwen/Qwen-Image --omni --no-such-flag\n")
    assert runner.invoke(app(), ["check", "--set-aside", *names, str(tmp_path / "run.sh")]).exit_code == 1
    assert runner.invoke(app(), ["check", "--set-aside", str(tmp_path / "gone.py")]).exit_code == 2


def test_the_hook_and_the_action_are_for_every_file_that_may_deploy() -> None:
    root = Path(__file__).parents[2]
    hook = yaml.safe_load((root / ".pre-commit-hooks.yaml").read_text())[0]
    assert hook["types_or"] == ["yaml", "json", "python", "jupyter", "shell", "dockerfile"]
    assert "--set-aside" in hook["entry"]
    action = yaml.safe_load((root / "action.yml").read_text())
    script = action["runs"]["steps"][-1]
    inputs = set(action["inputs"]) - {"python-version"}
    assert {f"${{{{ inputs.{name} }}}}" for name in inputs} == set(script["env"].values())
    pages = (root / "docs" / "ci.md").read_text()
    assert all(f"`{suffix}`" in pages for suffix in (*SUFFIXES, *SCRIPTS) if suffix != ".dockerfile")
