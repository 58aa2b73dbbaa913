"""A deployment as a job of a cluster: an sbatch script of Slurm, or a JobSet of Kubernetes. Each carries the config.

Both start ``omni launch`` once a node, with torchrun's words for where the nodes meet. Nothing in them is decided here:
nodes and ranks a node are those of the Plan.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

import yaml

from omni_config import __version__
from omni_config.plan import Plan

PORT = 29500  # of the rendezvous; torchrun's own default
_CONFIG = "/etc/omni/config.yaml"


def slurm(plan: Plan, config: str) -> str:
    """An sbatch script; the config is written into the folder it is submitted from, which all nodes must see."""
    line = ["omni", "launch", '"$config"']
    if plan.mesh.nodes > 1:
        line += ["--nnodes", str(plan.mesh.nodes), "--node-rank", '"$SLURM_NODEID"', "--rdzv-endpoint", '"$endpoint"']
    quoted = [word if word.startswith('"') else shlex.quote(word) for word in line]
    task = f"srun --kill-on-bad-exit=1 bash -c '{' '.join(quoted)}'"
    meet = 'endpoint="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1):' + f'{PORT}"\n'
    return f"""#!/bin/bash
#SBATCH --job-name={name_of(plan)}
#SBATCH --nodes={plan.mesh.nodes}
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node={plan.mesh.ranks_per_node}
#SBATCH --exclusive
{on_nodes(files(plan))}# Partition, account and time are given to sbatch. omni must be on the PATH of each node.
set -euo pipefail
config="$SLURM_SUBMIT_DIR/{name_of(plan)}-$SLURM_JOB_ID.yaml"
cat > "$config" <<'END_OF_CONFIG'
{config.rstrip()}
END_OF_CONFIG
{meet if plan.mesh.nodes > 1 else ""}export config{" endpoint" if plan.mesh.nodes > 1 else ""}
# shellcheck disable=SC2016  # each task expands its own variables
{task}
"""


def kubernetes(plan: Plan, config: str) -> str:
    """A ConfigMap with the config, a headless Service, and a JobSet (v1alpha2) with a pod a node.

    The image ``omni-config`` and the claim ``omni-output``, for the output folder, are to be there or renamed.
    """
    name, nodes = name_of(plan), plan.mesh.nodes
    command = ["omni", "launch", _CONFIG]
    if nodes > 1:
        endpoint = f"{name}-node-0-0.{name}:{PORT}"
        command += ["--nnodes", str(nodes), "--node-rank", "$(NODE_RANK)", "--rdzv-endpoint", endpoint]
    index = {"fieldRef": {"fieldPath": "metadata.annotations['batch.kubernetes.io/job-completion-index']"}}
    folder = str(PurePosixPath("/work") / plan.output)
    mounts = {"config": str(PurePosixPath(_CONFIG).parent), "output": folder, "shm": "/dev/shm"}  # noqa: S108
    container = {
        "name": "omni",
        "image": f"omni-config:{__version__}",
        "workingDir": "/work",
        "command": command,
        "env": [{"name": "NODE_RANK", "valueFrom": index}],
        "ports": [
            {"name": "store", "containerPort": PORT, "protocol": "TCP"},
            {"name": "launcher", "containerPort": PORT, "protocol": "UDP"},
        ],
        "resources": {"limits": {"nvidia.com/gpu": plan.mesh.ranks_per_node}},
        "volumeMounts": [{"name": volume, "mountPath": path} for volume, path in mounts.items()],
    }
    volumes = [
        {"name": "config", "configMap": {"name": name}},
        {"name": "output", "persistentVolumeClaim": {"claimName": "omni-output"}},
        {"name": "shm", "emptyDir": {"medium": "Memory"}},  # NCCL needs more than a container's 64 MiB
    ]
    job = {
        "parallelism": nodes,
        "completions": nodes,
        "completionMode": "Indexed",
        "backoffLimit": 0,  # a rank that is gone cannot come back into a run
        "template": {"spec": {"restartPolicy": "Never", "containers": [container], "volumes": volumes}},
    }
    documents: list[dict[str, Any]] = [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name},
            "data": {PurePosixPath(_CONFIG).name: config},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name},
            "spec": {
                "clusterIP": "None",
                "publishNotReadyAddresses": True,
                "selector": {"jobset.sigs.k8s.io/jobset-name": name},
            },
        },
        {
            "apiVersion": "jobset.x-k8s.io/v1alpha2",
            "kind": "JobSet",
            "metadata": {"name": name},
            "spec": {
                "network": {"enableDNSHostnames": True, "subdomain": name},
                "failurePolicy": {"maxRestarts": 0},
                "replicatedJobs": [{"name": "node", "replicas": 1, "template": {"spec": job}}],
            },
        },
    ]
    return on_nodes(files(plan)) + dumped(documents)


EMITTERS: dict[str, Callable[[Plan, str], str]] = {"slurm": slurm, "kubernetes": kubernetes}


def dumped(documents: list[dict[str, Any]]) -> str:
    """Documents of YAML, with texts of several lines as such."""
    return yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, width=120)


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as such, and what is there twice, twice."""

    def ignore_aliases(self, _: Any) -> bool:
        """Everywhere."""
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def files(plan: Plan) -> list[str]:
    """Paths of what a plan reads, beside what it downloads."""
    local = plan.model.source.startswith(("/", ".", "~"))
    paths = [*([plan.model.source] if local else []), *(lora.path for lora in plan.lora), plan.sampling.image]
    return [path for path in paths if path]


def on_nodes(paths: list[str]) -> str:
    """A comment on what each node is to have, beside the config."""
    return f"# Each node must have, under the same path: {', '.join(paths)}\n" if paths else ""


def name_of(plan: Plan) -> str:
    """``omni-`` and the model, in the letters that a DNS label may have."""
    return "omni-" + re.sub(r"[^a-z0-9]+", "-", plan.model.id.rpartition("/")[2].lower()).strip("-")[:40].strip("-")
