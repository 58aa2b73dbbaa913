"""A worker that does to itself what the environment variable OMNI_TEST_HOOKS (JSON) says.

``latents``: folder for the last latents of each rank; ``break_rank``: one weight of that rank is changed;
``fault``: ``[kind, rank, step]`` with the kinds raise, kill, hang and stop; step 0 is the end of loading.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from runtime import worker

HOOKS: dict[str, Any] = json.loads(os.environ["OMNI_TEST_HOOKS"])


def prepare(pipe: Any, rank: int) -> None:
    if HOOKS.get("break_rank") == rank:
        weight = pipe.transformer.layers[2].attention.to_v.weight
        weight.data[0, 0] += 1.0
    fault(rank, 0)


def on_step(rank: int, step: int, latents: Any) -> None:
    import numpy as np

    np.save(Path(HOOKS["latents"]) / f"{rank}.npy", latents.float().numpy())
    fault(rank, step)


def fault(rank: int, step: int) -> None:
    kind, *where = HOOKS.get("fault", (None, -1, -1))
    if where != [rank, step]:
        return
    (Path(HOOKS["latents"]) / "fault").write_text(str(time.time()))
    if kind == "raise":
        raise ValueError("the weights are made of cheese\nand of a second line")
    if kind == "hang":
        time.sleep(1000)
    os.kill(os.getpid(), {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}[kind])


worker.main(prepare, on_step)
