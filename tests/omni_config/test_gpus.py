"""The GPUs that a deployment itself says are held against what its engine takes, wherever it says them."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from omni_config.checking.files import check, check_bytes
from omni_config.cli import app
from omni_config.findings import Finding

SERVE = "vllm serve Qwen/Qwen-Image --omni --usp 4"
FEW, SPARE, TWO = "OMNI810", "OMNI811", "OMNI812"


def found(text: str, name: str = "a.yaml") -> dict[str, Finding]:
    results = check_bytes(name, text.encode())
    findings = [finding for result in results for finding in result.findings]
    assert all(result.foreign for result in results), findings
    assert len({finding.code for finding in findings}) == len(findings)
    return {finding.code: finding for finding in findings if finding.severity != "advice"}


def under_the_caret(finding: Finding) -> str:
    assert finding.span is not None
    return finding.span.source.line(finding.span.line)[finding.span.column - 1 : finding.span.end - 1]


def pod(gpus: str, command: str = SERVE, more: str = "", kind: str = "Pod") -> str:
    words = ", ".join(f'"{word}"' for word in command.split())
    return f"""\
apiVersion: v1
kind: {kind}
spec:
  containers:
    - name: a
      image: vllm/vllm-omni:v0.30.0
      command: [{words}]
      resources: {gpus}{more}
"""


def service(devices: str, command: str = SERVE, more: str = "") -> str:
    return f"""\
services:
  a:
    image: vllm/vllm-omni:v0.30.0
    command: {command}
    {devices}{more}
