"""The job of ``runtime.proof.batch`` with cases that load nothing, and do as their prompt says.

``works``: the ranks meet; ``slow``: they make progress for longer than a case may stand still; ``hangs``: rank 1 does;
``waits``: each waits for another message; ``dies``: rank 1 is killed; ``raises``: rank 1 does, and the other one waits
for what never comes; ``ends all``: rank 0 kills the process that forks.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import numpy as np

from omni_config.plan import Plan
from runtime import compat
from runtime.events import Writer
from runtime.pipeline import load, mesh
from runtime.ranks import batch
from runtime.report import RankResult


def run(file: Path, case: dict[str, Any], plan: Plan, rank: int, timeout: float, events: Writer) -> None:
    import torch
    import torch.distributed as dist

    what = plan.sampling.prompt
    mesh.build(plan, rank, 600.0)
    events.progress("denoising", 1, 4)
    if what == "slow":
        for _ in range(int(3 * timeout)):
            time.sleep(0.5)
            events.progress("denoising", 1, 4)
    elif what == "ends all" and rank == 0:
        os.kill(os.getppid(), signal.SIGKILL)
    elif what == "dies" and rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "raises" and rank == 1:
        raise ValueError("made of cheese")
    elif what == "hangs" and rank == 1:
        time.sleep(1000)
    elif what in ("raises", "waits"):
        dist.distributed_c10d._get_default_store().wait(["what never comes"])
    dist.all_reduce(torch.zeros(1))
    np.savez(file.with_suffix(".npz"), latents=np.zeros(1), image=np.zeros((1, 1, 1, 3), np.uint8))
    result = RankResult((), 0.0, 0.0, 0.0, 0.0, 4, 0, 1.0, {})
    file.write_text(json.dumps({"result": asdict(result), "seconds": 0.1}))


batch._run = run
batch._GRACE = 2.0
compat.import_for_forks = lambda _: None
load.keep = lambda _: None
batch.main(sys.argv[2:])
