"""What every request passes first: an id, the key, the limit of the body; and the line in the log when it is done."""

from __future__ import annotations

import secrets
import time
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runtime.serving.errors import RequestError
from runtime.serving.log import LOG
from runtime.serving.metrics import Metrics

#: What needs no key: probes, and pages that hold nothing of anybody.
OPEN = ("/", "/health", "/ready", "/docs", "/openapi.json")
#: What carries a signature of its own, below this.
SIGNED = "/v1/files/"
#: What asks for images or a video, below these.
_MAKES = ("/v1/images/", "/v1/videos")
_OUTCOMES = {200: "ok", 401: "unauthorized", 429: "queue_full", 499: "gone", 503: "failed", 504: "deadline"}


class Front:
    """The outermost application."""

    def __init__(self, app: ASGIApp, metrics: Metrics, *, api_key: str | None, max_body: int) -> None:
        self._app = app
        self._metrics = metrics
        self._expected = api_key and f"Bearer {api_key}".encode()
        self._max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        number = secrets.token_hex(8)
        note: dict[str, Any] = {}
        scope.setdefault("state", {})["note"] = note
        started, status, got = time.monotonic(), 499, 0
        problem: RequestError | None = None

        async def send_on(message: Message) -> None:
            nonlocal status
            if problem is not None and status == 499:
                return  # whatever was made of half a body
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", number.encode())]
            await send(message)

        async def receive_on() -> Message:
            nonlocal got, problem
            message = await receive()
            got += len(message.get("body", b""))
            if got > self._max_body:
                problem = self._too_large()
                raise problem
            return message

        try:
            self._admit(scope)
            await self._app(scope, receive_on, send_on)
        except RequestError as error:
            problem = error
        try:
            if problem is not None and status == 499:
                answer, problem = JSONResponse(problem.body, problem.status, problem.headers), None
                await answer(scope, receive, send_on)
        finally:
            self._done(scope, number, status, time.monotonic() - started, note)

    def _admit(self, scope: Scope) -> None:
        headers = dict(scope["headers"])
        if self._expected and scope["path"] not in OPEN and not scope["path"].startswith(SIGNED):
            given = headers.get(b"authorization", b"")
            if not secrets.compare_digest(given, self._expected):
                raise RequestError(401, "the API key is missing or wrong", code="invalid_api_key")
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self._max_body:
            raise self._too_large()

    def _too_large(self) -> RequestError:
        return RequestError(413, f"the body is larger than {self._max_body} bytes", code="body_too_large")

    def _done(self, scope: Scope, number: str, status: int, seconds: float, note: dict[str, Any]) -> None:
        outcome = note.pop("outcome", None) or _OUTCOMES.get(status, "invalid" if status < 500 else "error")
        if scope["method"] == "POST" and scope["path"].startswith(_MAKES):
            self._metrics.requests.labels(outcome=outcome).inc()
        elif scope["path"] in OPEN:
            return  # probes would fill the log
        path = scope["path"] if status not in (401, 404) else None  # anybody may write anything there
        fields = {"id": number, "method": scope["method"], "path": path, "status": status, "outcome": outcome}
        LOG.info("request", extra={"fields": fields | {"seconds": seconds} | note})
