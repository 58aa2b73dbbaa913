"""A rank that generates, and does to itself what the environment variable OMNI_TEST_HOOKS (JSON) says.

``latents``: folder for the last latents of each rank;
``fault``: ``[kind, rank, when]`` with the kinds raise, kill, hang, stop, full (files may have 8000 bytes from now on,
which a picture has not) and fill (the disk of ``latents``); it comes at the end of a step, 0 for the end of loading, at
the start of a phase, such as "decoding", or at "naming", when a file is whole and has no name yet; ``busy``: the other
ranks then compute for a long time, and see nothing of the fault;
``light``: instead of the pipeline, steps that only wait for each other, so that no library but torch is loaded;
``pause``: seconds that each phase of it takes.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from runtime.events import Writer
from runtime.pipeline import apply, load, media
from runtime.ranks import generate
from runtime.report import write_new

HOOKS: dict[str, Any] = json.loads(os.environ["OMNI_TEST_HOOKS"])


def prepare(pipe: Any, rank: int) -> None:
    fault(rank, 0)


def on_step(rank: int, step: int, latents: Any) -> None:
    import numpy as np

    np.save(Path(HOOKS["latents"]) / f"{rank}.npy", latents.float().numpy())
    fault(rank, step)


def progress(self: Writer, phase: str, step: int = 0, steps: int = 0) -> None:
    tell(self, phase, step, steps)
    if step == 0:
        fault(int(os.environ["RANK"]), phase)


def link(*paths: Any) -> None:
    fault(int(os.environ["RANK"]), "naming")
    name(*paths)


def fault(rank: int, when: int | str) -> None:
    kind, *where = HOOKS.get("fault", (None, -1, -1))
    if HOOKS.get("busy") and rank != where[0] and when == where[1]:
        time.sleep(1000)
    if where != [rank, when]:
        return
    (Path(HOOKS["latents"]) / "fault").write_text(str(time.time()))
    if kind == "raise":
        raise ValueError("the weights are made of cheese\nand of a second line")
    if kind == "hang":
        time.sleep(1000)
    if kind == "full":
        resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000))  # more than events take, and less than a picture
        return
    if kind == "fill":
        with Path(HOOKS["latents"], "rubbish").open("wb", 0) as file:
            while True:
                file.write(bytes(1024))
    os.kill(os.getpid(), {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}[kind])


class LightPipeline:
    """Takes the arguments of a pipeline, and makes a picture of noise in steps that synchronise the ranks."""

    def __call__(self, num_inference_steps: int, callback_on_step_end: Any, **_: Any) -> Any:
        import torch
        import torch.distributed as dist
        from PIL import Image

        latents = torch.zeros(4)
        for step in range(num_inference_steps):
            time.sleep(0.05)
            dist.all_reduce(latents)
            callback_on_step_end(self, step, 0, {"latents": latents})
        pause()
        return SimpleNamespace(images=[Image.effect_noise((128, 128), 64)])


def pause() -> None:
    time.sleep(HOOKS.get("pause", 0))


def light(*_: Any) -> LightPipeline:
    pause()
    return LightPipeline()


def save(output: Any, plan: Any) -> list[str]:
    def fill(path: Path) -> None:
        output.images[0].save(path, "PNG")
        pause()

    return [str(write_new(Path(plan.output) / "noise.png", fill))]


tell, Writer.progress = Writer.progress, progress
name, os.link = os.link, link
if HOOKS.get("light"):
    load.pipeline = light
    media.save = save
    apply.ORDER = ()
generate.main(sys.argv[2:], prepare, on_step)
