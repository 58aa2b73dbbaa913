"""Fits the efficiencies of a GPU or machine to recorded runs: a Bayesian least squares in logarithms.

What the datasheet and efficiencies.yaml say is the prior: a run moves an efficiency the more, the more of its seconds
depend on it and the less certain it was. Bishop (2006), Pattern Recognition and Machine Learning, 3.3, at each step of
Gauss and Newton.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp, log, sqrt
from statistics import median

from omni_config.estimate.data import Gpu
from omni_config.estimate.latency import decode_flops, pass_of
from omni_config.estimate.work import forwards_a_step
from omni_config.planner.runs import Run
from omni_config.rules.quantities import Quantities

NOISE = 0.05  # of a run's seconds, by which the same run differs the next time
_REACH = 1.28  # standard deviations of worst and best: of ten values, eight lie between them
_NEGLIGIBLE = 0.003  # of a run's seconds, at twice an efficiency
_ROUNDS = 8
_TINY = 1e-9
_NINE_OF_TEN = 1.64  # standard deviations
#: Shares of what is hidden or skipped, and memory: no rates.
_SHARES = {
    "ring_overlap",
    "weights_overlap",
    "cache_dit_hits",
    "tea_cache_computed",
    "context",
    "communicator",
    "fragments",
}


@dataclass(frozen=True)
class Moved:
    """What a run changed: efficiencies by id, before it and after it."""

    run: Run
    before: float
    """Estimated seconds a step, of what was known before this run."""
    after: float
    efficiencies: Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Fitted:
    """A GPU whose efficiencies are those of its runs, and what each run changed."""

    gpu: Gpu
    moved: tuple[Moved, ...]


def step_seconds(q: Quantities, gpu: Gpu, share: Mapping[str, float] | None = None) -> float:
    """Estimated seconds of one denoising step without a cache."""
    measured = gpu.measured.step if gpu.measured else 0.0
    return forwards_a_step(q) * sum(pass_of(q, q["work"], gpu, share or gpu.efficiencies()).values()) + measured


def decode_seconds(q: Quantities, gpu: Gpu, share: Mapping[str, float]) -> float:
    """Estimated seconds of decoding; 0 where the decoder is unknown."""
    if q["decoder"] is None:
        return 0.0
    return decode_flops(q, q["decoder"]) / float(gpu.tflops * 1e12 * (2 / q["bytes_per_value"]) * share["decode"])


def fit(runs: Sequence[Run], gpu: Gpu) -> Fitted:
    """The GPU as its runs have shown it, and what each run changed of what was known before it."""
    moved: list[Moved] = []
    known, start = gpu, dict[str, float]()
    for count, run in enumerate(runs, start=1):
        posterior = _Posterior(runs[:count], gpu, start)
        start = posterior.moves
        learned = replace(gpu, learned={**gpu.learned, **posterior.ranges()})
        before, after = known.efficiencies(), learned.efficiencies()
        changed = {name: (before[name], after[name]) for name in start if abs(log(after[name] / before[name])) > 0.02}
        q = run.quantities
        moved.append(Moved(run, step_seconds(q, known), step_seconds(q, learned), changed))
        known = learned
    return Fitted(known, tuple(moved))


class _Posterior:
    """Efficiencies after some runs: ``moves`` are the logarithms of what they are over what they were, by id."""

    def __init__(self, runs: Sequence[Run], gpu: Gpu, start: Mapping[str, float]) -> None:
        self.prior = gpu.efficiencies()
        self.worst, self.best = gpu.efficiencies("worst"), gpu.efficiencies("best")
        self.rows = [row for run in runs for row in _rows(run, gpu)]
        names = [name for name, value in self.prior.items() if value > 0 and name not in _SHARES and self._spread(name)]
        self.names = [name for name in names if any(self._felt(row, name) for row in self.rows)]
        self.moves = {name: start.get(name, 0.0) for name in self.names}
        for _ in range(_ROUNDS):
            step = self._step()
            self.moves = {name: self.moves[name] + max(-1.0, min(1.0, step[name])) for name in self.names}
            if all(abs(value) < 1e-3 for value in step.values()):
                break

    def ranges(self) -> dict[str, tuple[float, float, float]]:
        """Efficiencies by id, at worst, best guess and at best.

        Beside what is left uncertain of each, all of them move as far as the runs lie off: so nine runs of ten lie in
        the range of their seconds, where all are at one end.
        """
        if not self.names:
            return {}
        slopes, residuals = self._slopes(), self._residuals()
        covariance = _inverted(self._hessian(slopes))
        deviation = [sqrt(covariance[place][place]) for place in range(len(self.names))]
        shares = [_together(slope, covariance, deviation) for slope in slopes]
        result = {}
        for place, name in enumerate(self.names):
            weights = [abs(slope[place]) + _TINY for slope in slopes]  # calls may be hidden where it ended
            off = sqrt(sum(w * left**2 for w, left in zip(weights, residuals, strict=True)) / sum(weights))
            width = _NINE_OF_TEN * (max(off, NOISE) + median(shares) * deviation[place])
            value = self.prior[name] * exp(self.moves[name])
            reach = exp(width if self.best[name] > self.worst[name] else -width)
            result[name] = (value / reach, value, value * reach)
        return result

    def _spread(self, name: str) -> float:
        """The standard deviation of an efficiency's logarithm before any run; 0 where it is certain."""
        worst, best = self.worst[name], self.best[name]
        return abs(log(best / worst)) / (2 * _REACH) if worst > 0 and best > 0 else 0.0

    def _share(self, moves: Mapping[str, float]) -> dict[str, float]:
        return {**self.prior, **{name: self.prior[name] * exp(value) for name, value in moves.items()}}

    def _felt(self, row: _Row, name: str) -> bool:
        """Whether a run says anything of an efficiency."""
        return abs(log(row.seconds(self._share({name: log(2)})) / row.seconds(self.prior))) > _NEGLIGIBLE

    def _residuals(self) -> list[float]:
        share = self._share(self.moves)
        return [log(row.measured / row.seconds(share)) for row in self.rows]

    def _slopes(self) -> list[list[float]]:
        """By row, how its seconds follow each efficiency, in logarithms."""
        here = self._share(self.moves)
        others = [self._share(self.moves | {name: self.moves[name] + 0.01}) for name in self.names]
        return [[log(row.seconds(other) / row.seconds(here)) / 0.01 for other in others] for row in self.rows]

    def _hessian(self, slopes: list[list[float]]) -> list[list[float]]:
        size = range(len(self.names))
        result = [[sum(row[i] * row[j] for row in slopes) / NOISE**2 for j in size] for i in size]
        for place, name in enumerate(self.names):
            result[place][place] += 1 / self._spread(name) ** 2
        return result

    def _step(self) -> dict[str, float]:
        """One step of Gauss and Newton."""
        slopes, residuals = self._slopes(), self._residuals()
        inverse = _inverted(self._hessian(slopes))
        pull = [
            sum(row[place] * left for row, left in zip(slopes, residuals, strict=True)) / NOISE**2
            - self.moves[name] / self._spread(name) ** 2
            for place, name in enumerate(self.names)
        ]
        return {
            name: sum(a * b for a, b in zip(inverse[place], pull, strict=True)) for place, name in enumerate(self.names)
        }


