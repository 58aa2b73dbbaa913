"""A trace of a few steps of each rank, by torch's profiler, into the output folder (``omni launch --profile``)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omni_config.plan import Plan
from runtime.report import write

_FIRST, _STEPS = 2, 3  # steps that are left out, as the first ones are slower, and steps that are traced


@contextmanager
def of_steps(plan: Plan, rank: int, wanted: bool) -> Iterator[Callable[[], None]]:
    """Trace some steps of a call, where ``wanted``; what is yielded is to be called after each step.

    ``trace-rank0.json.gz`` is for Perfetto or chrome://tracing. It has the Python frames too, which make Python look
    slower than it is.
    """
    if not wanted:
        yield lambda: None
        return
    from torch.profiler import profile, schedule

    def keep(trace: Any) -> None:
        write(Path(plan.output) / f"trace-rank{rank}.json.gz", lambda path: trace.export_chrome_trace(str(path)))

    first = min(_FIRST, max(plan.sampling.num_inference_steps - _STEPS, 0))
    steps = schedule(wait=max(first - 1, 0), warmup=min(first, 1), active=_STEPS, repeat=1)
    with profile(schedule=steps, on_trace_ready=keep, with_stack=True, record_shapes=True) as trace:
        yield trace.step
