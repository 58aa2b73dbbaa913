"""What a server counts, for Prometheus, and what it logs."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Log:
    """Lines on stderr: for people, or with ``as_json`` one object each."""

    def __init__(self, *, as_json: bool = False) -> None:
        self._as_json = as_json

    def info(self, event: str, **fields: Any) -> None:
        """Log what happened."""
        self._write("info", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        """Log what went wrong."""
        self._write("error", event, fields)

    def _write(self, level: str, event: str, fields: dict[str, Any]) -> None:
        if self._as_json:
            line = json.dumps({"time": time.time(), "level": level, "event": event} | fields)
        else:
            said = " ".join(f"{name}={_word(value)}" for name, value in fields.items() if value is not None)
            line = f"{time.strftime('%H:%M:%S')} {level:<5} {event} {said}".rstrip()
        print(line, file=sys.stderr, flush=True)


def _word(value: Any) -> str:
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    return json.dumps(text) if " " in text or not text.isprintable() else text


class UvicornLog(logging.Handler):
    """What uvicorn has to say, in our log."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Log a record; its traceback goes in as one field."""
        trace = logging.Formatter().formatException(record.exc_info) if record.exc_info else None
        self._log.error(record.getMessage(), traceback=trace)


class Metrics:
    """The counters of one server, in a registry of its own, and its log."""

    def __init__(self, log: Log | None = None) -> None:
        self.log = log or Log()
        self.registry = own = CollectorRegistry()
        self.requests = Counter(
            "omni_requests", "Requests for pictures, by what came of them.", ["outcome"], registry=own
        )
        self.pictures = Counter("omni_pictures", "Pictures that were made and sent.", registry=own)
        self.queue_depth = Gauge("omni_queue_depth", "Requests that wait.", registry=own)
        self.queue_wait = Histogram(
            "omni_queue_wait_seconds", "From a request to its first batch.", buckets=_SECONDS, registry=own
        )
        self.batch_size = Histogram(
            "omni_batch_size", "Pictures a batch.", buckets=(1, 2, 4, 8, 16, 32, 64), registry=own
        )
        self.step_seconds = Histogram("omni_step_seconds", "Seconds a denoising step.", buckets=_SECONDS, registry=own)
        self.steps = Counter("omni_steps", "Denoising steps, computed and cached.", ["kind"], registry=own)
        self.rank_memory = Gauge("omni_rank_memory_bytes", "Memory that a rank uses.", ["rank"], registry=own)
        self.restarts = Counter("omni_worker_restarts", "Times that failed workers were started again.", registry=own)
        self.ready = Gauge("omni_ready", "1 while the workers can make pictures.", registry=own)
