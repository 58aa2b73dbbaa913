"""Requests that schemathesis makes up from the server's own OpenAPI page; tests/fuzz/fuzz_serve.py makes up more."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from waiting import application

from runtime.serving.queue import stop

PROGRAM = str(Path(__file__).parents[1] / "fuzz" / "fuzz_serve.py")


@pytest.fixture(params=["tiny", "Qwen/Qwen-Image-Edit", "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        workers.may_finish.set()
        work = asyncio.create_task(queue.work())
        yield
        await stop(work)

    front, workers, queue, _ = application(tmp_path, f"model: {request.param}\nserver: true\n", lifespan=lifespan)
    server = uvicorn.Server(uvicorn.Config(front, port=0, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


def test_no_request_makes_the_server_fail(url: str) -> None:
    done = subprocess.run([sys.executable, PROGRAM, url, "2"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
