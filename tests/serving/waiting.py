"""The whole server but for its workers, which finish when they are told to; without torch."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import uvicorn

from omni_config.checking.files import check_bytes
from runtime.serving.api import Api, app_of
from runtime.serving.fleet import Fleet
from runtime.serving.front import Front
from runtime.serving.images import InputImages
from runtime.serving.metrics import Metrics
from runtime.serving.queue import Queue, stop
from runtime.serving.requests import ServedConfig
from runtime.serving.routers import ForRouters
from runtime.serving.store import Store
from runtime.serving.video_store import VideoStore
from runtime.serving.videos import Videos
from runtime.serving.workers import Batch, Cancelled, WorkersDied


class Waiting:
    """Workers that take batches, and finish one when they are told to."""

    failure = None

    def __init__(self, replica: int = 0) -> None:
        self.replica = replica
        self.ready = asyncio.Event()
        self.ready.set()
        self.batches: list[Batch] = []
        self.making: dict[Batch, asyncio.Future[None]] = {}
        self.may_finish = asyncio.Event()
        self.takes = True

    async def make(self, batch: Batch) -> list[bytes]:
        self.batches.append(batch)
        batch.began = self.takes
        told = self.batch = self.making[batch] = asyncio.get_running_loop().create_future()
        finish = asyncio.create_task(self.may_finish.wait())
        await asyncio.wait({told, finish}, return_when=asyncio.FIRST_COMPLETED)
        finish.cancel()
        del self.making[batch]
        if told.done():
            told.result()
        return [b"an image"] * len(batch.samplings)

    def finish(self, batch: Batch) -> None:
        self.making[batch].set_result(None)

    def cancel(self, batch: Batch) -> None:
        if not self.making[batch].done():
            self.making[batch].set_exception(Cancelled())

    def die(self) -> None:
        for told in self.making.values():
            told.set_exception(WorkersDied("the workers failed (rank 0: killed by SIGKILL); try again"))

    def shown(self) -> dict[str, Any]:
        return {"replica": self.replica, "state": "ready"}


class Application(NamedTuple):
    """What uvicorn would run for a config, its workers, its queue, whose ``work`` is not started, and its videos."""

    front: Front
    workers: Waiting
    queue: Queue
    videos: Videos | None


def application(
    folder: Path, config: str = "model: tiny\n", key: str | None = None, lifespan: object = None
) -> Application:
    (checked,) = check_bytes("config.yaml", f"version: 1\n{config}".encode())
    assert checked.plan is not None, checked.findings
    served, metrics, workers = ServedConfig(checked), Metrics(), Waiting()
    settings = served.settings
    queue = Queue(
        [workers],  # type: ignore[list-item]
        metrics,
        max_waiting=settings["max_queue"],
        max_batch_size=settings["max_batch_size"],
    )
    metrics.registry.register(ForRouters(served, queue))
    size = round(settings["max_store"] * 2**20)
    store = Store(folder / "store", seconds=settings["url_lifetime"], size=size)
    images = InputImages(folder, settings["max_pixels"])
    videos = None
    if served.makes_videos:
        of_videos = VideoStore(folder / "store" / "videos", seconds=settings["video_lifetime"], size=size)
        videos = Videos(served, queue, of_videos, metrics)
    api = Api(served, Fleet([workers]), queue, metrics, images, store, videos)  # type: ignore[list-item]
    front = Front(app_of(api, lifespan), metrics, api_key=key, max_body=round(settings["max_body"] * 2**20))
    return Application(front, workers, queue, videos)


@contextmanager
def running(folder: Path, config: str) -> Iterator[str]:
    """The address of an application before uvicorn, whose workers finish everything at once."""

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        workers.may_finish.set()
        work = asyncio.create_task(queue.work())
        yield
        await stop(work)

    front, workers, queue, _ = application(folder, config, lifespan=lifespan)
    server = uvicorn.Server(uvicorn.Config(front, port=0, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()
