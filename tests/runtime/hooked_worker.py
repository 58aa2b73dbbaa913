"""A worker that does to itself what the environment variable OMNI_TEST_HOOKS (JSON) says.

``latents``: folder for the last latents of each rank;
``fault``: ``[kind, rank, step]`` with the kinds raise, kill, hang and stop; step 0 is the end of loading; ``busy``:
the other ranks then compute for a long time, and see nothing of the fault; ``light``: instead of the pipeline, steps
that only wait for each other, so that no library but torch is loaded.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from runtime import apply, load, worker

HOOKS: dict[str, Any] = json.loads(os.environ["OMNI_TEST_HOOKS"])


def prepare(pipe: Any, rank: int) -> None:
    fault(rank, 0)


def on_step(rank: int, step: int, latents: Any) -> None:
    import numpy as np

    np.save(Path(HOOKS["latents"]) / f"{rank}.npy", latents.float().numpy())
    fault(rank, step)


def fault(rank: int, step: int) -> None:
    kind, *where = HOOKS.get("fault", (None, -1, -1))
    if HOOKS.get("busy") and rank != where[0] and step == where[1]:
        time.sleep(1000)
    if where != [rank, step]:
        return
    (Path(HOOKS["latents"]) / "fault").write_text(str(time.time()))
    if kind == "raise":
        raise ValueError("the weights are made of cheese\nand of a second line")
    if kind == "hang":
        time.sleep(1000)
    os.kill(os.getpid(), {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}[kind])


class LightPipeline:
    """Takes the arguments of a pipeline, and makes a grey picture in steps that synchronise the ranks."""

    def __call__(self, num_inference_steps: int, callback_on_step_end: Any, **_: Any) -> Any:
        import torch
        import torch.distributed as dist
        from PIL import Image

        latents = torch.zeros(4)
        for step in range(num_inference_steps):
            time.sleep(0.05)
            dist.all_reduce(latents)
            callback_on_step_end(self, step, 0, {"latents": latents})
        return SimpleNamespace(images=[Image.new("RGB", (64, 64), "grey")])


if HOOKS.get("light"):
    load.pipeline = lambda plan: LightPipeline()
    apply.ORDER = ()
worker.main(prepare, on_step)
