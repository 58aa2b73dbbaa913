"""A server as what a cluster starts: manifests of Kubernetes, a compose file, or an application of Ray Serve.

Nothing in them is decided here: GPUs, command and version are those of the config. What is served runs on one machine.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from omni_config.output.cluster import dumped

CONFIG = "/etc/omni/config.yaml"
KEY = "/run/secrets/omni/api-key"
_MODELS = "/models"
_SHARED_MEMORY = "/dev/shm"  # noqa: S108 (NCCL needs more of it than a container's 64 MiB)
_SLOWEST_START = 3600  # seconds, as weights may have to be downloaded
_WAITING_A_POD = 4  # requests, on average, before another pod is started

#: Images of the engines, and what comes before their version in a tag.
_IMAGES = {"native": "omni-config:", "vllm-omni": "vllm/vllm-omni:v", "sglang": "lmsysorg/sglang:v"}


@dataclass(frozen=True)
class Server:
    """What is started, on one machine."""

    name: str
    image: str
    command: list[str]
    environment: dict[str, str]
    config: str | None
    """The text of the file ``CONFIG``, of the built-in runtime."""
    port: int
    gpus: int
    """Of one copy."""
    copies: int
    """Where they may be started apart; 1 where jobs live in one of them."""
    is_ready: str
    """Path that answers 200 once requests are worked on."""
    is_alive: str
    queue: str | None
    """The metric of the requests that wait."""
    drain: int
    """Seconds that requests get to end in."""
    comment: str = ""

    @property
    def key_variable(self) -> str | None:
        """The variable that holds the key of an engine that reads it there."""
        return "VLLM_API_KEY" if self.command[0] == "vllm" else None


def image_of(engine: str, version: str) -> str:
    """The published image of a version, whose tags have three numbers.

    Raises:
        KeyError: no image of the engine is known.
    """
    release, rest = re.match(r"([0-9.]*)(.*)", version).groups()  # type: ignore[union-attr]
    numbers = release.split(".")
    return _IMAGES[engine] + ".".join([*numbers, *["0"] * (3 - len(numbers))]) + rest


def kubernetes(server: Server) -> str:
    """A Deployment with its Service and PodDisruptionBudget; of the built-in runtime, with its config in a ConfigMap,
    and, where copies may be added, a HorizontalPodAutoscaler on the requests that wait.

    The image, the claim ``omni-models`` and the Secret of the key are to be there or renamed.
    """
    labels = {"app.kubernetes.io/name": server.name}
    selector = {"matchLabels": labels}
    scales = server.queue is not None
    spec: dict[str, Any] = {"replicas": None if scales else server.copies, "selector": selector}
    if not scales:
        spec["strategy"] = {"type": "Recreate"}  # there are no GPUs for an old and a new one
    template = {"metadata": {"labels": labels}, "spec": _pod(server)}
    documents = [
        _document("v1", "Service", server, {"selector": labels, "ports": [{"name": "http", "port": server.port}]}),
        _document("apps/v1", "Deployment", server, {**_said(spec), "template": template}),
        _document("policy/v1", "PodDisruptionBudget", server, {"maxUnavailable": 1, "selector": selector}),
    ]
    if server.config is not None:
        config = {PurePosixPath(CONFIG).name: server.config}
        told = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": server.name}, "data": config}
        documents.insert(0, told)
    if scales:
        metric = {"metric": {"name": server.queue}, "target": {"type": "AverageValue", "averageValue": _WAITING_A_POD}}
        documents.append(
            _document(
                "autoscaling/v2",
                "HorizontalPodAutoscaler",
                server,
                {
                    "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": server.name},
                    "minReplicas": server.copies,
                    "maxReplicas": 4 * server.copies,
                    "metrics": [{"type": "Pods", "pods": metric}],
                },
            )
        )
    comment = server.comment
    if server.config is not None or server.key_variable is not None:
        comment += f"# The key: kubectl create secret generic {server.name}-key --from-literal=api-key=...\n"
    if scales:
        comment += f"# {server.queue} is on /metrics, behind the key; an adapter makes it a metric of pods.\n"
    return comment + dumped(documents)


def _document(version: str, kind: str, server: Server, spec: dict[str, Any]) -> dict[str, Any]:
    labels = {"app.kubernetes.io/name": server.name}
    return {"apiVersion": version, "kind": kind, "metadata": {"name": server.name, "labels": labels}, "spec": spec}


def _pod(server: Server) -> dict[str, Any]:
    mounts = {"models": _MODELS, "shm": _SHARED_MEMORY}
    volumes: list[dict[str, Any]] = [
        {"name": "models", "persistentVolumeClaim": {"claimName": "omni-models"}},
        {"name": "shm", "emptyDir": {"medium": "Memory"}},
    ]
    environment: list[dict[str, Any]] = [
        {"name": name, "value": value} for name, value in (server.environment | {"HF_HOME": _MODELS}).items()
    ]
    key = {"name": f"{server.name}-key", "key": "api-key"}
    if server.config is not None:
        volumes.append({"name": "config", "configMap": {"name": server.name}})
        volumes.append({"name": "key", "secret": {"secretName": key["name"]}})
        mounts |= {"config": str(PurePosixPath(CONFIG).parent), "key": str(PurePosixPath(KEY).parent)}
    elif server.key_variable is not None:
        environment.append({"name": server.key_variable, "valueFrom": {"secretKeyRef": key}})
    container = {
        "name": "server",
        "image": server.image,
        "command": server.command,
        "env": environment,
        "ports": [{"name": "http", "containerPort": server.port}],
        "resources": {"limits": {"nvidia.com/gpu": server.gpus}},
        "startupProbe": _probe(server.is_ready, period=10, failures=_SLOWEST_START // 10),
        "readinessProbe": _probe(server.is_ready, period=5, failures=1),
        "livenessProbe": _probe(server.is_alive, period=10, failures=6),
        "volumeMounts": [{"name": name, "mountPath": path} for name, path in mounts.items()],
    }
    return {
        "terminationGracePeriodSeconds": server.drain + 30,
        "automountServiceAccountToken": False,
        "containers": [container],
        "volumes": volumes,
    }


def _probe(path: str, *, period: int, failures: int) -> dict[str, Any]:
    check = {"path": path, "port": "http"}
    return {"httpGet": check, "periodSeconds": period, "failureThreshold": failures, "timeoutSeconds": 5}


def compose(server: Server) -> str:
    """A compose file of one service; the key is in the file ``api-key`` beside it."""
    environment = server.environment | {"HF_HOME": _MODELS}
    if server.key_variable is not None:
        environment[server.key_variable] = f"${{{server.key_variable}:-}}"
    gpus = {"driver": "nvidia", "count": server.gpus, "capabilities": ["gpu"]}
    url = f"http://127.0.0.1:{server.port}{server.is_ready}"
    program = ["python3", "-c", f"import urllib.request as r; r.urlopen('{url}', timeout=5)"]
    native = server.config is not None
    service = {
        "image": server.image,
        "entrypoint": server.command,
        "environment": environment,
        "ports": [f"127.0.0.1:{server.port}:{server.port}"],
        "volumes": [f"models:{_MODELS}"],
        "configs": [{"source": "config", "target": CONFIG}] if native else None,
        "secrets": [{"source": "api-key", "target": KEY}] if native else None,
        "ipc": "host",
        "restart": "unless-stopped",
        "stop_grace_period": f"{server.drain + 30}s",
        "healthcheck": {"test": ["CMD", *program], "interval": "10s", "start_period": f"{_SLOWEST_START}s"},
        "deploy": {"resources": {"reservations": {"devices": [gpus]}}},
    }
    document: dict[str, Any] = {
        "name": server.name,
        "services": {"server": _said(service)},
        "volumes": {"models": {}},
        "configs": {"config": {"content": server.config.replace("$", "$$")}} if server.config is not None else None,
        "secrets": {"api-key": {"file": "./api-key"}} if native else None,
    }
    return server.comment + dumped([_said(document)])


def ray(server: Server) -> str:
    """A module of Ray Serve, of which each copy starts one server and passes requests on."""
    words = {str(server.port): "{port}", CONFIG: "{config}"}
    command = [words.get(word, word) for word in server.command]
    if server.config is not None:
        command += ["--port", "{port}"]
    return _RAY.format(
        comment=server.comment,
        name=server.name,
        module=server.name.replace("-", "_"),
        config=server.config,
        command=command,
        environment=server.environment,
        copies=server.copies,
        gpus=server.gpus,
        drain=server.drain + 30,
        is_ready=server.is_ready,
        slowest=_SLOWEST_START,
    )


EMITTERS: dict[str, Callable[[Server], str]] = {"kubernetes": kubernetes, "ray": ray, "compose": compose}


def _said(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


_RAY = '''\
{comment}"""Ray Serve: {copies} copies of a server, each on {gpus} GPUs. Start: serve run {module}:app"""

import os
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

import httpx
from ray import serve
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import StreamingResponse

CONFIG = {config!r}
COMMAND = {command!r}
ENVIRONMENT = {environment!r}
HOP_BY_HOP = ("connection", "content-length", "host", "transfer-encoding")


@serve.deployment(
    name="{name}",
    num_replicas={copies},
    ray_actor_options={{"num_gpus": {gpus}}},
    max_ongoing_requests=100,
    graceful_shutdown_timeout_s={drain},
)
class Server:
    def __init__(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.folder = tempfile.TemporaryDirectory()
        file = os.path.join(self.folder.name, "config.yaml")
        if CONFIG is not None:
            with open(file, "w") as config:
                config.write(CONFIG)
        command = [word.format(port=port) if word == "{{port}}" else word for word in COMMAND]
        command = [file if word == "{{config}}" else word for word in command]
        self.process = subprocess.Popen(command, env={{**os.environ, **ENVIRONMENT}})
        self.client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{{port}}", timeout=None)
        end = time.monotonic() + {slowest}
        while True:
            self.check_health()
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{{port}}{is_ready}", timeout=5).close()
                return
            except (OSError, urllib.error.URLError):
                if time.monotonic() > end:
                    raise
                time.sleep(1)

    def check_health(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"the server ended with code {{self.process.returncode}}")

    async def __call__(self, request: Request):
        headers = [(name, value) for name, value in request.headers.items() if name not in HOP_BY_HOP]
        target = httpx.URL(path=request.url.path, query=request.url.query.encode())
        body = None if request.method in ("GET", "HEAD", "DELETE") else request.stream()
        asked = self.client.build_request(request.method, target, headers=headers, content=body)
        answer = await self.client.send(asked, stream=True)
        kept = {{name: value for name, value in answer.headers.items() if name not in HOP_BY_HOP}}
        return StreamingResponse(answer.aiter_raw(), answer.status_code, kept, background=BackgroundTask(answer.aclose))

    def __del__(self):
        self.process.terminate()
        self.process.wait()


app = Server.bind()
'''
