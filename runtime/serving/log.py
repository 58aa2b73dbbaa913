"""The log of a server, on stderr: lines for people, or JSON objects. Its fields come in ``extra={"fields": ...}``."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any

LOG = logging.getLogger("omni.serve")


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The record with its fields; a traceback is one of them."""
        said = {"time": record.created, "level": record.levelname.lower(), "event": record.getMessage()}
        return json.dumps(said | _fields(record))


class TextFormatter(logging.Formatter):
    """A line for people."""

    def format(self, record: logging.LogRecord) -> str:
        """The time, the level, what happened, and its fields but those that are None."""
        said = " ".join(f"{name}={_word(value)}" for name, value in _fields(record).items() if value is not None)
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        return f"{clock} {record.levelname.lower():<5} {record.getMessage()} {said}".rstrip()


def set_up(*, as_json: bool) -> None:
    """Send what this server logs to stderr, and with it uvicorn's warnings and errors."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if as_json else TextFormatter())
    for logger, level in ((LOG, logging.INFO), (logging.getLogger("uvicorn.error"), logging.WARNING)):
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields: dict[str, Any] = dict(getattr(record, "fields", {}))
    if record.exc_info:
        fields["traceback"] = logging.Formatter().formatException(record.exc_info)
    return fields


def _word(value: Any) -> str:
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    return json.dumps(text) if " " in text or not text.isprintable() else text
