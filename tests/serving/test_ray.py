"""What an emitted application of Ray Serve starts, without Ray and by it: one server, behind a proxy."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import Response
from live_server import START, image

#: The programs of an environment with ray[serve], which need not be this one.
RAY = Path(os.environ.get("OMNI_RAY", Path(sys.executable).parent))


@pytest.fixture
def emitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The text of the module; ``omni`` on the PATH is this one."""
    line = [sys.executable, "-m", "omni_config", "serve", "tiny", "--max-steps", "9", "--emit", "ray"]
    (tmp_path / "omni").write_text(f'#!/bin/sh\nexec {sys.executable} -m omni_config "$@"\n')
    (tmp_path / "omni").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return subprocess.run(line, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def module(emitted: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The emitted module; Ray's decorator leaves the class as it is."""
    ray, deployment = types.ModuleType("ray"), types.SimpleNamespace(bind=lambda: None)
    ray.serve = types.SimpleNamespace(  # type: ignore[attr-defined]
        deployment=lambda **_: lambda server: deployment.__dict__.update(server=server) or deployment
    )
    monkeypatch.setitem(sys.modules, "ray", ray)
    told: dict[str, Any] = {}
    exec(compile(emitted, "emitted.py", "exec"), told)
    return told | {"server": deployment.server}


def test_a_copy_starts_a_server_and_passes_on_what_it_is_asked(module: dict[str, Any]) -> None:
    import asyncio

    server = module["server"]()
    app = FastAPI()

    @app.api_route("/{path:path}", methods=["GET", "POST", "DELETE"])
    async def proxy(request: Request) -> Response:
        return await server(request)

    async def scenario() -> None:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test", timeout=120) as client:
            assert (await client.get("/ready")).json()["status"] == "ready"
            asked = {"prompt": "a star", "num_inference_steps": 2, "seed": 1}
            made = await client.post("/v1/images/generations", json=asked)
            assert made.json()["data"][0]["b64_json"], made.text
            streamed = await client.post("/v1/images/generations", json=asked | {"stream": True})
            assert streamed.headers["content-type"].startswith("text/event-stream")
            assert "image_generation.completed" in streamed.text
            refused = await client.post("/v1/images/generations", json=asked | {"num_inference_steps": 10})
            assert (refused.status_code, refused.json()["error"]["param"]) == (400, "num_inference_steps")
            await server.session.close()

    server.check_health()
    asyncio.run(scenario())
    process = server.process
    server.__del__()
    assert process.returncode == 0
    with pytest.raises(RuntimeError, match="the server ended with code 0"):
        server.check_health()


@contextmanager
def started(line: list[str], log: Path, said: str, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program that has said that it is ready; ended with those that it has started."""
    with log.open("w") as out:
        process = subprocess.Popen(line, stdout=out, stderr=out, cwd=log.parent, env=os.environ | variables)
    end = time.monotonic() + START
    try:
        while said not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.2)
        yield process
    finally:
        left = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.terminate()
        process.wait()
        for one in psutil.wait_procs(left, timeout=30)[1]:
            one.kill()


def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.mark.slow
@pytest.mark.skipif(
    not (RAY / "serve").exists(),
    reason="no Ray Serve; next: pip install 'ray[serve]' in an environment, and say its folder of programs in OMNI_RAY",
)
def test_ray_starts_what_is_emitted(emitted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the command that the module itself says, on a cluster that takes this machine to have a GPU."""
    cluster, front = f"127.0.0.1:{port()}", port()
    monkeypatch.setenv("PATH", str(RAY), prepend=":")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    start = next(line for line in emitted.splitlines() if "start: " in line).partition("start: ")[2].split()
    (tmp_path / start[-1].replace(":app", ".py")).write_text(emitted)
    head = ["ray", "start", "--head", "--block", "--num-gpus=1", "--num-cpus=2", "--object-store-memory=100000000"]
    head += ["--node-ip-address=127.0.0.1", f"--port={cluster.partition(':')[2]}", "--include-dashboard=false"]
    listen = ["serve", "start", "--http-port", str(front), "--address", cluster]
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:  # sockets need short paths
        head.append(f"--temp-dir={folder}")
        with started(head, tmp_path / "ray.log", "Ray runtime started"):
            subprocess.run(listen, check=True, capture_output=True)
            with started(start, tmp_path / "log", "is ready", RAY_ADDRESS=cluster) as application:
                servers = running(str(tmp_path))
                client = openai.OpenAI(base_url=f"http://127.0.0.1:{front}/v1", api_key="none", max_retries=0)
                asked = {"seed": 1, "num_inference_steps": 2}
                made = client.images.generate(prompt="a star", extra_body=asked)
                assert made.data
                assert image(made.data[0]).std() > 0
                with pytest.raises(openai.BadRequestError, match="at most 9 steps"):
                    client.images.generate(prompt="a star", extra_body={"num_inference_steps": 10})
                application.send_signal(signal.SIGINT)
                application.wait(timeout=120)
                assert servers
                assert not psutil.wait_procs(servers, timeout=30)[1]


def running(path: str) -> list[psutil.Process]:
    """The servers that were found by a PATH with this folder."""
    commands = psutil.process_iter(["cmdline"])
    servers = [process for process in commands if "omni_config" in (process.info["cmdline"] or [])]
    return [process for process in servers if path in process.environ().get("PATH", "")]
