"""The estimate held against this machine's CPU: calibrated once, fitted to some runs, and judged by others.

    python tests/bench/judge_speed.py

The machine is measured with two ranks (omni calibrate machine), then one embedded model is launched a few times, and
the estimate is fitted to that (omni suggest --from). What is judged are other models, sizes and plans: nothing of
theirs was used. A rank has one thread, so that a plan of one rank computes as those of two do. It takes about five
minutes on two cores that have nothing else to do; on busy ones it says nothing.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import correlation, median

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from launched import launch, omni  # noqa: E402

from omni_config.estimate.data import Gpu  # noqa: E402
from omni_config.estimate.machine import machine_of  # noqa: E402
from omni_config.planner.fit import fit, step_seconds  # noqa: E402
from omni_config.planner.judge import ranks  # noqa: E402
from omni_config.planner.runs import Run, runs_in  # noqa: E402

STEPS = 7
ALONE: dict[str, int] = {}
ULYSSES, RING, TENSOR, CFG = (
    {name: 2} for name in ("ulysses_degree", "ring_degree", "tensor_parallel_size", "cfg_parallel_size")
)


@dataclass(frozen=True)
class Wanted:
    """One run: a model, the sides of its image in pixels, degrees, and whether there is guidance."""

    model: str
    pixels: int
    parallel: dict[str, int]
    guided: bool = False


LEARNED = [
    *(Wanted("tiny", pixels, ALONE) for pixels in (128, 256, 384)),
    *(Wanted("tiny", pixels, degree) for pixels in (256, 384) for degree in (ULYSSES, RING, TENSOR)),
]
JUDGED = [
    *(Wanted("tiny-qwen", pixels, ALONE) for pixels in (192, 320, 512)),
    *(Wanted("tiny-qwen", pixels, degree) for pixels in (192, 320) for degree in (ULYSSES, RING, TENSOR)),
    Wanted("tiny-qwen", 320, ALONE, guided=True),
    Wanted("tiny-qwen", 320, CFG, guided=True),
    *(Wanted("FluxPipeline", 768, degree) for degree in (ALONE, ULYSSES, RING, TENSOR)),
    Wanted("FluxPipeline", 1024, ALONE),
    Wanted("tiny", 320, ALONE, guided=True),
    Wanted("tiny", 448, ULYSSES),
    Wanted("tiny", 320, TENSOR),
    Wanted("tiny", 320, CFG, guided=True),
]


@dataclass(frozen=True)
class Row:
    """One run that judges: measured seconds a step, and the estimate with its ends."""

    name: str
    measured: float
    value: float
    low: float
    high: float

    @property
    def error(self) -> float:
        """Relative error of the estimate."""
        return self.value / self.measured - 1

    @property
    def is_inside(self) -> bool:
        """Whether what was measured lies in the range of the estimate."""
        return self.low <= self.measured <= self.high


def judged(runs: Sequence[Run], gpu: Gpu) -> list[Row]:
    """Every run with its estimate."""
    rows = []
    for run in runs:
        q = run.quantities
        ends = (step_seconds(q, gpu, gpu.efficiencies(bound)) for bound in ("best", "worst"))
        low, high = sorted(ends)
        rows.append(Row(run.name, run.step_seconds, step_seconds(q, gpu), low, high))
    return rows


def summary(rows: Sequence[Row]) -> dict[str, float]:
    """Errors, how many rows lie in their range and how wide it is, and the correlation of ranks."""
    return {
        "rows": len(rows),
        "median_error": median(abs(row.error) for row in rows),
        "largest_error": max(abs(row.error) for row in rows),
        "inside": sum(row.is_inside for row in rows) / len(rows),
        "median_width": median(max(row.high / row.value - 1, 1 - row.low / row.value) for row in rows),
        "rank_correlation": correlation(ranks([row.measured for row in rows]), ranks([row.value for row in rows])),
    }


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown, in milliseconds a step."""
    lines = ["| run | measured | estimated | from | to | error |", "|---|---:|---:|---:|---:|---:|"]
    for row in rows:
        cells = (f"{1000 * value:.0f} ms" for value in (row.measured, row.value, row.low, row.high))
        lines.append(f"| {row.name} | {' | '.join(cells)} | {row.error:+.0%}{'' if row.is_inside else ', outside'} |")
    return "\n".join(lines) + "\n"


def main(learned: Sequence[Wanted] = LEARNED, others: Sequence[Wanted] = JUDGED, seconds: float = 30) -> None:
    """Measure, fit, judge and print.

    Raises:
        subprocess.CalledProcessError: a command failed; what it said is on stderr.
    """
    with tempfile.TemporaryDirectory(prefix="omni-judge-") as place:
        folder = Path(place)
        machine = folder / "machine.yaml"
        omni("calibrate", "machine", "--ranks", "2", "--seconds", str(seconds), "--out", str(machine))
        gpu = machine_of(machine)
        known = list(_launched(learned, folder / "learned", folder))
        fitted = fit(known, gpu)
        for moved in fitted.moved:
            changed = ", ".join(f"{name} {old:.3g} to {new:.3g}" for name, (old, new) in moved.efficiencies.items())
            print(f"{moved.run.name}: measured {moved.run.step_seconds:.3f}, estimated {moved.before:.3f}; {changed}")
        runs = list(_launched(others, folder / "judged", folder))
        for words, one in (("calibrated", gpu), ("calibrated, and fitted to the runs above", fitted.gpu)):
            rows = judged(runs, one)
            print(f"\n{words}\n\n{table(rows)}")
            print({name: round(value, 3) for name, value in summary(rows).items()}, flush=True)


def _launched(wanted: Sequence[Wanted], folder: Path, models: Path) -> Iterator[Run]:
    """The runs, each by a command of its own, as a user would start them."""
    for number, one in enumerate(wanted):
        model = one.model if one.model.startswith("tiny") else str(_folder(one.model, models))
        config = {
            "version": 1,
            "model": model,
            "parallel": one.parallel,
            "execution": {"dtype": "float32"},
            "sampling": {
                "prompt": "a red star on a white background",
                "width": one.pixels,
                "height": one.pixels,
                "num_inference_steps": STEPS,
                **({"negative_prompt": "blue"} if one.guided else {"cfg_scale": 0.0}),
            },
            "output": str(folder / str(number)),
        }
        (run,) = runs_in(launch(config, models / "config.yaml")).runs
        degree = ", ".join(f"{name.partition('_')[0]} {size}" for name, size in one.parallel.items())
        name = f"{one.model}, {one.pixels} px{', guided' * one.guided}, {degree or 'one rank'}"
        yield Run(name, run.quantities, run.step_seconds)


def _folder(pipeline: str, models: Path) -> Path:
    """A small pipeline of random weights, of a class that no embedded model has."""
    from runtime.proof.random_pipelines import build

    folder = models / pipeline
    return folder if folder.exists() else build(pipeline, folder)


if __name__ == "__main__":
    main()
