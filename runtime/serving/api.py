"""The routes: OpenAI's images API, and what operators and people look at."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from omni_config import __version__
from omni_config.findings import Finding
from omni_config.plan import Sampling
from runtime.serving.bodies import asked_in_form, form_of, invalid
from runtime.serving.errors import RequestError
from runtime.serving.fleet import Fleet
from runtime.serving.images import InputImages
from runtime.serving.metrics import Metrics
from runtime.serving.queue import Full, Preview, Queue, Step, Ticket
from runtime.serving.requests import ImageRequest, ServedConfig
from runtime.serving.store import Link, Store
from runtime.serving.video_api import add_routes
from runtime.serving.videos import Videos
from runtime.serving.workers import WorkersFailed

PAGE = Path(__file__).with_name("page.html")
_PAGE_MAY = (
    "default-src 'none'; connect-src 'self'; img-src data:; media-src blob:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_ERROR = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
            "required": ["message", "type", "param", "code"],
        }
    },
    "required": ["error"],
}
#: What a request for images may be answered with, for the OpenAPI page.
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"description": "Images; or, with stream, server-sent events.", "content": {"text/event-stream": {}}},
    **{
        status: {"description": why, "content": {"application/json": {"schema": _ERROR}}}
        for status, why in {
            400: "A field is wrong, or a rule is broken: its code is in `code`.",
            401: "The API key is missing or wrong.",
            404: "The model is not served.",
            413: "The body is too large.",
            422: "The body is of another kind.",
            429: "The queue is full.",
            503: "The workers failed, or are shutting down; or images for URLs cannot be stored.",
            504: "The deadline has passed.",
        }.items()
    },
}

_FILE: dict[int | str, dict[str, Any]] = {
    200: {"description": "The image.", "content": {"image/png": {}}},
    **{
        status: {"description": why, "content": _ANSWERS[400]["content"]}
        for status, why in {
            400: "A part of the URL is missing.",
            403: "The signature is wrong.",
            404: "The image made place for newer ones.",
            410: "The URL has expired.",
        }.items()
    },
}

#: Nobody counts tokens here, and OpenAI's client expects the field.
_USAGE = {
    "total_tokens": 0,
    "input_tokens": 0,
    "output_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
}


@dataclass
class Api:
    """What the routes share."""

    served: ServedConfig
    fleet: Fleet
    queue: Queue
    metrics: Metrics
    images: InputImages
    store: Store
    videos: Videos | None
    """Of a model that makes videos."""
    started: float = field(default_factory=time.time)

    async def make(self, request: Request, asked: ImageRequest, held: ExitStack, image: Path | None = None) -> Response:
        """Answer with images, or the events of a stream; ``held`` is closed when nobody waits for them any more.

        Raises:
            RequestError: a rule or limit, a full queue, a deadline, or workers that failed.
        """
        with held:
            accepted = self.served.sampling(asked, None if image is None else str(image))
            sampling, adapters, warnings = accepted
            note = request.state.note  # what the log says of the request
            note |= {"size": f"{sampling.width}x{sampling.height}", "steps": sampling.num_inference_steps}
            note |= {"n": sampling.num_images_per_prompt, "seed": sampling.seed}
            if self.served.settings["log_prompts"]:
                note |= {"prompt": sampling.prompt, "negative_prompt": sampling.negative_prompt}
            ticket = Ticket(sampling, adapters, previews=asked.partial_images or 0)
            try:
                self.queue.add(ticket)
            except Full as error:
                raise RequestError(429, str(error), code="queue_full", retry_after=error.retry_after) from None
            held.callback(self._leave, ticket, note)
            if asked.stream:
                kind = "image_edit" if self.served.takes_image else "image_generation"
                events = self._events(ticket, kind, warnings, note, held.pop_all())
                await anext(events)  # begun, so that its end is reached even where the client is gone already
                return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
            gone = asyncio.create_task(_gone(request))
            held.callback(gone.cancel)
            pngs = await self._wait(ticket, gone)
        if asked.response_format == "url":
            shown = [self._at(request, link) for link in await asyncio.to_thread(self.store.keep, pngs)]
        else:
            shown = [{"b64_json": base64.b64encode(png).decode()} for png in pngs]
        return JSONResponse(_answer(sampling, shown) | _warnings(warnings))

    def _at(self, request: Request, link: Link) -> dict[str, Any]:
        base = self.served.settings["public_url"] or str(request.base_url).rstrip("/")
        return {"url": base + link.path, "expires_at": link.expires}

    def _leave(self, ticket: Ticket, note: dict[str, Any]) -> None:
        """Nobody waits for a ticket any more."""
        note["waited"] = ticket.waited
        self.metrics.images.inc(len(ticket.images))
        self.queue.drop(ticket)

    async def _wait(self, ticket: Ticket, *others: asyncio.Task[Any]) -> list[bytes]:
        """The images of a ticket."""
        waiting: set[asyncio.Future[Any]] = {ticket.result, *others}
        await asyncio.wait(waiting, timeout=self._left(ticket), return_when=asyncio.FIRST_COMPLETED)
        if not ticket.result.done():
            if any(other.done() for other in others):
                raise RequestError(499, "the client is gone")
            seconds = self.served.settings["request_timeout"]
            raise RequestError(504, f"not done within {seconds:g} s", code="deadline_exceeded")
        try:
            return ticket.result.result()
        except WorkersFailed as error:
            after = 5 if error.status == 503 else None
            raise RequestError(error.status, str(error), code=error.code, retry_after=after) from None

    async def _events(
        self, ticket: Ticket, kind: str, warnings: list[Finding], note: dict[str, Any], held: ExitStack
    ) -> AsyncIterator[str]:
        """Server-sent events: partial images, then the image, or an error. Progress is in comments."""
        with held:
            note["outcome"] = "gone"
            yield ""
            try:
                while (said := await self._next(ticket)) is not None:
                    if isinstance(said, Step):
                        yield f": step {said.step} of {said.steps}\n\n"
                    else:
                        values = _shown(ticket.sampling, said.png) | {"partial_image_index": said.index}
                        yield _event(f"{kind}.partial_image", values)
                (png,) = await self._wait(ticket)
                values = _shown(ticket.sampling, png) | {"usage": _USAGE, "seed": ticket.sampling.seed}
                yield _event(f"{kind}.completed", values | _warnings(warnings))
                note["outcome"] = "ok"
            except RequestError as error:
                note["outcome"] = error.code
                yield f"event: error\ndata: {json.dumps(error.body)}\n\n"

    async def _next(self, ticket: Ticket) -> Step | Preview | None:
        """The next update of a ticket; None when there will be none, or its time is up."""
        if ticket.updates.empty() and not ticket.result.done():
            update = asyncio.create_task(ticket.updates.get())
            waiting: set[asyncio.Future[Any]] = {ticket.result, update}
            await asyncio.wait(waiting, timeout=self._left(ticket), return_when=asyncio.FIRST_COMPLETED)
            if update.done():
                return update.result()
            update.cancel()
        return None if ticket.updates.empty() else ticket.updates.get_nowait()

    def _left(self, ticket: Ticket) -> float:
        """Seconds until the deadline."""
        return max(0.0, ticket.arrived + float(self.served.settings["request_timeout"]) - time.monotonic())


def app_of(api: Api, lifespan: Any = None) -> FastAPI:
    """The application; ``lifespan`` starts and stops what it needs."""
    app = FastAPI(title="omni-config", version=__version__, lifespan=lifespan, redoc_url=None)
    served, model = api.served, api.served.plan.model

    def require_asked_by(path: str) -> None:
        does, asked_by = served.asked_by
        if path != asked_by:
            raise RequestError(400, f"{model.id} {does}; next: POST {asked_by}")

    @app.exception_handler(RequestError)
    async def request_error(request: Request, error: RequestError) -> JSONResponse:
        request.state.note["code"] = error.code
        return JSONResponse(error.body, error.status, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid_request(request: Request, error: RequestValidationError) -> JSONResponse:
        return await request_error(request, invalid(error.errors()))

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, _: ClientDisconnect) -> JSONResponse:
        return await request_error(request, RequestError(499, "the client left before its body was whole"))

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> JSONResponse:
        return await request_error(request, RequestError(error.status_code, str(error.detail).lower()))

    @app.post("/v1/images/generations", responses=_ANSWERS)
    async def generations(request: Request, asked: ImageRequest) -> Response:
        """Make images of a prompt."""
        require_asked_by("/v1/images/generations")
        return await api.make(request, asked, ExitStack())

    @app.post("/v1/images/edits", responses=_ANSWERS, openapi_extra=_form())
    async def edits(request: Request) -> Response:
        """Edit an image by a prompt."""
        require_asked_by("/v1/images/edits")
        values, files = await form_of(request, ("image", "image[]"))
        if len(files) != 1:
            raise RequestError(400, f"give one image, not {len(files)}", param="image")
        asked = asked_in_form(ImageRequest, values)
        held = ExitStack()
        path = await asyncio.to_thread(held.enter_context, api.images.keep(files[0]))
        return await api.make(request, asked, held, path)

    @app.get("/v1/files/{name}", response_class=Response, responses=_FILE)
    async def file(name: str, expires: str, signature: str) -> Response:
        """An image by the URL that a request was answered with; it needs no key."""
        data = await asyncio.to_thread(api.store.read, name, expires, signature)
        told = {"X-Content-Type-Options": "nosniff", "Cache-Control": "private, immutable"}
        return Response(data, media_type="image/png", headers=told)

    if api.videos is not None:
        add_routes(app, served, api.videos, api.images, _ANSWERS)
    else:
        app.post("/v1/videos", include_in_schema=False)(partial(require_asked_by, "/v1/videos"))

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        """The one model that is served."""
        return {"object": "list", "data": [_model(api)]}

    @app.get("/v1/models/{name:path}", responses={404: _ANSWERS[404]})
    async def one_model(name: str) -> dict[str, Any]:
        """The model that is served, by its id."""
        if name not in (model.id, model.source):
            raise RequestError(404, f"{model.id} is served here, and no other model", code="model_not_found")
        return _model(api)

    @app.get("/v1/plan")
    async def plan() -> dict[str, Any]:
        """The Plan that is served, its replicas, the settings of the server, and what the check found."""
        return served.to_dict() | {"replicas": api.fleet.shown()}

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Whether this process answers."""
        return {"status": "ok"}

    @app.get("/ready", responses={503: {"description": "The workers are loading, or have failed."}})
    async def ready() -> JSONResponse:
        """Whether a request would be worked on now, how each replica is, and how many requests wait."""
        told = {"replicas": [replica["state"] for replica in api.fleet.shown()], "waiting": api.queue.depth}
        if api.fleet.is_ready:
            return JSONResponse({"status": "ready"} | told)
        return JSONResponse({"status": "the workers failed" if api.fleet.failure else "loading"} | told, 503)

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Counters for Prometheus."""
        return Response(generate_latest(api.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def page() -> Response:
        """A page to type a prompt; it loads nothing from anywhere."""
        return HTMLResponse(PAGE.read_text(encoding="utf-8"), headers={"Content-Security-Policy": _PAGE_MAY})

    return app


async def _gone(request: Request) -> None:
    """Return when the client has closed the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _answer(sampling: Sampling, shown: list[dict[str, Any]]) -> dict[str, Any]:
    """``shown`` is how each image is reached."""
    return {
        "created": int(time.time()),
        "data": [image | {"seed": sampling.seed + index} for index, image in enumerate(shown)],
        "size": f"{sampling.width}x{sampling.height}",
        "output_format": "png",
        "background": "opaque",
    }


def _warnings(findings: list[Finding]) -> dict[str, Any]:
    """What rules have said of a request that is carried out."""
    told = [{"code": finding.code, "message": finding.message} for finding in findings]
    return {"warnings": told} if told else {}


def _shown(sampling: Sampling, png: bytes) -> dict[str, Any]:
    return {
        "b64_json": base64.b64encode(png).decode(),
        "created_at": int(time.time()),
        "size": f"{sampling.width}x{sampling.height}",
        "output_format": "png",
        "background": "opaque",
        "quality": "auto",
    }


def _event(kind: str, values: dict[str, Any]) -> str:
    return f"event: {kind}\ndata: {json.dumps({'type': kind} | values)}\n\n"


def _model(api: Api) -> dict[str, Any]:
    model = api.served.plan.model
    return {"id": model.id, "object": "model", "created": int(api.started), "owned_by": "omni-config"}


def _form() -> dict[str, Any]:
    """The body of an edit, for the OpenAPI page."""
    schema = ImageRequest.model_json_schema()
    schema["properties"] = {"image": {"type": "string", "format": "binary"}} | schema["properties"]
    schema["required"] = ["image", *schema["required"]]
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}
