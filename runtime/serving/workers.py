"""The workers of a replica: started under torchrun, given batches, started again when they fail."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from omni_config.plan import Plan, Sampling
from runtime.events import Rank
from runtime.launcher import failures, torchrun
from runtime.pipeline.adapters import Adapter
from runtime.serving.log import LOG
from runtime.serving.metrics import Metrics


class Cancelled(Exception):
    """The batch was ended between two steps, as nobody waited for it."""


class WorkersFailed(Exception):
    """There is no image; the text is one line with the cause."""

    status = 503
    code = "workers_failed"


class Refused(WorkersFailed):
    """Its adapters cannot be used; workers are as before."""

    status = 400
    code = "lora_unusable"


class WorkersDied(WorkersFailed):
    """The workers ended during the batch; others may still make it."""


class ServerEnds(WorkersFailed):
    """The server ends, and the next one may make it."""


@dataclass(eq=False)
class Batch:
    """Images that are made in one call, with the same adapters beside those of the Plan.

    ``previews``: the steps, from 1, after which the image so far is shown.
    """

    samplings: Sequence[Sampling]
    adapters: Sequence[Adapter] = ()
    previews: Sequence[int] = ()
    on_step: Callable[[int], None] = lambda _: None
    """Gets the number of steps that are done."""
    on_preview: Callable[[int, list[bytes]], None] = lambda *_: None
    """Gets the index of a preview, and its PNG of each image."""
    began: bool = False
    """Whether a rank has taken it; workers that were dead by then have not tried."""
    result: asyncio.Future[list[bytes]] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    """A PNG an image, or an MP4 a video; or Cancelled, WorkersDied, or WorkersFailed."""


class Workers:
    """One run of torchrun after the other; all methods belong to the event loop's thread."""

    def __init__(
        self,
        plan: Plan,
        metrics: Metrics,
        *,
        replica: int,
        started: asyncio.Event,
        environment: Mapping[str, str],
        by_steps: bool,
        max_loras: int,
        max_restarts: int,
        timeout: float,
        worker: Path,
    ) -> None:
        self.plan = plan
        self.replica = replica
        self.started = started
        """Set once workers of this Plan, here or in another replica, were ready: until then they may not be able to."""
        self.restarts = 0
        self.ready = asyncio.Event()
        """Set while the workers can take a batch: they have loaded, and made one."""
        self.failure: str | None = None
        """Why they ended; None again once they are ready."""
        self._environment = environment
        self._by_steps = by_steps
        self._ended = False
        self._metrics = metrics
        self._max_loras = max_loras
        self._max_restarts = max_restarts
        self._timeout = timeout
        self._worker = worker
        self._run: _Run | None = None
        self._number = 0
        self._batches: dict[int, Batch] = {}  # that are being made, the oldest first: several by steps, or one
        self._stopping = False

    async def run(self, warm_up: Sampling) -> None:
        """Start the workers until ``stop``, and again each time they fail; return when they are not started again.

        ``warm_up`` is made before they count as ready.
        """
        self._metrics.ready.labels(replica=self.replica).set(0)
        for restarts in range(self._max_restarts + 1):
            self.restarts = restarts
            if restarts:
                self._metrics.restarts.labels(replica=self.replica).inc()
            told: WorkersFailed = ServerEnds("the server is shutting down")
            try:
                await self._once(warm_up)
            except failures.LaunchError as error:
                who = "torchrun" if error.rank is None else f"rank {error.rank}"
                self.failure = str(error)
                told = WorkersDied(f"the workers failed ({who}: {error.cause}); try again")
            finally:
                self.ready.clear()
                self._metrics.ready.labels(replica=self.replica).set(0)
                for batch in self._batches.values():
                    if not batch.result.done():
                        batch.result.set_exception(told)
            if self._stopping:
                return
            # What cannot start at all does not get better.
            left = self._max_restarts - restarts if self.started.is_set() else 0
            self._ended = not left
            fields = {"replica": self.replica, "cause": self.failure, "restarts_left": left}
            LOG.error("workers failed", extra={"fields": fields})
            if self._ended:
                return

    def shown(self) -> dict[str, Any]:
        """What operators look at, JSON-ready."""
        state = "failed" if self._ended else "loading"
        if self.ready.is_set():
            state = "busy" if self._batches else "ready"
        gpus = next((value for name, value in self._environment.items() if name.endswith("VISIBLE_DEVICES")), None)
        told = {"replica": self.replica, "state": state, "restarts": self.restarts, "gpus": gpus}
        return told | {"failure": self.failure}

    async def _once(self, warm_up: Sampling) -> None:
        # A thread of its own, for as long as the workers run: those that the loop has are few, and others need them.
        with _Run(self.plan, self._by_steps, self._max_loras, self._heard) as run, ThreadPoolExecutor(1) as thread:
            self._run = run
            loop = asyncio.get_running_loop()
            follow = loop.run_in_executor(thread, run.follow, self._worker, self._timeout, self._environment)
            warm = asyncio.create_task(self._warm(warm_up))
            try:
                await asyncio.shield(follow)
            finally:
                warm.cancel()
                if not follow.done():
                    run.kill()
                    with suppress(failures.LaunchError):
                        await follow
                self._run = None

    async def _warm(self, warm_up: Sampling) -> None:
        with suppress(WorkersFailed, Cancelled):
            await self.make(Batch([warm_up]))
            self.failure = None
            self.started.set()
            self.ready.set()
            LOG.info("ready", extra={"fields": {"replica": self.replica}})
            self._metrics.ready.labels(replica=self.replica).set(1)

    async def make(self, batch: Batch) -> list[bytes]:
        """Make the images of a batch: a PNG each, or the videos, an MP4 each. The workers must be idle.

        By steps, they may be at batches of one image; this one then has the same size, adapters and guidance.

        Raises:
            Cancelled: ``cancel`` was called.
            WorkersDied: they ended meanwhile, or run no more.
            Refused: they cannot use its adapters.
            WorkersFailed: they cannot make it, or not be told to.
        """
        assert self._by_steps or not self._batches
        if self._run is None:
            raise WorkersDied(self.failure or "the workers are not running")
        self._number = number = self._number + 1
        self._batches[number] = batch
        self._metrics.joined.inc(len(self._batches) > 1)
        self._count()
        try:
            self._run.send(number, batch)
            return await batch.result
        except OSError as error:  # no rank has heard of it
            raise WorkersFailed(f"the batch cannot be written: {error.strerror}") from error
        finally:
            del self._batches[number]
            self._count()

    def cancel(self, batch: Batch) -> None:
        """End a batch that is being made at its next step."""
        for number, other in self._batches.items():
            if other is batch and self._run is not None:
                (self._run.batches / f"{number}.cancel").touch()

    def stop(self) -> None:
        """Let the workers end when they are idle."""
        self._stopping = True
        if self._run is not None:
            self._run.tell("stop")

    def _heard(self, message: dict[str, Any]) -> None:
        """Take in what a rank has said."""
        if "memory" in message:
            self._metrics.rank_memory.labels(replica=self.replica, rank=message["rank"]).set(message["memory"])
            return
        number = message["number"]
        batch = self._batches.get(number)
        if batch is None or self._run is None or batch.result.done():
            return
        if "began" in message:
            batch.began = True
        elif "step" in message:
            if number == min(self._batches):  # the others did the same step
                self._metrics.step_seconds.observe(message["seconds"])
            batch.on_step(message["step"])
        elif "preview" in message:
            name = f"{number}-preview{message['preview']}-"
            batch.on_preview(message["preview"], self._run.files(name, len(batch.samplings), ".png"))
        else:
            self._metrics.steps.labels(kind="computed").inc(message["computed"])
            self._metrics.steps.labels(kind="cached").inc(message["cached"])
            if message["problem"] == "cancelled":
                batch.result.set_exception(Cancelled())
            elif message["problem"]:
                failed = Refused if message["refused"] else WorkersFailed
                batch.result.set_exception(failed(message["problem"]))
            else:
                end = ".mp4" if batch.samplings[0].video else ".png"
                batch.result.set_result(self._run.files(f"{number}-", len(batch.samplings), end))
            self._run.forget(number)

    def _count(self) -> None:
        images = sum(len(batch.samplings) for batch in self._batches.values())
        self._metrics.making.labels(replica=self.replica).set(images)