"""


def reserved(device: str) -> str:
    return f"deploy: {{resources: {{reservations: {{devices: [{device}]}}}}}}"


def job(lines: str, command: str) -> str:
    return f"#!/bin/bash\n{lines}\n{command}\n"


XDIT = "torchrun --nproc-per-node 4 {} -m xfuser.runner --model FLUX.1-dev --ulysses_degree 4 --ring_degree {}"


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        (pod("{limits: {nvidia.com/gpu: 2}}"), {FEW}),
        (pod('{limits: {nvidia.com/gpu: "4"}}'), set()),
        (pod("{limits: {nvidia.com/gpu: 8}}"), {SPARE}),
        (pod("{limits: {amd.com/gpu: 2}}"), {FEW}),
        (pod("{requests: {nvidia.com/gpu: 4}}"), set()),
        (pod("{limits: {nvidia.com/gpu: 4}, requests: {nvidia.com/gpu: 2}}"), {TWO}),
        (pod("{limits: {nvidia.com/gpu: 4}, requests: {nvidia.com/gpu: 4}}"), set()),
        (pod("{limits: {cpu: 4}}"), set()),
        (pod("{limits: {nvidia.com/mig-1g.10gb: 1}}"), set()),
        (service(reserved("{driver: nvidia, count: 2, capabilities: [gpu]}")), {FEW}),
        (service(reserved("{driver: nvidia, count: all, capabilities: [gpu]}")), set()),
        (service(reserved("{driver: nvidia, device_ids: ['0', '3'], capabilities: [gpu]}")), {FEW}),
        (service(reserved("{driver: nvidia, count: 4, device_ids: ['0', '3'], capabilities: [gpu]}")), {TWO}),
        (service(reserved("{driver: x, count: 1, capabilities: [tpu]}")), set()),
        (service("gpus: all"), set()),
        (service("gpus: [{driver: nvidia, count: 2}]"), {FEW}),
        (service("environment: {CUDA_VISIBLE_DEVICES: '0,1'}"), {FEW}),
        (service("environment: [CUDA_VISIBLE_DEVICES=0]"), {FEW}),
        (service("environment: [CUDA_VISIBLE_DEVICES]"), set()),
        (service("environment: {CUDA_VISIBLE_DEVICES: '$GPUS'}"), set()),
        (service("environment: {NVIDIA_VISIBLE_DEVICES: '0,1'}\n    runtime: nvidia"), {FEW}),
        (service("environment: {NVIDIA_VISIBLE_DEVICES: all}\n    runtime: nvidia"), set()),
    ],
)
def test_containers_say_their_gpus(text: str, codes: set[str]) -> None:
    assert found(text).keys() == codes


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        (f"docker run --gpus 2 vllm/vllm-omni:v0.30.0 {SERVE}", {FEW}),
        (f"docker run --rm --gpus all --ipc=host -v /a:/b vllm/vllm-omni:v0.30.0 {SERVE}", set()),
        (f"docker run --gpus=8 vllm/vllm-omni:v0.30.0 {SERVE}", {SPARE}),
        (f"docker run --gpus '\"device=3,4\"' vllm/vllm-omni:v0.30.0 {SERVE}", {FEW}),
        (f"docker run --gpus device=3 vllm/vllm-omni:v0.30.0 {SERVE}", {FEW}),
        (f"docker run --gpus device=0,1 vllm/vllm-omni:v0.30.0 {SERVE}", {TWO}),
        (f"docker run --gpus 4 -e CUDA_VISIBLE_DEVICES=4,5,6,7 vllm/vllm-omni:v0.30.0 {SERVE}", {TWO}),
        (f"docker run --gpus 4 -e CUDA_VISIBLE_DEVICES=2,3,4,5 vllm/vllm-omni:v0.30.0 {SERVE}", {TWO, FEW}),
        (f"docker run --gpus all -e CUDA_VISIBLE_DEVICES=4,5,6,7 vllm/vllm-omni:v0.30.0 {SERVE}", set()),
        (f"docker run --gpus 8 -e CUDA_VISIBLE_DEVICES=4,5 vllm/vllm-omni:v0.30.0 {SERVE}", {TWO, FEW}),
        (f"CUDA_VISIBLE_DEVICES=0 docker run --gpus 4 vllm/vllm-omni:v0.30.0 {SERVE}", set()),
        (f"docker run --gpus 2 vllm/vllm-omni:v0.30.0 bash -c 'exec {SERVE}'", {FEW}),
        (f"CUDA_VISIBLE_DEVICES=0,1 {SERVE}", {FEW}),
        (f"export CUDA_VISIBLE_DEVICES=0,1\nexec {SERVE}", {FEW}),
        (f"env CUDA_VISIBLE_DEVICES=0,1 {SERVE}", {FEW}),
        (f"CUDA_VISIBLE_DEVICES=$FREE {SERVE}", set()),
        (f"CUDA_VISIBLE_DEVICES= {SERVE}", set()),
        (f"CUDA_VISIBLE_DEVICES=0,1,2,3,4,5,6,7 {SERVE}", {SPARE}),
        ("CUDA_VISIBLE_DEVICES=0,1 vllm serve Qwen/Qwen-Image --omni --usp $N", set()),
        ('CUDA_VISIBLE_DEVICES=0 vllm serve Qwen/Qwen-Image --omni --usp 2 "$@"', set()),
        ("CUDA_VISIBLE_DEVICES=0 sglang serve --model-path Qwen/Qwen-Image --num-gpus 2 --sp-degree 2", {FEW}),
        ("CUDA_VISIBLE_DEVICES=0,1 sglang serve --model-path Qwen/Qwen-Image --num-gpus 2 --sp-degree 2", set()),
        ("CUDA_VISIBLE_DEVICES=0,1 sglang serve --model-path Qwen/Qwen-Image --num-gpus $N --tp-size 2", set()),
        ("CUDA_VISIBLE_DEVICES=0,1 sglang serve --model-path Qwen/Qwen-Image", {SPARE}),
        ("CUDA_VISIBLE_DEVICES=0 vllm serve /models/Qwen-Image --omni -tp 2", {FEW}),
        ("CUDA_VISIBLE_DEVICES=0 vllm serve /models/mine --omni -tp 2", set()),  # it may be a language model
        ("CUDA_VISIBLE_DEVICES=0 vllm serve /models/mine --omni --usp 2", {FEW}),
        ("CUDA_VISIBLE_DEVICES=0,1 vllm serve ByteDance-Seed/BAGEL-7B-MoT --omni", set()),  # another stage may have it
    ],
)
def test_commands_say_their_gpus(text: str, codes: set[str]) -> None:
    assert found(text + "\n", "run.sh").keys() == codes


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        (job("#SBATCH --gpus-per-node=2", SERVE), {FEW}),
        (job("#SBATCH --gres=gpu:h100:4", SERVE), set()),
        (job("#SBATCH --gres=gpu:8", SERVE), {SPARE}),
        (job("#SBATCH --gres=gpu:2", f"CUDA_VISIBLE_DEVICES=4,5,6,7 {SERVE}"), {TWO}),
        (job("#SBATCH --gres=gpu:4", f"CUDA_VISIBLE_DEVICES=4,5,6,7 {SERVE}"), set()),  # as they are numbered there
        (job("#SBATCH -N 2\n#SBATCH --gpus 8", f"srun --mpi=pmix {SERVE}"), {SPARE}),
        (job("#SBATCH --gpus-per-node=8", f"srun --gres=gpu:4 -N1 {SERVE}"), set()),
        (job("#SBATCH --gpus-per-node=4\n#SBATCH --gres=gpu:8", SERVE), {TWO}),
        (job("#SBATCH --nodes=2\n#SBATCH --gpus-per-node=4", XDIT.format("--nnodes 2", 2)), set()),
        (job("#SBATCH --nodes=2\n#SBATCH --gpus-per-node=2", XDIT.format("--nnodes=2", 2)), {FEW}),
        (job("#SBATCH --nodes=1\n#SBATCH --gpus-per-node=2", XDIT.format("", 1)), {FEW}),
        (job("#SBATCH --gpus-per-node=1", XDIT.format("--nnodes $N", 2)), set()),
        (
            job(
                "#SBATCH --gpus-per-node=8",
                f"CUDA_VISIBLE_DEVICES=0,1,2,3 {SERVE} &\nCUDA_VISIBLE_DEVICES=4,5,6,7 {SERVE}",
            ),
            set(),
        ),
    ],
)
def test_jobs_of_slurm_say_their_gpus(text: str, codes: set[str]) -> None:
    assert {f.code for r in check_bytes("job.sh", text.encode()) for f in r.findings if f.severity != "advice"} == codes


def test_a_finding_has_both_places() -> None:
    few = found(pod("{limits: {nvidia.com/gpu: 2}}"))[FEW]
    assert "4 GPUs are needed, and the deployment gives 2 (nvidia.com/gpu: 2)" in few.message
    assert (few.span.line if few.span else 0, [span.line for span in few.related]) == (8, [7])
    assert under_the_caret(few) == "2"
    text = pod("{limits: {nvidia.com/gpu: 2}}", more="\n      env: [{name: CUDA_VISIBLE_DEVICES, value: '2,3'}]")
    two = found(text)[TWO]
    assert (under_the_caret(two), [span.line for span in two.related]) == ("'2,3'"[1:4], [8])
    assert "names GPU 2" in two.message
    assert two.severity == "error"


def test_a_group_of_workers_has_the_gpus_of_all() -> None:
    text = f"""\
