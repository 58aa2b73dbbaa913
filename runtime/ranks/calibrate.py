"""The job of calibrating TeaCache: ``calibrate FOLDER``, with ``FOLDER/calibration.json``.

The plain pipeline draws each prompt, and the hooks of TeaCache, which here never skip a step, record how much the
modulated input changed since the step before, and how much what the blocks add to their input.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from omni_config.plan import Plan
from runtime.features import tea_cache
from runtime.ranks import generate, job

if TYPE_CHECKING:
    import torch

    from runtime.events import Writer


class Recorder(tea_cache.Cache):
    """Never skips; keeps the pairs of relative L1 changes, modulated input and residual, of each step but the first."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan, None)
        self.points: list[tuple[float, float]] = []
        self._moved: float | None = None

    def decide(self, modulated: torch.Tensor) -> None:
        """Note the change of the modulated input."""
        state = self.states.get_state()
        self._moved = None if state.modulated is None else self.change(modulated, state.modulated)
        state.modulated = modulated

    def keep(self, residual: torch.Tensor) -> None:
        """Note the change of the residual with it."""
        state = self.states.get_state()
        if self._moved is not None:
            self.points.append((self._moved, self.change(residual, state.residual)))
        super().keep(residual)


def main(words: Sequence[str]) -> NoReturn:
    """Record all prompts and end the process."""
    parser = argparse.ArgumentParser(description="Records what TeaCache is calibrated from; torchrun starts it.")
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args(words)
    job.end_with(lambda events: _record(arguments.folder, events), int(os.environ["RANK"]), arguments.folder)


def _record(folder: Path, events: Writer) -> dict[str, Any]:
    import torch

    from runtime.pipeline import load

    asked = json.loads((folder / "calibration.json").read_text(encoding="utf-8"))
    plan = Plan.from_json(json.dumps(asked["plan"]))
    events.progress("loading")
    pipe = load.pipeline(plan)
    recorder = Recorder(plan)
    tea_cache.attach(pipe, recorder)
    steps = plan.sampling.num_inference_steps

    def after_step(_: Any, step: int, __: Any) -> None:
        events.progress("recording", done * steps + step, len(asked["prompts"]) * steps)

    for done, prompt in enumerate(asked["prompts"]):
        sampling = replace(plan.sampling, prompt=prompt, seed=plan.sampling.seed + done)
        with torch.inference_mode():
            given = generate.arguments(replace(plan, sampling=sampling))
            pipe(**given, callback_on_step_end=job.step_callback(after_step))
    return {"points": recorder.points}
