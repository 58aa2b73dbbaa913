"""The line in front of all replicas: bounded, first come first served, compatible images together.

Images of a batch begin and end together. By steps, each is a batch of its own, and the first in line begins beside
those that are under way if it may share calls of the transformer with them.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from math import ceil

from omni_config.plan import Sampling
from runtime.pipeline.adapters import Adapter
from runtime.serving.metrics import Metrics
from runtime.serving.workers import Batch, Cancelled, Workers, WorkersDied, WorkersFailed


class Full(Exception):
    """The queue is full; ``retry_after`` is a guess at the seconds until it is not."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"the queue is full; try again in {retry_after} s")
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a request's image is done."""

    step: int
    steps: int


@dataclass(frozen=True, slots=True)
class Preview:
    """The image so far."""

    index: int
    png: bytes


@dataclass(eq=False)
class Ticket:
    """One request: images that differ in their seed, counted up from that of ``sampling``."""

    sampling: Sampling
    adapters: Sequence[Adapter] = ()
    """Beside those of the Plan."""
    previews: int = 0
    """How many times the image so far is shown; of one image only."""
    updates: asyncio.Queue[Step | Preview] = field(default_factory=asyncio.Queue)
    result: asyncio.Future[list[bytes]] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    """A PNG an image, or an MP4; or WorkersFailed."""
    on_begin: Callable[[], None] = lambda: None
    """Called when workers get the first of it."""
    arrived: float = field(default_factory=time.monotonic)
    waited: float | None = None
    """Seconds until its first batch."""
    step: int = 0
    """Steps that are done of what was made of it last."""
    images: dict[int, bytes] = field(default_factory=dict)
    shown: int = 0
    """Times that the image so far was shown."""

    @property
    def preview_steps(self) -> list[int]:
        """The steps, from 1, after which the image so far is shown: evenly spread, none of them first or last."""
        steps = self.sampling.num_inference_steps
        wanted = (round(steps * (index + 1) / (self.previews + 1)) for index in range(self.previews))
        return sorted({step for step in wanted if 1 < step < steps})


@dataclass(frozen=True, slots=True)
class _Image:
    ticket: Ticket
    index: int
    again: bool = False
    """Whether workers have died while they made it."""

    @property
    def sampling(self) -> Sampling:
        seed = (self.ticket.sampling.seed + self.index) % 2**63
        return replace(self.ticket.sampling, num_images_per_prompt=1, seed=seed)

    @property
    def call(self) -> tuple[Sampling, Sequence[Adapter]]:
        """What images of one call have in common."""
        asked = self.ticket.sampling
        negative = None if asked.negative_prompt is None else ""
        common = replace(asked, prompt="", negative_prompt=negative, num_images_per_prompt=1, seed=0)
        return common, self.ticket.adapters

    @property
    def step(self) -> tuple[Sampling, Sequence[Adapter]]:
        """What images have in common whose steps may be done together: of those, each has as many as it wants."""
        common, adapters = self.call
        return replace(common, num_inference_steps=1), adapters