apiVersion: leaderworkerset.x-k8s.io/v1
kind: LeaderWorkerSet
spec:
  leaderWorkerTemplate:
    size: 2
    leaderTemplate:
      spec:
        containers:
          - command: ["sh", "-c", "{SERVE}"]
            resources: {{limits: {{nvidia.com/gpu: 2}}}}
"""
    assert found(text) == {}
    assert found(text.replace("size: 2", "size: 1")).keys() == {FEW}


def test_dynamo_says_its_gpus_beside_the_container() -> None:
    text = """\
apiVersion: nvidia.com/v1alpha1
kind: DynamoGraphDeployment
spec:
  services:
    Worker:
      resources: {limits: {gpu: "1"}}
      extraPodSpec:
        mainContainer:
          command: [python3, -m, dynamo.sglang]
          args: [--model-path, Qwen/Qwen-Image, --image-diffusion-worker, --num-gpus, "2", --tp-size, "2"]
"""
    assert found(text).keys() == {FEW}


def test_a_task_of_skypilot_says_its_accelerators() -> None:
    text = f"resources:\n  accelerators: H100:2\nenvs: {{N: 4}}\nrun: |\n  {SERVE.replace('4', '$N')}\n"
    assert found(text).keys() == {FEW}
    assert found(text.replace("H100:2", "{H100: 4}")) == {}


@pytest.mark.parametrize(("gpus", "codes"), [("2", {FEW}), ("4", set()), ("8", set())])
def test_the_command_line_says_the_gpus_of_a_file_that_cannot(tmp_path: Path, gpus: str, codes: set[str]) -> None:
    path = tmp_path / "run.sh"
    path.write_text(SERVE + "\n")
    (result,) = check(path, assume={"gpus": gpus})
    assert {finding.code for finding in result.findings if finding.severity != "advice"} == codes


def test_the_command_line_says_the_gpu_of_a_file_that_cannot(tmp_path: Path) -> None:
    path = tmp_path / "run.sh"
    path.write_text("vllm serve Qwen/Qwen-Image --omni\n")
    assert "OMNI801" not in CliRunner().invoke(app(), ["check", str(path)]).output
    assert "OMNI801" in CliRunner().invoke(app(), ["check", "--gpu", "l4", str(path)]).output
    assert "OMNI801" not in CliRunner().invoke(app(), ["check", "--gpu", "h100", "--gpus", "1", str(path)]).output


SCRIPT = """\
import os
import ray
from ray import serve
from vllm_omni import Omni
from vllm_omni.diffusion.data import DiffusionParallelConfig

{}
class Images:
    def __init__(self):
        self.omni = Omni(model="Qwen/Qwen-Image", parallel_config=DiffusionParallelConfig(ulysses_degree=4))


Images()
"""


@pytest.mark.parametrize(
    ("lines", "codes"),
    [
        ("", set()),
        ('os.environ["CUDA_VISIBLE_DEVICES"] = "0,1"', {FEW}),
        ("os.environ.setdefault('CUDA_VISIBLE_DEVICES', '0,1,2,3')", set()),
        ("os.environ['CUDA_VISIBLE_DEVICES'] = '0,1,2,3,4,5,6,7'", {SPARE}),
        ("# os.environ['CUDA_VISIBLE_DEVICES'] = '0'", set()),
        ("os.environ['CUDA_VISIBLE_DEVICES'] = gpus", set()),
        ("@ray.remote(num_gpus=2)", {FEW}),
        ("@ray.remote(num_cpus=(1 + 1), num_gpus=4)", set()),
        ("@ray.remote(num_gpus=0.5)", set()),
        ('@serve.deployment(name="a", ray_actor_options={"num_gpus": 8, "num_cpus": 4})', {SPARE}),
        ('@serve.deployment(ray_actor_options={"num_gpus": 2})', {FEW}),
        ("@serve.deployment", set()),
    ],
)
def test_a_script_says_the_gpus_that_it_shows_itself_or_its_actor_asks_for(lines: str, codes: set[str]) -> None:
    results = check_bytes("deploy.py", SCRIPT.format(lines).encode())
    assert {f.code for result in results for f in result.findings if f.severity != "advice"} == codes
