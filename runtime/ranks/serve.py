"""The job of a rank that serves: ``serve PLAN --folder FOLDER --timeout SECONDS``.

The server writes each batch, whole, into a file of ``FOLDER/batches`` and its number into a pipe for each rank, to
every rank in the same order; so no rank can begin what another one does not know. All ranks say what came of it in
the one pipe ``outbox``, a JSON object a line.

By steps, a batch may begin while others are under way. Between two steps, rank 0 looks at what has come and what is
not wanted any more, and tells the others.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from omni_config.plan import Plan, Sampling, sampling_from
from runtime.pipeline.adapters import Adapter, Adapters
from runtime.ranks import generate, job

if TYPE_CHECKING:
    from runtime.events import Writer
    from runtime.pipeline.stepwise import Call

_QUIET = 1.0  # seconds between two signs of life while a batch is denoised
_MOST = 64  # batches that are under way at once: server.max_batch_size has no more


class _Cancelled(Exception):
    """Nobody waits for this batch any more."""


def main(words: Sequence[str]) -> NoReturn:
    """Serve as this rank until the server says stop, and end the process."""
    parser = argparse.ArgumentParser(description="One rank of a server; torchrun starts it.")
    parser.add_argument("plan", type=Path)
    parser.add_argument("--folder", type=Path, required=True, help="Folder of the run.")
    parser.add_argument("--timeout", type=float, required=True, help="Seconds that a collective may take.")
    parser.add_argument("--max-loras", type=int, required=True, help="Adapters of requests that stay loaded.")
    parser.add_argument("--by-steps", action="store_true", help="Begin batches beside those that are under way.")
    arguments = parser.parse_args(words)
    rank = int(os.environ["RANK"])

    def work(events: Writer) -> dict[str, Any]:
        plan = Plan.from_json(arguments.plan.read_bytes())
        serve = _serve_by_steps if arguments.by_steps else _serve
        return serve(plan, rank, arguments.folder, arguments.timeout, arguments.max_loras, events)

    job.end_with(work, rank, arguments.folder)


def _serve(plan: Plan, rank: int, folder: Path, timeout: float, max_loras: int, events: Writer) -> dict[str, Any]:
    events.progress("loading")
    pipe, handles = generate.build(plan, rank, timeout)
    adapters = Adapters(pipe, plan, max_loras)
    say = _outbox(folder)
    say(rank=rank, memory=_memory())
    with (folder / f"inbox{rank}").open() as inbox:
        events.progress("waiting")
        for line in inbox:
            if line == "stop\n":
                break
            batch = _Batch(int(line), plan, folder, rank, events, say)
            cached, refused = 0, batch.use(adapters)
            if refused is None:
                for handle in handles.values():
                    handle.adapt(batch.plan)
                problem = batch.run(pipe)
                cached = sum(len(handle.measure().get("cached_steps", ())) for handle in handles.values())
            else:
                problem = refused
            batch.end(problem, refused is not None, batch.steps_done - cached, cached)
            say(rank=rank, memory=_memory())
            events.progress("waiting")
    return {}


def _serve_by_steps(
    plan: Plan, rank: int, folder: Path, timeout: float, max_loras: int, events: Writer
) -> dict[str, Any]:
    """Serve images, each a batch. Those that the server sends while others are under way go with them."""
    from runtime.pipeline.stepwise import Steps

    events.progress("loading")
    pipe, _ = generate.build(plan, rank, timeout)
    adapters, steps, say = Adapters(pipe, plan, max_loras), Steps(pipe, plan), _outbox(folder)
    inbox, stopping = _Inbox(folder / f"inbox{rank}"), False
    under_way: dict[_Batch, Call] = {}
    counted = 0  # steps of all, of which nothing has been said yet
    say(rank=rank, memory=_memory())
    events.progress("waiting")
    while under_way or not stopping:
        new, cancelled = 1, set[int]()  # each rank waits by itself, for as long as nobody asks for anything
        if under_way:
            unwanted = [batch.number for batch in under_way if rank == 0 and batch.is_cancelled]
            new, cancelled = _told(inbox.count() if rank == 0 else 0, unwanted)
        for batch in [batch for batch in under_way if batch.number in cancelled]:
            steps.leave(under_way.pop(batch))
            batch.end("cancelled", False, counted, 0)
            counted = 0
        for line in [inbox.next() for _ in range(new)]:
            if line == "stop":
                stopping = True
                continue
            batch = _Batch(int(line), plan, folder, rank, events, say)
            # What joins has the adapters of the others.
            if not under_way and (refused := batch.use(adapters)) is not None:
                batch.end(refused, True, 0, 0)
                continue
            events.progress("denoising", 0, batch.plan.sampling.num_inference_steps)
            under_way[batch] = steps.begin(**batch.arguments(batch.after_step))
        for batch in under_way:
            batch.set_out()
        if under_way:
            steps.step()
            counted += 1
        for batch in [batch for batch, call in under_way.items() if call.is_done]:
            call = under_way.pop(batch)
            batch.end(call.problem or batch.save(call.output), False, counted, 0)
            say(rank=rank, memory=_memory())
            counted = 0
        if not under_way:
            events.progress("waiting")
    return {}


def _outbox(folder: Path) -> Any:
    """Says something to the server."""
    outbox = os.open(folder / "outbox", os.O_WRONLY)

    def say(**message: Any) -> None:
        os.write(outbox, (json.dumps(message) + "\n").encode())  # short, so that lines of ranks do not mix

    return say


class _Inbox:
    """The lines that the server writes to a rank."""

    def __init__(self, path: Path) -> None:
        self._pipe = os.open(path, os.O_RDONLY)
        self._lines: deque[str] = deque()
        self._left = ""  # of a line that is not complete yet

    def count(self) -> int:
        """How many have come."""
        while select.select([self._pipe], [], [], 0)[0]:
            self._read()
        return len(self._lines)

    def next(self) -> str:
        """The next one, once it has come."""
        while not self._lines:
            self._read()
        return self._lines.popleft()

    def _read(self) -> None:
        data = os.read(self._pipe, 2**16)
        if not data:
            raise EOFError("the server has closed the pipe")
        *lines, self._left = (self._left + data.decode()).split("\n")
        self._lines += lines


class _Batch:
    """Images or videos that are made in one call of the pipeline; they differ in prompt and seed only."""

    def __init__(self, number: int, plan: Plan, folder: Path, rank: int, events: Writer, say: Any) -> None:
        say(number=number, began=True)  # first of all: whatever it does to this rank, it has been tried
        self.number = number
        self._folder = folder / "batches"
        told = json.loads((self._folder / f"{number}.json").read_text(encoding="utf-8"))
        self.samplings = [sampling_from(item) for item in told["samplings"]]
        self.plan = replace(plan, sampling=self.samplings[0])
        self._adapters = [Adapter(*item) for item in told["adapters"]]
        self._previews: list[int] = told["previews"]  # steps, from 1, after which the image so far is shown
        self._rank = rank
        self._events = events
        self._say = say
        self._latents: Any = None  # after the step before
        self._heard = self._began = time.monotonic()
        self.steps_done = 0

    def use(self, adapters: Adapters) -> str | None:
        """Let the call have its adapters; why no rank makes it, where one cannot use them, or None."""
        from runtime.errors import CannotRunError

        problem = None
        try:
            adapters.use(self._adapters)
        except CannotRunError as error:
            problem = str(error)
        if self._adapters and _any(problem is not None):
            adapters.use(())
            return problem or "another rank cannot use the adapters"
        return None

    def run(self, pipe: Any) -> str | None:
        """Call the pipeline, and save what it made from rank 0; why there is nothing, or None."""
        from runtime.errors import CannotRunError

        self._events.progress("denoising", 0, self.plan.sampling.num_inference_steps)
        try:
            output = generate.call(pipe, self.plan, **self.arguments(self._after_step_or_end))
        except _Cancelled:
            return "cancelled"
        except CannotRunError as error:  # not a number: all ranks have come to the end
            return str(error)
        return self.save(output)

    def arguments(self, after_step: job.AfterStep) -> dict[str, Any]:
        """Of one call of the pipeline."""
        return _arguments(self.plan, self.samplings) | {"callback_on_step_end": job.step_callback(after_step)}

    def save(self, output: Any) -> str | None:
        """Save from rank 0 what the pipeline made; why there is nothing, or None."""
        if self._rank != 0:
            return None
        self._events.progress("saving")
        try:
            if self.plan.sampling.video is None:
                self._save(output.images, "")
            else:
                self._save_videos(output.frames, self.plan.sampling.video.fps)
        except OSError as error:  # no other rank waits for this one now
            return f"what was made cannot be written: {error.strerror or error}"
        return None

    def end(self, problem: str | None, refused: bool, computed: int, cached: int) -> None:
        """Say what came of it: why there is nothing, and the steps that it took."""
        if self._rank == 0:
            self._say(number=self.number, problem=problem, refused=refused, computed=computed, cached=cached)

    @property
    def is_cancelled(self) -> bool:
        """Whether nobody waits for it any more."""
        return (self._folder / f"{self.number}.cancel").exists()

    def _after_step_or_end(self, pipe: Any, step: int, latents: Any) -> None:
        self.after_step(pipe, step, latents)
        if _agreed(self.is_cancelled):
            raise _Cancelled
        self.set_out()

    def set_out(self) -> None:
        """A step begins now."""
        self._began = time.monotonic()

    def after_step(self, pipe: Any, step: int, latents: Any) -> None:
        """Say that a step is done, and show the image so far, where that is wanted."""
        self.steps_done = step
        now = time.monotonic()
        if now > self._heard + _QUIET:
            self._heard = now
            self._events.progress("denoising", self.steps_done, self.plan.sampling.num_inference_steps)
        if self._rank == 0:
            self._say(number=self.number, step=self.steps_done, seconds=now - self._began)
        if step in self._previews:
            self._preview(pipe, step, latents)
        self._latents = latents

    def _preview(self, pipe: Any, step: int, latents: Any) -> None:
        from runtime.pipeline.preview import preview

        if self._latents is None:
            return
        sampling = self.plan.sampling
        images = preview(pipe, step - 1, self._latents, latents, sampling.height, sampling.width)
        if self._rank == 0:
            index = self._previews.index(step)
            self._save(images, f"preview{index}-")
            self._say(number=self.number, preview=index)

    def _save_videos(self, videos: list[Any], fps: int | None) -> None:
        from runtime.pipeline.media import write_mp4

        assert fps is not None, "the runtime's Plans have one"
        for index, frames in enumerate(videos):
            write_mp4(frames, fps, self._folder / f"{self.number}-{index}.mp4")

    def _save(self, images: list[Any], name: str) -> None:
        for index, image in enumerate(images):
            image.save(self._folder / f"{self.number}-{name}{index}.png")


def _arguments(plan: Plan, samplings: list[Sampling]) -> dict[str, Any]:
    """Of one call of the pipeline; each image has a generator of its own, so its noise is that of its seed."""
    import torch

    arguments = generate.arguments(plan)
    if len(samplings) > 1:
        arguments["prompt"] = [sampling.prompt for sampling in samplings]
        arguments["generator"] = [torch.Generator("cpu").manual_seed(sampling.seed) for sampling in samplings]
        if plan.sampling.negative_prompt is not None:
            arguments["negative_prompt"] = [sampling.negative_prompt for sampling in samplings]
    return arguments


def _agreed(cancel: bool) -> bool:
    """What rank 0 has seen, on every rank."""
    import torch
    import torch.distributed as dist

    from runtime.device import device

    if not dist.is_initialized():
        return cancel
    flag = torch.tensor([cancel], dtype=torch.uint8, device=device())
    dist.broadcast(flag, 0)
    return bool(flag.item())


def _told(new: int, cancelled: Sequence[int]) -> tuple[int, set[int]]:
    """What rank 0 has seen, on every rank: how many lines have come, and which batches nobody waits for."""
    import torch
    import torch.distributed as dist

    from runtime.device import device

    if not dist.is_initialized():
        return new, {*cancelled}
    numbers = torch.zeros(_MOST + 1, dtype=torch.int64)
    numbers[: len(cancelled) + 1] = torch.tensor([new, *cancelled])
    numbers = numbers.to(device())
    dist.broadcast(numbers, 0)
    new, *cancelled = numbers.tolist()
    return new, {*cancelled} - {0}


def _any(flag: bool) -> bool:
    """Whether it is so on any rank."""
    import torch
    import torch.distributed as dist

    from runtime.device import device

    if not dist.is_initialized():
        return flag
    told = torch.tensor([flag], dtype=torch.uint8, device=device())
    dist.all_reduce(told, dist.ReduceOp.MAX)
    return bool(told.item())


def _memory() -> int:
    """Bytes in use: the resident set of the process on CPU, what the allocator holds on a GPU."""
    import psutil
    import torch

    return torch.cuda.memory_allocated() if torch.cuda.is_available() else int(psutil.Process().memory_info().rss)
