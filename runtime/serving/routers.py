"""What routers read of a server to share requests among several: vLLM's names, as llm-d and vLLM's own router expect.

They are those of the model server protocol of the Gateway API inference extension. Its cache of keys and values is
none of ours, so it is always empty.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from runtime.serving.queue import Queue, Ticket
from runtime.serving.requests import ServedConfig


class ForRouters(Collector):
    """Gauges that are read from the queue when they are asked for."""

    def __init__(self, served: ServedConfig, queue: Queue) -> None:
        self._model = served.plan.model.id
        self._max_loras = served.settings["max_loras"] if served.settings["lora_folder"] else None
        self._queue = queue

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The gauges now."""
        running, waiting = self._queue.running, self._queue.waiting
        for name, help_text, value in (
            ("vllm:num_requests_running", "Requests of which an image is in work.", len(running)),
            ("vllm:num_requests_waiting", "Requests that wait.", len(waiting)),
            ("vllm:kv_cache_usage_perc", "0: there is no such cache.", 0),
        ):
            family = GaugeMetricFamily(name, help_text, labels=("model_name", "engine"))
            family.add_metric((self._model, "0"), value)
            yield family
        if self._max_loras is not None:
            labels = ("max_lora", "running_lora_adapters", "waiting_lora_adapters")
            family = GaugeMetricFamily("vllm:lora_requests_info", "When it was read, in seconds.", labels=labels)
            family.add_metric((str(self._max_loras), _names(running), _names(waiting)), time.time())
            yield family


def _names(tickets: Iterable[Ticket]) -> str:
    return ",".join(sorted({Path(adapter.path).stem for ticket in tickets for adapter in ticket.adapters}))
