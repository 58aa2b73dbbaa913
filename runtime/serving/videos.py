"""Videos that are made behind the request: jobs in the queue, kept in a store that the next server goes on with."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omni_config.plan import Sampling
from runtime.pipeline.adapters import Adapter
from runtime.serving.errors import RequestError
from runtime.serving.log import LOG
from runtime.serving.metrics import Metrics
from runtime.serving.queue import Full, Queue, Ticket
from runtime.serving.requests import ServedConfig, VideoRequest
from runtime.serving.video_store import Job, VideoStore
from runtime.serving.workers import ServerEnds, WorkersFailed

_ATTEMPTS = 3  # servers that may end while they make one video


@dataclass(frozen=True, slots=True)
class _Running:
    """A job that waits or is made."""

    ticket: Ticket
    task: asyncio.Task[None]


class Videos:
    """The jobs of one server; all methods belong to the event loop's thread."""

    def __init__(self, served: ServedConfig, queue: Queue, store: VideoStore, metrics: Metrics) -> None:
        self._served = served
        self._queue = queue
        self._store = store
        self._metrics = metrics
        self._running: dict[str, _Running] = {}
        self._untold: dict[str, tuple[str, str]] = {}  # jobs that failed, but the disk was too full to write why

    async def create(self, request: VideoRequest, image: Path | None, note: dict[str, Any]) -> dict[str, Any]:
        """Judge a request and queue it; the job, as it is shown. ``image``: the input image, which is copied.

        Raises:
            RequestError: a limit is passed, a rule broken, the queue is full, or the store cannot be written.
        """
        sampling, adapters, warnings = self._served.sampling(request, None if image is None else str(image))
        note |= {"size": _size(sampling), "steps": sampling.num_inference_steps, "seed": sampling.seed}
        if self._served.settings["log_prompts"]:
            note |= {"prompt": sampling.prompt, "negative_prompt": sampling.negative_prompt}
        key = note["video"] = f"video_{secrets.token_hex(16)}"
        seeded = request.model_copy(update={"seed": sampling.seed})
        told = {"model": self._served.plan.model.id, "size": _size(sampling), "seconds": _seconds(request, sampling)}
        try:
            self._queue.require_room()
            await self._try(self._store.add, key, seeded.model_dump(exclude_none=True), image=image, **told)
            try:
                self._start(key, sampling, adapters)
            except Full:  # others were quicker
                await self._try(self._store.remove, key)
                raise
        except Full as error:
            raise RequestError(429, str(error), code="queue_full", retry_after=error.retry_after) from None
        shown = self._shown(await self._job(key))
        if warnings:
            shown["warnings"] = [{"code": finding.code, "message": finding.message} for finding in warnings]
        return shown

    async def get(self, key: str) -> dict[str, Any]:
        """A job, as it is shown.

        Raises:
            RequestError: there is none.
        """
        return self._shown(await self._job(key))

    async def page(self, after: str | None, limit: int, newest_first: bool) -> dict[str, Any]:
        """Jobs, as they are shown, and whether there are more.

        Raises:
            RequestError: there is no job ``after``.
        """
        if after is not None:
            await self._job(after)
        wanted = {"after": after, "limit": limit + 1, "newest_first": newest_first}
        jobs: list[Job] = await self._try(self._store.page, **wanted)
        data = [self._shown(job) for job in jobs[:limit]]
        ends = {"first_id": data[0]["id"] if data else None, "last_id": data[-1]["id"] if data else None}
        return {"object": "list", "data": data, "has_more": len(jobs) > limit} | ends

    async def delete(self, key: str) -> dict[str, Any]:
        """Remove a job with its files; one that is made ends at its next step.

        Raises:
            RequestError: there is none.
        """
        if not await self._try(self._store.remove, key):
            raise _missing(key)
        if running := self._running.get(key):
            self._queue.drop(running.ticket)
            self._metrics.videos.labels(outcome="cancelled").inc()
        return {"id": key, "object": "video.deleted", "deleted": True}

    async def file(self, key: str) -> Path:
        """Where the video of a job is.

        Raises:
            RequestError: there is no such job, or no video yet.
        """
        shown = await self.get(key)
        if shown["status"] == "failed":
            raise RequestError(400, f"this video failed: {shown['error']['message']}", code="video_failed")
        if shown["status"] != "completed":
            raise RequestError(400, f"this video is not done: {shown['status']}", code="video_not_ready")
        return self._store.video(key)

    async def resume(self) -> None:
        """Go on with what an earlier server has left; what this one cannot make fails, with the cause.

        Raises:
            OSError: the store cannot be read or written.
        """
        for job in await asyncio.to_thread(self._store.unfinished):
            try:
                if job.attempts >= _ATTEMPTS:
                    raise RequestError(503, f"{_ATTEMPTS} servers ended while they made it", code="server_ended")
                if job.model != (served := self._served.plan.model.id):
                    raise RequestError(404, f"{served} is served now, and not {job.model}", code="model_not_found")
                image = self._store.image(job.id)
                path = str(image) if image.is_file() else None
                sampling, adapters, _ = self._served.sampling(VideoRequest.model_validate(job.request), path)
            except RequestError as error:
                await self._fail(job.id, error.code or "invalid_request", str(error))
            else:
                self._start(job.id, sampling, adapters, was_accepted=True)

    async def stop(self) -> None:
        """Wait until what was done is kept, and let go of the store. What was not is for the next server."""
        for running in list(self._running.values()):
            await asyncio.wait({running.task})
        await asyncio.to_thread(self._store.close)

    async def sweep(self) -> None:
        """Remove videos whose time is up, and write what could not be written before.

        Raises:
            OSError: the store cannot be written.
        """
        for key, (code, message) in list(self._untold.items()):
            await asyncio.to_thread(self._store.fail, key, code, message)
            del self._untold[key]
        await asyncio.to_thread(self._store.sweep)

    def _start(self, key: str, sampling: Sampling, adapters: list[Adapter], *, was_accepted: bool = False) -> None:
        image = self._store.image(key)
        ticket = Ticket(replace(sampling, image=str(image) if sampling.image is not None else None), adapters)
        ticket.on_begin = lambda: begun.append(asyncio.create_task(self._begin(key)))
        begun: list[asyncio.Task[None]] = []
        self._queue.add(ticket, was_accepted=was_accepted)
        self._running[key] = _Running(ticket, asyncio.create_task(self._follow(key, ticket, begun)))

    async def _begin(self, key: str) -> None:
        try:
            await asyncio.to_thread(self._store.begin, key)
        except OSError as error:  # it can be made none the less
            LOG.error("the store cannot be written", extra={"fields": {"video": key, "cause": _cause(error)}})

    async def _follow(self, key: str, ticket: Ticket, begun: list[asyncio.Task[None]]) -> None:
        """Keep what comes of a job."""
        try:
            await asyncio.wait({ticket.result})
            if begun:
                await asyncio.wait(begun)
            if ticket.result.cancelled():
                return
            (data,) = ticket.result.result()
            if await asyncio.to_thread(self._store.complete, key, data):
                self._metrics.videos.labels(outcome="completed").inc()
        except ServerEnds:
            return
        except WorkersFailed as error:
            await self._fail(key, error.code, str(error))
        except OSError as error:
            await self._fail(key, "store_failed", f"the video cannot be stored: {_cause(error)}")
        finally:
            del self._running[key]

    async def _fail(self, key: str, code: str, message: str) -> None:
        self._metrics.videos.labels(outcome="failed").inc()
        LOG.error("a video failed", extra={"fields": {"video": key, "code": code, "cause": message}})
        try:
            await asyncio.to_thread(self._store.fail, key, code, message)
        except OSError:
            self._untold[key] = code, message

    async def _job(self, key: str) -> Job:
        job: Job | None = await self._try(self._store.get, key)
        if job is None:
            raise _missing(key)
        return job

    async def _try(self, call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Call the store in a thread; RequestError where it cannot be used."""
        try:
            return await asyncio.to_thread(call, *arguments, **named)
        except OSError as error:
            message = f"the store of videos cannot be used: {_cause(error)}"
            raise RequestError(503, message, code="store_failed") from None

    def _shown(self, job: Job) -> dict[str, Any]:
        """In the words of OpenAI's API, and the seed."""
        code, message = self._untold.get(job.id, (job.code, job.message))
        status: str = job.status if code is None else "failed"
        progress, running = 0, self._running.get(job.id)
        if status == "completed":
            progress = 100
        elif status == "queued" and running is not None and running.ticket.waited is not None:
            status, ticket = "in_progress", running.ticket
            progress = min(99, 100 * ticket.step // ticket.sampling.num_inference_steps)
        lifetime = self._served.settings["video_lifetime"]
        return {
            "id": job.id,
            "object": "video",
            "model": job.model,
            "status": status,
            "progress": progress,
            "created_at": int(job.created),
            "completed_at": int(job.completed) if job.completed and status == "completed" else None,
            "expires_at": int(job.completed + lifetime) if job.completed else None,
            "prompt": job.request["prompt"],
            "size": job.size,
            "seconds": job.seconds,
            "seed": job.request["seed"],
            "error": None if code is None else {"code": code, "message": message},
        }


def _size(sampling: Sampling) -> str:
    return f"{sampling.width}x{sampling.height}"


def _seconds(request: VideoRequest, sampling: Sampling) -> str:
    """The length: as it was asked for, or that of the frames."""
    if request.seconds is not None:
        return str(request.seconds)
    video = sampling.video
    assert video is not None
    assert video.num_frames is not None
    assert video.fps is not None
    return f"{video.num_frames / video.fps:.4g}"


def _missing(key: str) -> RequestError:
    return RequestError(404, f"there is no video {key}", code="video_not_found")


def _cause(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