@dataclass(frozen=True)
class _Row:
    """Measured seconds, and what is estimated in their place with some efficiencies."""

    measured: float
    seconds: Callable[[Mapping[str, float]], float]


def _rows(run: Run, gpu: Gpu) -> list[_Row]:
    q = run.quantities
    rows = [_Row(run.step_seconds, lambda share: step_seconds(q, gpu, share))]
    if run.decode_seconds and q["decoder"] is not None:
        rows.append(_Row(run.decode_seconds, lambda share: decode_seconds(q, gpu, share)))
    return rows


def _together(slope: Sequence[float], covariance: Sequence[Sequence[float]], deviation: Sequence[float]) -> float:
    """How far a run's seconds are uncertain, over how far they would be with all efficiencies at one end at once."""
    spread = sum(a * b * covariance[i][j] for i, a in enumerate(slope) for j, b in enumerate(slope))
    together = sum(abs(a) * one for a, one in zip(slope, deviation, strict=True))
    return sqrt(max(spread, 0.0)) / (together + _TINY)


def _inverted(matrix: list[list[float]]) -> list[list[float]]:
    """The inverse of a small positive definite matrix, by Gauss and Jordan."""
    size = len(matrix)
    rows = [[*row, *(float(place == other) for other in range(size))] for place, row in enumerate(matrix)]
    for place in range(size):
        pivot = rows[place][place]
        rows[place] = [value / pivot for value in rows[place]]
        for other in range(size):
            if other != place:
                factor = rows[other][place]
                rows[other] = [a - factor * b for a, b in zip(rows[other], rows[place], strict=True)]
    return [row[size:] for row in rows]
