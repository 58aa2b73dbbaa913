"""Errors in the shape that clients of OpenAI's API expect."""

from __future__ import annotations

from typing import Any

from omni_config.findings import printable

#: ``type`` of an error by its status; any other below 500 is the request's fault.
_TYPES = {401: "authentication_error", 429: "rate_limit_error"}


class RequestError(Exception):
    """A request that gets no image."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code
        """The code of a rule, or a word of OpenAI's."""
        self.retry_after = retry_after
        """Seconds."""

    @property
    def body(self) -> dict[str, Any]:
        """The body of the answer."""
        kind = "server_error" if self.status >= 500 else _TYPES.get(self.status, "invalid_request_error")
        message, param = printable(str(self)), self.param and printable(self.param)  # a request may have named them
        return {"error": {"message": message, "type": kind, "param": param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the answer."""
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
