"""Calibrates TeaCache: the polynomial that tells from the modulated input how much the blocks' residual changes.

After Liu et al. 2024 (arXiv:2411.19108): relative L1 changes from step to step are recorded without caching, and a
polynomial of degree 4 is fitted by least squares. What TeaCache reuses is the residual of the blocks, so its change is
what is predicted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from omni_config.plan import Plan, TeaCache
from runtime.events import Progress, Rank
from runtime.launcher import torchrun
from runtime.report import versions

DEGREE = 4
IDENTITY = (0.0, 0.0, 0.0, 1.0, 0.0)


@dataclass(frozen=True, slots=True)
class Calibration:
    """The fitted polynomial, highest power first, and how well it predicts; errors are root mean squares.

    ``points`` are pairs of relative L1 changes (no unit): of the modulated input, and of the blocks' residual.
    """

    model: str
    coefficients: tuple[float, ...]
    fit_error: float
    identity_error: float
    """Of the change of the input taken as it is, which is what to beat."""
    lowest: float
    """Of the polynomial over the recorded changes; at or below 0, it would never stop reusing."""
    points: tuple[tuple[float, float], ...]
    prompts: tuple[str, ...]
    steps: int
    versions: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """The calibration as JSON-ready values."""
        return asdict(self)


def calibrate(
    plan: Plan,
    prompts: Sequence[str],
    *,
    timeout: float = 600.0,
    on_progress: Callable[[Progress], None] | None = None,
) -> Calibration:
    """Draw each prompt with the plain pipeline of a Plan, the seed counting up, and fit TeaCache's coefficients.

    ``timeout`` bounds the seconds without progress. The same Plan and prompts give the same coefficients.

    Raises:
        LaunchError: the run failed, or TeaCache does not know this transformer.
        ValueError: there are too few steps for a fit.
    """
    if (plan.sampling.num_inference_steps - 1) * len(prompts) <= DEGREE:
        raise ValueError("too few steps for a fit; raise num_inference_steps, or give more prompts")
    never = TeaCache(rel_l1_thresh=0.0, coefficients=IDENTITY)
    asked = {"plan": replace(plan.plain(), cache=never).to_dict(), "prompts": list(prompts)}
    with torchrun.run_folder() as folder:
        (folder / "calibration.json").write_text(json.dumps(asked), encoding="utf-8")
        rank = Rank(folder, 0)

        def show(_: Rank, progress: Progress) -> None:
            if on_progress is not None:
                on_progress(progress)

        line = torchrun.command(1, "calibrate", [str(folder)])
        torchrun.run(line, folder, [rank], timeout=timeout, log=folder / torchrun.LOG, on_progress=show)
    assert rank.result is not None
    return fit(plan, prompts, [(float(moved), float(changed)) for moved, changed in rank.result["points"]])


def fit(plan: Plan, prompts: Sequence[str], points: Sequence[tuple[float, float]]) -> Calibration:
    """The calibration of recorded points."""
    import numpy as np

    moved, changed = np.array(points).T
    coefficients = np.polyfit(moved, changed, DEGREE)
    over = np.linspace(moved.min(), moved.max(), 1000)

    def error(polynomial: Any) -> float:
        return float(np.sqrt(np.mean((np.polyval(polynomial, moved) - changed) ** 2)))

    return Calibration(
        model=plan.model.id,
        coefficients=tuple(float(value) for value in coefficients),
        fit_error=error(coefficients),
        identity_error=error(IDENTITY),
        lowest=float(np.polyval(coefficients, over).min()),
        points=tuple(points),
        prompts=tuple(prompts),
        steps=plan.sampling.num_inference_steps,
        versions=versions(),
    )
