"""The whole server but for its workers, which finish when they are told to; without torch."""

from __future__ import annotations

import asyncio
from pathlib import Path

from omni_config.checking.files import check_bytes
from runtime.serving.api import Api, app_of
from runtime.serving.front import Front
from runtime.serving.images import InputImages
from runtime.serving.metrics import Metrics
from runtime.serving.queue import Queue
from runtime.serving.requests import ServedConfig
from runtime.serving.store import Store
from runtime.serving.workers import Batch, Cancelled


class Waiting:
    """Workers that take batches, and finish one when they are told to."""

    failure = None

    def __init__(self) -> None:
        self.ready = asyncio.Event()
        self.ready.set()
        self.batches: list[Batch] = []
        self.may_finish = asyncio.Event()

    async def make(self, batch: Batch) -> list[bytes]:
        self.batches.append(batch)
        self.batch = asyncio.ensure_future(self.may_finish.wait())
        try:
            await self.batch
        except asyncio.CancelledError:
            raise Cancelled from None
        return [b"an image"] * len(batch.samplings)

    def cancel(self) -> None:
        self.batch.cancel()


def application(
    folder: Path, config: str = "model: tiny\n", key: str | None = None, lifespan: object = None
) -> tuple[Front, Waiting, Queue]:
    """What uvicorn would run for a config, its workers, and its queue, whose ``work`` is not started."""
    (checked,) = check_bytes("config.yaml", f"version: 1\n{config}".encode())
    assert checked.plan is not None, checked.findings
    served, metrics, workers = ServedConfig(checked), Metrics(), Waiting()
    settings = served.settings
    queue = Queue(
        workers,  # type: ignore[arg-type]
        metrics,
        max_waiting=settings["max_queue"],
        max_batch_size=settings["max_batch_size"],
    )
    store = Store(folder / "store", seconds=settings["url_lifetime"], size=round(settings["max_store"] * 2**20))
    images = InputImages(folder, settings["max_pixels"])
    api = Api(served, workers, queue, metrics, images, store)  # type: ignore[arg-type]
    front = Front(app_of(api, lifespan), metrics, api_key=key, max_body=round(settings["max_body"] * 2**20))
    return front, workers, queue
