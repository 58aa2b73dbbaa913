"""What an emitted application of Ray Serve starts, started without Ray: one server, behind a proxy."""

from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import Response


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The emitted module; Ray's decorator leaves the class as it is, and ``omni`` is this one."""
    line = [sys.executable, "-m", "omni_config", "serve", "tiny", "--max-steps", "9", "--emit", "ray"]
    text = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    ray, deployment = types.ModuleType("ray"), types.SimpleNamespace(bind=lambda: None)
    ray.serve = types.SimpleNamespace(  # type: ignore[attr-defined]
        deployment=lambda **_: lambda server: deployment.__dict__.update(server=server) or deployment
    )
    monkeypatch.setitem(sys.modules, "ray", ray)
    (tmp_path / "omni").write_text(f'#!/bin/sh\nexec {sys.executable} -m omni_config "$@"\n')
    (tmp_path / "omni").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    told: dict[str, Any] = {}
    exec(compile(text, "emitted.py", "exec"), told)
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

    server.check_health()
    asyncio.run(scenario())
    process = server.process
    server.__del__()
    assert process.returncode == 0
    with pytest.raises(RuntimeError, match="the server ended with code 0"):
        server.check_health()
