"""Runs the server: a socket, the workers, the queue; and the exit code in the end."""

from __future__ import annotations

import asyncio
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn

from runtime.launcher import torchrun
from runtime.serving import log
from runtime.serving.api import Api, app_of
from runtime.serving.fleet import fleet
from runtime.serving.front import Front
from runtime.serving.images import InputImages
from runtime.serving.metrics import Metrics
from runtime.serving.queue import Queue, stop
from runtime.serving.requests import ServedConfig
from runtime.serving.routers import ForRouters
from runtime.serving.store import Store
from runtime.serving.video_store import VideoStore
from runtime.serving.videos import Videos
from runtime.serving.workers import ServerEnds

CANNOT_START = 1
GIVEN_UP = 75
"""The workers failed more often than they may: sysexits' EX_TEMPFAIL, so that a supervisor starts the server again."""

_SWEEP = 60.0  # seconds


def serve(
    served: ServedConfig,
    api_key: str | None,
    *,
    timeout: float = 600.0,
    worker: Path = torchrun.WORKER,
    on_listening: Callable[[str], None] = lambda _: None,
) -> int:
    """Serve until SIGTERM or SIGINT; the exit code: 0 drained, CANNOT_START, or GIVEN_UP.

    ``timeout`` bounds the seconds in which a busy rank makes no progress. ``on_listening`` gets the server's address.

    Raises:
        OSError: the address cannot be listened on, or the store cannot be used.
    """
    settings = served.settings
    log.set_up(as_json=settings["json_logs"])
    with (
        _listen(settings["host"], settings["port"]) as sock,
        tempfile.TemporaryDirectory(prefix="omni-serve-") as folder,
    ):
        kept, size = Path(settings["store"] or Path(folder, "store")), round(settings["max_store"] * 2**20)
        store = Store(kept, seconds=settings["url_lifetime"], size=size)
        host, port = sock.getsockname()[:2]
        on_listening(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")
        # uvicorn drains on these, and then raises them again; the way in which this process ends is its exit code.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        code = 0

        @asynccontextmanager
        async def lifespan(_: Any) -> AsyncIterator[None]:
            running = asyncio.create_task(api.fleet.run(served.warm_up(str(api.images.blank()))))
            working = asyncio.create_task(api.queue.work())

            def ended(task: asyncio.Task[None]) -> None:
                nonlocal code
                if not server.should_exit:
                    code = GIVEN_UP if api.fleet.were_ready else CANNOT_START
                    cause = api.fleet.failure if task.exception() is None else repr(task.exception())
                    message = "the server ends, as its workers are not started again"
                    log.LOG.error(message, extra={"fields": {"cause": cause}})
                    api.queue.fail(ServerEnds("the workers failed, and the server ends"))
                    server.should_exit = True

            for task in (running, working):
                task.add_done_callback(ended)
            if videos is not None:
                await videos.resume()
            sweeping = asyncio.create_task(_sweep(store, videos))
            yield
            await stop(sweeping)
            api.queue.fail(ServerEnds("the server is shutting down"))
            if videos is not None:
                await videos.stop()
            api.fleet.stop()
            await asyncio.wait({running}, timeout=5)
            for task in (running, working):
                await stop(task)

        metrics = Metrics()
        replicas = fleet(served, metrics, timeout=timeout, worker=worker)
        queue = Queue(
            replicas.replicas,
            metrics,
            max_waiting=settings["max_queue"],
            max_batch_size=settings["max_batch_size"],
            by_steps=settings["step_execution"],
        )
        videos = None
        if served.makes_videos:
            of_videos = VideoStore(kept / "videos", seconds=settings["video_lifetime"], size=size)
            videos = Videos(served, queue, of_videos, metrics)
        metrics.registry.register(ForRouters(served, queue))
        api = Api(served, replicas, queue, metrics, InputImages(Path(folder), settings["max_pixels"]), store, videos)
        front = Front(app_of(api, lifespan), metrics, api_key=api_key, max_body=round(settings["max_body"] * 2**20))
        drain = max(1, round(settings["drain_timeout"]))
        config = uvicorn.Config(front, log_config=None, access_log=False, timeout_graceful_shutdown=drain)
        server = uvicorn.Server(config)
        server.run([sock])
        return code


async def _sweep(store: Store, videos: Videos | None) -> None:
    """Remove what has had its time also where nothing new comes."""
    while True:
        await asyncio.sleep(_SWEEP)
        try:
            await asyncio.to_thread(store.sweep)
            if videos is not None:
                await videos.sweep()
        except OSError as error:
            log.LOG.error("the store cannot be swept", extra={"fields": {"cause": str(error)}})


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(2048)  # from now on a client waits, and is not refused
    except OSError:
        sock.close()
        raise
    return sock