class Queue:
    """Takes tickets and gives their images to the workers of whichever replica is free."""

    def __init__(
        self,
        replicas: Sequence[Workers],
        metrics: Metrics,
        *,
        max_waiting: int,
        max_batch_size: int,
        by_steps: bool = False,
    ) -> None:
        self._replicas = replicas
        self._metrics = metrics
        self._max_waiting = max_waiting
        self._max_batch_size = max_batch_size
        self._by_steps = by_steps
        self._waiting: deque[_Image] = deque()
        self._making: dict[Workers, dict[Batch, list[_Image]]] = {workers: {} for workers in replicas}
        self._changed = asyncio.Event()
        self._image_seconds = 1.0  # lately, for Retry-After

    @property
    def depth(self) -> int:
        """How many tickets wait."""
        return len(self.waiting)

    @property
    def waiting(self) -> set[Ticket]:
        """Tickets of which no image is in work yet."""
        return {image.ticket for image in self._waiting if image.ticket.waited is None}

    @property
    def running(self) -> set[Ticket]:
        """Tickets of which an image is in work."""
        return {image.ticket for workers in self._replicas for image in self._images_of(workers)}

    def require_room(self) -> None:
        """Refuse what would have to wait behind too many.

        Raises:
            Full: too many wait already.
        """
        if self.depth >= self._max_waiting:
            ready = sum(workers.ready.is_set() for workers in self._replicas)
            raise Full(max(1, ceil(len(self._waiting) * self._image_seconds / max(1, ready))))

    def add(self, ticket: Ticket, *, was_accepted: bool = False) -> None:
        """Let a ticket wait in line; one that an earlier server has accepted may do so in any case.

        Raises:
            Full: too many wait already.
        """
        if not was_accepted:
            self.require_room()
        self._waiting += [_Image(ticket, index) for index in range(ticket.sampling.num_images_per_prompt)]
        self._update()

    def drop(self, ticket: Ticket) -> None:
        """Nobody waits for a ticket any more; a batch of which nobody waits for any ends at its next step."""
        ticket.result.cancel()
        self._waiting = deque(image for image in self._waiting if image.ticket is not ticket)
        self._update()
        for workers, batches in self._making.items():
            for batch, images in batches.items():
                if all(image.ticket.result.done() for image in images):
                    workers.cancel(batch)

    def fail(self, error: Exception) -> None:
        """Tell everybody who waits that nothing will come."""
        for image in chain(self._waiting, *map(self._images_of, self._replicas)):
            if not image.ticket.result.done():
                image.ticket.result.set_exception(error)
        self._waiting.clear()
        self._update()

    async def work(self) -> None:
        """Make batches for ever, on all replicas."""
        async with asyncio.TaskGroup() as group:
            for workers in self._replicas:
                group.create_task(self._work(workers))

    async def _work(self, workers: Workers) -> None:
        """Make batches for ever; waits while the workers are not ready."""
        async with asyncio.TaskGroup() as group:
            while True:
                await workers.ready.wait()
                if not self._waiting or not self._may_begin(self._waiting[0], workers):
                    self._changed.clear()
                    await self._changed.wait()
                elif self._by_steps:
                    group.create_task(self._make(workers, self._begin([self._waiting[0]])))
                    await asyncio.sleep(0)  # it is among those under way then
                else:
                    await self._make(workers, self._take())

    def _may_begin(self, image: _Image, workers: Workers) -> bool:
        """Whether the first in line may begin beside what the workers are at.

        Others do not overtake one that may not. One whose workers have died is made alone.
        """
        making = self._images_of(workers)
        if not making:
            return True
        fits = len(making) < self._max_batch_size and image.step == making[0].step
        return self._by_steps and fits and not image.again and not making[0].again and not self._idle()

    def _images_of(self, workers: Workers) -> list[_Image]:
        return [image for images in self._making[workers].values() for image in images]

    def _idle(self) -> int:
        """How many replicas wait for something to do."""
        return sum(workers.ready.is_set() and not self._making[workers] for workers in self._replicas)

    async def _make(self, workers: Workers, images: list[_Image]) -> None:
        first = images[0].ticket
        steps = first.sampling.num_inference_steps
        previews = sorted({step for image in images for step in image.ticket.preview_steps})

        def on_step(step: int) -> None:
            for ticket in {image.ticket for image in images}:
                ticket.step = step
                ticket.updates.put_nowait(Step(step, steps))

        def on_preview(index: int, pngs: list[bytes]) -> None:
            for image, png in zip(images, pngs, strict=True):
                ticket = image.ticket
                if previews[index] in ticket.preview_steps[ticket.shown :]:
                    ticket.updates.put_nowait(Preview(ticket.shown, png))
                    ticket.shown += 1

        started = time.monotonic()
        batch = Batch([image.sampling for image in images], first.adapters, previews, on_step, on_preview)
        self._making[workers][batch] = images
        try:
            made = await workers.make(batch)
        except Cancelled:
            return
        except WorkersFailed as error:
            for image in reversed(images):
                if not isinstance(error, WorkersDied) or (batch.began and image.again):
                    self._give_up(image.ticket, error)
                elif not image.ticket.result.done():  # somebody still waits: it is the first in line again
                    self._waiting.appendleft(replace(image, again=image.again or batch.began))
                    self._metrics.retries.inc()
            return
        finally:
            together = len(self._images_of(workers))
            del self._making[workers][batch]
            self._update()
        self._metrics.made.labels(replica=workers.replica).inc(len(images))
        self._image_seconds = (time.monotonic() - started) / together
        for image, png in zip(images, made, strict=True):
            ticket = image.ticket
            ticket.images[image.index] = png
            if len(ticket.images) == ticket.sampling.num_images_per_prompt and not ticket.result.done():
                ticket.result.set_result([ticket.images[index] for index in sorted(ticket.images)])

    def _give_up(self, ticket: Ticket, error: WorkersFailed) -> None:
        if not ticket.result.done():
            ticket.result.set_exception(error)
        self._waiting = deque(other for other in self._waiting if other.ticket is not ticket)

    def _take(self) -> list[_Image]:
        """The first image in line, and those behind it that may be made in the same call; idle replicas share them.

        One whose workers have died is made alone: if it is what ends them, it takes no other with it again.
        """
        first = self._waiting[0]
        call = first.call
        # An input image is one file of one request.
        size = 1 if first.ticket.sampling.image is not None or first.again else self._max_batch_size
        alike = [image for image in self._waiting if image.call == call and image.again == first.again]
        return self._begin(alike[: min(size, ceil(len(alike) / max(1, self._idle())))])

    def _begin(self, taken: list[_Image]) -> list[_Image]:
        """Take images out of the line."""
        chosen = set(taken)
        self._waiting = deque(image for image in self._waiting if image not in chosen)
        now = time.monotonic()
        for image in taken:
            if image.ticket.waited is None:
                image.ticket.waited = now - image.ticket.arrived
                self._metrics.queue_wait.observe(image.ticket.waited)
                image.ticket.on_begin()
        if not self._by_steps:
            self._metrics.batch_size.observe(len(taken))
        self._update()
        return taken

    def _update(self) -> None:
        self._metrics.queue_depth.set(self.depth)
        self._changed.set()


async def stop(task: asyncio.Task[None]) -> None:
    """Cancel a task, and wait until it is done."""
    task.cancel()
    await asyncio.wait({task})
