"""What torchrun starts to calibrate TeaCache: ``calibrate.py FOLDER``, with ``FOLDER/calibration.json``.

The plain pipeline draws each prompt, and the hooks of TeaCache, which here never skip a step, record how much the
modulated input changed since the step before, and how much what the blocks add to their input.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

_ROOT = str(Path(__file__).resolve().parents[2])
sys.path.insert(0, _ROOT)
import omni_config.plan  # noqa: E402
from runtime.features import tea_cache  # noqa: E402
from runtime.ranks import generate as worker  # noqa: E402

sys.path.remove(_ROOT)  # both packages are found now; what else lies beside them must not shadow anything

if TYPE_CHECKING:
    import torch

    from omni_config.plan import Plan
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


def main() -> None:
    """Record all prompts and end the process."""
    parser = argparse.ArgumentParser(description="Records what TeaCache is calibrated from; torchrun starts it.")
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    worker.end_with(lambda events: _record(arguments.folder, events), int(os.environ["RANK"]), arguments.folder)


def _record(folder: Path, events: Writer) -> dict[str, Any]:
    import torch

    from runtime.pipeline import load

    asked = json.loads((folder / "calibration.json").read_text(encoding="utf-8"))
    plan = omni_config.plan.Plan.from_json(json.dumps(asked["plan"]))
    events.progress("loading")
    pipe = load.pipeline(plan)
    recorder = Recorder(plan)
    tea_cache.attach(pipe, recorder)
    steps = plan.sampling.num_inference_steps

    def after_step(_: Any, step: int, __: Any, ___: Any) -> dict[str, Any]:
        events.progress("recording", done * steps + step + 1, len(asked["prompts"]) * steps)
        return {}

    for done, prompt in enumerate(asked["prompts"]):
        sampling = replace(plan.sampling, prompt=prompt, seed=plan.sampling.seed + done)
        with torch.inference_mode():
            pipe(**worker.arguments(replace(plan, sampling=sampling)), callback_on_step_end=after_step)
    return {"points": recorder.points}


if __name__ == "__main__":
    main()
