"""What a server counts, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """The counters of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = own = CollectorRegistry()
        self.requests = Counter(
            "omni_requests", "Requests for images, by what came of them.", ["outcome"], registry=own
        )
        self.images = Counter("omni_images", "Images that were made and sent.", registry=own)
        self.queue_depth = Gauge("omni_queue_depth", "Requests that wait.", registry=own)
        self.queue_wait = Histogram(
            "omni_queue_wait_seconds", "From a request to its first batch.", buckets=_SECONDS, registry=own
        )
        self.batch_size = Histogram(
            "omni_batch_size", "Images a batch.", buckets=(1, 2, 4, 8, 16, 32, 64), registry=own
        )
        self.step_seconds = Histogram("omni_step_seconds", "Seconds a denoising step.", buckets=_SECONDS, registry=own)
        self.steps = Counter("omni_steps", "Denoising steps, computed and cached.", ["kind"], registry=own)
        self.rank_memory = Gauge(
            "omni_rank_memory_bytes", "Memory that a rank uses.", ["replica", "rank"], registry=own
        )
        self.retries = Counter("omni_retries", "Images that were given to workers again, as theirs died.", registry=own)
        self.restarts = Counter(
            "omni_worker_restarts", "Times that failed workers were started again.", ["replica"], registry=own
        )
        self.ready = Gauge("omni_ready", "1 while the workers can make images.", ["replica"], registry=own)
        self.videos = Counter("omni_videos", "Video jobs, by what came of them.", ["outcome"], registry=own)
        self.making = Gauge("omni_replica_making", "Images that a replica makes now.", ["replica"], registry=own)
        self.joined = Counter("omni_joined", "Images that were begun beside others under way.", registry=own)
        self.made = Counter("omni_replica_images", "Images that a replica has made.", ["replica"], registry=own)
