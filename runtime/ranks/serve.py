"""The job of a rank that serves: ``serve PLAN --folder FOLDER --timeout SECONDS``.

The server writes each batch, whole, into a file of ``FOLDER/batches`` and its number into a pipe for each rank, to
every rank in the same order; so no rank can begin what another one does not know. All ranks say what came of it in
the one pipe ``outbox``, a JSON object a line.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from omni_config.plan import Plan, Sampling, sampling_from
from runtime.pipeline.adapters import Adapter, Adapters
from runtime.ranks import generate, job

if TYPE_CHECKING:
    from runtime.events import Writer

_QUIET = 1.0  # seconds between two signs of life while a batch is denoised


class _Cancelled(Exception):
    """Nobody waits for this batch any more."""


def main(words: Sequence[str]) -> NoReturn:
    """Serve as this rank until the server says stop, and end the process."""
    parser = argparse.ArgumentParser(description="One rank of a server; torchrun starts it.")
    parser.add_argument("plan", type=Path)
    parser.add_argument("--folder", type=Path, required=True, help="Folder of the run.")
    parser.add_argument("--timeout", type=float, required=True, help="Seconds that a collective may take.")
    parser.add_argument("--max-loras", type=int, required=True, help="Adapters of requests that stay loaded.")
    arguments = parser.parse_args(words)
    rank = int(os.environ["RANK"])

    def work(events: Writer) -> dict[str, Any]:
        plan = Plan.from_json(arguments.plan.read_bytes())
        return _serve(plan, rank, arguments.folder, arguments.timeout, arguments.max_loras, events)

    job.end_with(work, rank, arguments.folder)


def _serve(plan: Plan, rank: int, folder: Path, timeout: float, max_loras: int, events: Writer) -> dict[str, Any]:
    events.progress("loading")
    pipe, handles = generate.build(plan, rank, timeout)
    adapters = Adapters(pipe, plan, max_loras)
    outbox = os.open(folder / "outbox", os.O_WRONLY)

    def say(**message: Any) -> None:
        os.write(outbox, (json.dumps(message) + "\n").encode())  # short, so that lines of ranks do not mix

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
            if rank == 0:
                counted = {"computed": batch.steps_done - cached, "cached": cached}
                say(number=batch.number, problem=problem, refused=refused is not None, **counted)
            say(rank=rank, memory=_memory())
            events.progress("waiting")
    return {}


class _Batch:
    """Images or videos that are made in one call of the pipeline; they differ in prompt and seed only."""

    def __init__(self, number: int, plan: Plan, folder: Path, rank: int, events: Writer, say: Any) -> None:
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
        self._heard = self._ended = time.monotonic()
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
            given = _arguments(self.plan, self.samplings)
            output = generate.call(pipe, self.plan, **given, callback_on_step_end=job.step_callback(self._after_step))
        except _Cancelled:
            return "cancelled"
        except CannotRunError as error:  # not a number: all ranks have come to the end
            return str(error)
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

    def _after_step(self, pipe: Any, step: int, latents: Any) -> None:
        self.steps_done = step
        now = time.monotonic()
        if now > self._heard + _QUIET:
            self._heard = now
            self._events.progress("denoising", self.steps_done, self.plan.sampling.num_inference_steps)
        if self._rank == 0:
            self._say(number=self.number, step=self.steps_done, seconds=now - self._ended)
        if _agreed((self._folder / f"{self.number}.cancel").exists()):
            raise _Cancelled
        if self.steps_done in self._previews:
            self._preview(pipe, step, latents)
        self._latents = latents
        self._ended = time.monotonic()

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