class _Run:
    """One run of torchrun: its folder, its pipes, and the thread that follows it."""

    def __init__(self, plan: Plan, by_steps: bool, max_loras: int, heard: Callable[[dict[str, Any]], None]) -> None:
        self._plan = plan
        self._by_steps = by_steps
        self._max_loras = max_loras
        self._heard = heard
        self._left = b""  # of a line that is not complete yet

    def __enter__(self) -> _Run:
        """Make the folder and the pipes. Both ends of a pipe are held here, so that none is ever at its end."""
        self._folders = torchrun.run_folder(signals=False)
        self._folder = self._folders.__enter__()
        self.batches = self._folder / "batches"
        self.batches.mkdir()
        (self._folder / "plan.json").write_text(json.dumps(self._plan.to_dict()), encoding="utf-8")
        self._ranks = [Rank(self._folder, rank) for rank in range(self._plan.mesh.world_size)]
        self._inboxes = [self._pipe(f"inbox{rank.rank}") for rank in self._ranks]
        self._outbox = self._pipe("outbox")
        asyncio.get_running_loop().add_reader(self._outbox, self._read)
        return self

    def __exit__(self, *error: Any) -> None:
        """Remove the folder, but keep it where the run failed, for its log; batches hold prompts, and never stay."""
        asyncio.get_running_loop().remove_reader(self._outbox)
        for pipe in (*self._inboxes, self._outbox):
            os.close(pipe)
        shutil.rmtree(self.batches)
        self._folders.__exit__(*error)

    def follow(self, worker: Path, timeout: float, environment: Mapping[str, str]) -> None:
        """Start torchrun, with ``environment`` added to ours, and return when all ranks have stopped.

        Raises:
            LaunchError: a rank raised, was killed, or hung, or torchrun did not start.
        """
        log = self._folder / torchrun.LOG
        options = ["--folder", str(self._folder), "--timeout", str(timeout + 60), "--max-loras", str(self._max_loras)]
        options += ["--by-steps"] if self._by_steps else []
        line = torchrun.command(len(self._ranks), "serve", [str(self._folder / "plan.json"), *options], worker=worker)
        torchrun.run(
            line,
            self._folder,
            self._ranks,
            timeout=timeout,
            log=log,
            on_progress=lambda *_: None,
            environment=environment,
        )

    def send(self, number: int, batch: Batch) -> None:
        """Give every rank the batch, whole; with a copy of its input image, which a client that leaves takes away."""
        samplings = [asdict(sampling) for sampling in batch.samplings]
        if (image := batch.samplings[0].image) is not None:
            (sampling,) = samplings
            sampling["image"] = str(shutil.copyfile(image, self.batches / f"{number}-input.png"))
        told = json.dumps({"samplings": samplings, "adapters": batch.adapters, "previews": list(batch.previews)})
        (self.batches / f"{number}.json").write_text(told, encoding="utf-8")
        self.tell(str(number))

    def tell(self, line: str) -> None:
        """Write a line into the pipe of each rank."""
        for pipe in self._inboxes:
            os.write(pipe, f"{line}\n".encode())

    def files(self, name: str, count: int, end: str) -> list[bytes]:
        """The files of a batch that rank 0 has written."""
        return [(self.batches / f"{name}{index}{end}").read_bytes() for index in range(count)]

    def forget(self, number: int) -> None:
        """Remove the files of a batch."""
        for path in self.batches.glob(f"{number}[.-]*"):
            path.unlink()

    def kill(self) -> None:
        """End every rank; ``follow`` raises then."""
        for rank in self._ranks:
            if rank.pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(rank.pid, signal.SIGKILL)

    def _pipe(self, name: str) -> int:
        os.mkfifo(self._folder / name)
        return os.open(self._folder / name, os.O_RDWR | os.O_NONBLOCK)

    def _read(self) -> None:
        *lines, self._left = (self._left + os.read(self._outbox, 2**16)).split(b"\n")
        for line in lines:
            self._heard(json.loads(line))
