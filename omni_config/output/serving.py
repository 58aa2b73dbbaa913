"""A server as what others start: a compose file, or an application of Ray Serve; manifests are in ``kubernetes.py``.

Nothing in them is decided here: GPUs, command and version are those of the config.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from omni_config.output.cluster import dumped

CONFIG = "/etc/omni/config.yaml"
KEY = "/run/secrets/omni/api-key"
MODELS = "/models"
STORE = "/var/lib/omni"  # of the built-in runtime: images behind URLs, and videos
SLOWEST_START = 3600  # seconds, as weights may have to be downloaded

#: Images of the engines, and what comes before their version in a tag.
_IMAGES = {"native": "omni-config:", "vllm-omni": "vllm/vllm-omni:v", "sglang": "lmsysorg/sglang:v"}


@dataclass(frozen=True)
class Server:
    """What is started; on several machines by LeaderWorkerSet only."""

    name: str
    image: str
    command: list[str]
    environment: dict[str, str]
    config: str | None
    """The text of the file ``CONFIG``, of the built-in runtime."""
    port: int
    gpus: int
    """Of one copy, on each of its machines."""
    copies: int
    """Where they may be started apart; 1 where jobs live in one of them."""
    is_ready: str
    """Path that answers 200 once requests are worked on."""
    is_alive: str
    queue: str | None
    """The gauge of the requests that wait; None where no copies are added by it."""
    drain: int
    """Seconds that requests get to end in."""
    comment: str = ""
    nodes: int = 1
    """Machines of one copy."""
    prometheus: str | None = None
    """The address by which KEDA asks for the queue."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """By which others find the pods that answer requests."""
    files: Sequence[str] = ()
    """Paths that its machine has, and it reads; absolute where it is in a container."""

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


def compose(server: Server) -> str:
    """A compose file of one service; the key is in the file ``api-key`` beside it."""
    environment = {name: _literal(value) for name, value in server.environment.items()} | {"HF_HOME": MODELS}
    if server.key_variable is not None:
        environment[server.key_variable] = f"${{{server.key_variable}:-}}"
    gpus = {"driver": "nvidia", "count": server.gpus, "capabilities": ["gpu"]}
    url = f"http://127.0.0.1:{server.port}{server.is_ready}"
    program = ["python3", "-c", f"import urllib.request as r; r.urlopen('{url}', timeout=5)"]
    native = server.config is not None
    binds = [
        {"type": "bind", "source": path, "target": path, "read_only": True} for path in map(_literal, server.files)
    ]
    service = {
        "image": server.image,
        "entrypoint": [_literal(word) for word in server.command],
        "environment": environment,
        "ports": [f"127.0.0.1:{server.port}:{server.port}"],
        "volumes": [f"models:{MODELS}", *([f"store:{STORE}"] if native else []), *binds],
        "configs": [{"source": "config", "target": CONFIG}] if native else None,
        "secrets": [{"source": "api-key", "target": KEY}] if native else None,
        "ipc": "host",
        "init": True,  # a process 1 would not hear SIGTERM before it has a handler for it
        "restart": "unless-stopped",
        "stop_grace_period": f"{server.drain + 30}s",
        "healthcheck": {"test": ["CMD", *program], "interval": "10s", "start_period": f"{SLOWEST_START}s"},
        "deploy": {"resources": {"reservations": {"devices": [gpus]}}},
    }
    document: dict[str, Any] = {
        "name": server.name,
        "services": {"server": said(service)},
        "volumes": {"models": {}} | ({"store": {}} if native else {}),
        "configs": {"config": {"content": _literal(server.config)}} if server.config is not None else None,
        "secrets": {"api-key": {"file": "./api-key"}} if native else None,
    }
    files = f"# The image {server.image} and, beside this file, api-key are to be there.\n" if native else ""
    return server.comment + files + dumped([said(document)])


def _literal(text: str) -> str:
    """As Compose reads it: a dollar begins a variable, two are one."""
    return text.replace("$", "$$")


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
        program=server.command[0],
        config=server.config,
        command=command,
        environment=server.environment,
        copies=server.copies,
        gpus=server.gpus,
        drain=server.drain + 30,
        is_ready=server.is_ready,
        slowest=SLOWEST_START,
    )


def said(values: dict[str, Any]) -> dict[str, Any]:
    """Without what is None."""
    return {name: value for name, value in values.items() if value is not None}


_RAY = '''\
{comment}"""Ray Serve: a server on {gpus} GPU(s), {copies} time(s). As {module}.py, start: serve run {module}:app

Of Python it needs what ray[serve] installs; {program} is to be on the PATH of each node.
"""

import os
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

import aiohttp
from ray import serve
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
            self.port = port = free.getsockname()[1]
        self.folder = tempfile.TemporaryDirectory()
        file = os.path.join(self.folder.name, "config.yaml")
        if CONFIG is not None:
            with open(file, "w") as config:
                config.write(CONFIG)
        command = [word.format(port=port) if word == "{{port}}" else word for word in COMMAND]
        command = [file if word == "{{config}}" else word for word in command]
        self.process = subprocess.Popen(command, env={{**os.environ, **ENVIRONMENT}})
        self.session = None  # of the loop that requests come from
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
        if self.session is None:
            self.session = aiohttp.ClientSession(auto_decompress=False, timeout=aiohttp.ClientTimeout(total=None))
        headers = [(name, value) for name, value in request.headers.items() if name not in HOP_BY_HOP]
        target = request.url.replace(scheme="http", netloc=f"127.0.0.1:{{self.port}}")
        body = None if request.method in ("GET", "HEAD", "DELETE") else request.stream()
        answer = await self.session.request(
            request.method, str(target), headers=headers, data=body, allow_redirects=False
        )

        async def passed_on():
            async with answer:
                async for part in answer.content.iter_any():
                    yield part

        kept = {{name: value for name, value in answer.headers.items() if name.lower() not in HOP_BY_HOP}}
        return StreamingResponse(passed_on(), answer.status, kept)

    def __del__(self):
        self.process.terminate()
        self.process.wait()


app = Server.bind()
'''
