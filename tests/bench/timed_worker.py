"""The runtime's worker, whose rank 0 leaves its wall-clock and CPU seconds a step in the file OMNI_BENCH_TIMES."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from runtime.ranks import generate

times: list[tuple[float, float]] = []


def on_step(rank: int, _step: int, _latents: Any) -> None:
    times.append((time.perf_counter(), time.process_time()))
    if rank == 0 and len(times) == int(os.environ["OMNI_BENCH_STEPS"]):
        seconds = [(last - first) / (len(times) - 1) for first, last in zip(times[0], times[-1], strict=True)]
        Path(os.environ["OMNI_BENCH_TIMES"]).write_text(json.dumps(seconds))


generate.main(sys.argv[2:], on_step=on_step)
