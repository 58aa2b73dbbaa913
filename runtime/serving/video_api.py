"""The routes of OpenAI's videos API."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Request
from fastapi.responses import FileResponse, JSONResponse
from starlette.types import Receive, Scope, Send

from runtime.serving.bodies import asked_in_form, asked_in_json, form_of, image_in_url, json_of
from runtime.serving.errors import RequestError
from runtime.serving.images import InputImages
from runtime.serving.requests import ServedConfig, VideoRequest
from runtime.serving.videos import Videos

_Answers = dict[int | str, dict[str, Any]]
_POLL_AFTER = 1000  # milliseconds, for clients that wait for a video
_REFERENCE = "input_reference"


def add_routes(app: FastAPI, served: ServedConfig, videos: Videos, images: InputImages, answers: _Answers) -> None:
    """Add them; ``answers`` are what requests may be answered with, for the OpenAPI page."""
    refused: _Answers = {status: answers[status] for status in (400, 401, 404, 503)}

    @app.post("/v1/videos", responses=answers | {200: {"description": "The job."}}, openapi_extra=_body())
    async def create(request: Request) -> JSONResponse:
        """Queue a video."""
        asked, image = await _asked(request)
        if image is None and served.takes_image:
            message = f"{served.plan.model.id} makes a video of an image"
            raise RequestError(400, f"{message}; next: {_REFERENCE}", param=_REFERENCE)
        if image is not None and not served.takes_image:
            raise RequestError(400, f"{served.plan.model.id} takes no image", param=_REFERENCE)
        with ExitStack() as held:
            path = None
            if image is not None:
                path = await asyncio.to_thread(held.enter_context, images.keep(image, param=_REFERENCE))
            return JSONResponse(await videos.create(asked, path, request.state.note))

    @app.get("/v1/videos", responses=refused)
    async def page(
        after: str | None = None,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        order: Literal["asc", "desc"] = "desc",
    ) -> dict[str, Any]:
        """The jobs, the newest first."""
        return await videos.page(after, limit, order == "desc")

    @app.get("/v1/videos/{video_id}", responses=refused)
    async def one(video_id: str) -> JSONResponse:
        """A job: how far it is, and what came of it."""
        return JSONResponse(await videos.get(video_id), headers={"openai-poll-after-ms": str(_POLL_AFTER)})

    @app.delete("/v1/videos/{video_id}", responses=refused)
    async def delete(video_id: str) -> dict[str, Any]:
        """Remove a job and its video; one that is not done is not made."""
        return await videos.delete(video_id)

    file: _Answers = {
        200: {"description": "The video.", "content": {"video/mp4": {}}},
        206: {"description": "A part of it."},
        416: {"description": "It has no such part."},
    }

    @app.get("/v1/videos/{video_id}/content", response_class=FileResponse, responses=file | refused)
    async def content(video_id: str, variant: str = "video") -> FileResponse:
        """The video of a job."""
        if variant != "video":
            raise RequestError(400, "only the video is kept", param="variant")
        path = await videos.file(video_id)
        return _Video(path, media_type="video/mp4", headers={"X-Content-Type-Options": "nosniff"})


class _Video(FileResponse):
    """A file that another request may remove meanwhile."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except (RuntimeError, FileNotFoundError):
            raise RequestError(404, "this video was removed", code="video_not_found") from None


async def _asked(request: Request) -> tuple[VideoRequest, bytes | None]:
    """What a body asks for, and the input image."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json":
        values: dict[str, Any] = await json_of(request)
        reference = values.pop(_REFERENCE, None)
        if reference is None:
            return asked_in_json(VideoRequest, values), None
        if not isinstance(reference, dict) or {*reference} != {"image_url"}:
            raise RequestError(400, "expected an object with image_url", param=_REFERENCE)
        return asked_in_json(VideoRequest, values), image_in_url(reference["image_url"], _REFERENCE)
    fields, files = await form_of(request, (_REFERENCE,))
    if (url := fields.pop(f"{_REFERENCE}[image_url]", None)) is not None:
        files.append(image_in_url(url, _REFERENCE))
    if len(files) > 1:
        raise RequestError(400, f"give one image, not {len(files)}", param=_REFERENCE)
    return asked_in_form(VideoRequest, fields), files[0] if files else None


def _body() -> dict[str, Any]:
    """The body of a job, for the OpenAPI page."""
    schemas = []
    url = {"type": "object", "properties": {"image_url": {"type": "string"}}, "required": ["image_url"]}
    for image in (url | {"additionalProperties": False}, {"type": "string", "format": "binary"}):
        schema = VideoRequest.model_json_schema()
        schema["properties"] = schema["properties"] | {_REFERENCE: image}
        schemas.append({"schema": schema})
    content = dict(zip(("application/json", "multipart/form-data"), schemas, strict=True))
    return {"requestBody": {"required": True, "content": content}}
