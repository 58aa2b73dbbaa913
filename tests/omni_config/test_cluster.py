"""Jobs for clusters: what their own schemas and shellcheck say of them, and that they start the same Plan."""

from __future__ import annotations

import copy
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from pydantic import ValidationError
from typer.testing import CliRunner

from omni_config.cli import app

KUBERNETES = "1.31"
LINE = ["--model", "tiny", "--prompt", "it's a 'red' $star", "--ring", "2", "--usp", "2"]
NODES = [[], ["--gpus-per-node", "2"]]
omni = [sys.executable, "-m", "omni_config"]


def emit(cluster: str, line: list[str]) -> str:
    result = CliRunner().invoke(app(["launch", "plan"]), ["launch", *LINE, *line, "--emit", cluster])
    assert result.exit_code == 0, result.output
    return result.stdout


def plan(line: list[str]) -> dict[str, Any]:
    return json.loads(CliRunner().invoke(app(["launch", "plan"]), ["plan", "--json", *line]).stdout)


def same_plan(config: str, line: list[str], tmp_path: Path) -> bool:
    path = tmp_path / "emitted.yaml"
    path.write_text(config)
    return plan([str(path)]) == plan([*LINE, *line])


@pytest.mark.parametrize("line", NODES)
def test_a_jobset(line: list[str], tmp_path: Path) -> None:
    """Kubernetes' own schemas, and the models that the OpenAPI description of JobSet v1alpha2 gives."""
    from kubeflow_trainer_api.models.jobset_v1alpha2_job_set import JobsetV1alpha2JobSet

    config, service, jobset = yaml.safe_load_all(emit("kubernetes", line))
    (replicated,) = jobset["spec"]["replicatedJobs"]
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "node"}, **replicated["template"]}
    for document in (config, service, job):
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    assert JobsetV1alpha2JobSet.from_dict(jobset).to_dict() == jobset  # what it does not know, it drops

    assert service["spec"]["selector"] == {"jobset.sigs.k8s.io/jobset-name": jobset["metadata"]["name"]}
    assert jobset["spec"]["network"]["subdomain"] == service["metadata"]["name"]
    assert replicated["template"]["spec"]["parallelism"] == (2 if line else 1)
    (text,) = config["data"].values()
    assert same_plan(text, line, tmp_path)
    (container,) = replicated["template"]["spec"]["template"]["spec"]["containers"]
    (tmp_path / "config.yaml").write_text(text)
    start = [str(tmp_path / "config.yaml") if word.startswith("/etc") else word for word in container["command"]]
    start = [word.replace("$(NODE_RANK)", "1") for word in start][1:]
    done = subprocess.run([*omni, *start, "--dry-run"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ("--node-rank 1 " in done.stdout) == bool(line)


def test_the_schemas_notice_a_typing_error() -> None:
    from kubeflow_trainer_api.models.jobset_v1alpha2_job_set import JobsetV1alpha2JobSet

    _, service, jobset = yaml.safe_load_all(emit("kubernetes", []))
    service["spec"]["selektor"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(service, KUBERNETES, strict=True)
    for place, key, value in (("network", "subDomain", "x"), ("failurePolicy", "maxRestarts", "none")):
        wrong = copy.deepcopy(jobset)
        wrong["spec"][place][key] = value
        try:
            assert JobsetV1alpha2JobSet.from_dict(wrong).to_dict() != wrong
        except ValidationError:
            continue


@pytest.mark.parametrize("line", NODES)
def test_an_sbatch_script(line: list[str], tmp_path: Path) -> None:
    """shellcheck finds nothing; run with an srun that starts a task a node, each task starts its node of the Plan."""
    script = emit("slurm", line)
    (tmp_path / "job.sh").write_text(script)
    subprocess.run([Path(sys.executable).with_name("shellcheck"), tmp_path / "job.sh"], check=True)
    options = [word.removeprefix("#SBATCH --") for word in script.splitlines() if word.startswith("#SBATCH ")]
    assert dict(option.split("=") for option in options if "=" in option) == {
        "job-name": "omni-tiny",
        "nodes": "2" if line else "1",
        "ntasks-per-node": "1",
        "gpus-per-node": "2" if line else "4",
    }
    programs = {
        "srun": 'shift; for SLURM_NODEID in 0 1; do export SLURM_NODEID; "$@"; done',
        "scontrol": "printf 'node7\\nnode8\\n'",
        "omni": f'{shlex.join(omni)} "$@" --dry-run',
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    job = {"SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_JOB_ID": "5", "SLURM_JOB_NODELIST": "node[7-8]"}
    environment = os.environ | job | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "job.sh"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    commands = done.stdout.splitlines()
    for rank, command in enumerate(commands):
        meet = f"--nnodes 2 --node-rank {rank} --rdzv-backend static --rdzv-endpoint node7:29500 --nproc-per-node 2 "
        assert (meet in command) == bool(line)
    assert same_plan((tmp_path / "omni-tiny-5.yaml").read_text(), line, tmp_path)


def test_an_unknown_cluster() -> None:
    result = CliRunner().invoke(app(["launch", "plan"]), ["launch", *LINE, "--emit", "pbs"])
    assert result.exit_code == 2
    assert "--emit pbs: expected slurm or kubernetes" in result.output
