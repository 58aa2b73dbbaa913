"""Plans under a load of requests: replicas, batch and parallelism weighed together, by the queue in front of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from math import ceil, inf

from omni_config.estimate.data import Gpu
from omni_config.estimate.estimate import memory, seconds
from omni_config.planner.candidates import Candidate, pareto
from omni_config.planner.queueing import BUSIEST, capacity, fewest_replicas, highest_rate, percentile_99
from omni_config.resolving.target import Target
from omni_config.schema.settings import Settings

BATCHES = (1, 2, 4, 8, 16, 32, 64)
_WORTH = 0.97  # of the seconds an image of half the batch: a batch that saves less only makes requests wait
_SECONDS = {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked of the GPUs: requests a second that arrive, seconds within which 99 % of them are answered, and the
    price of a GPU hour; each may be left open.
    """

    rate: float | None = None
    within: float | None = None
    price: float | None = None

    def cost(self, plan: Candidate) -> float | None:
        """The price of an image, at the rate that the plan carries; None without a price."""
        return None if self.price is None else self.price / 3600 * plan.gpus * plan.replicas / plan.throughput


NOTHING_ASKED = Load()


def seconds_in(text: str) -> float:
    """A duration such as ``10s``, ``500ms`` or ``2min``, in seconds.

    Raises:
        ValueError: it is none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|min|h)", text)
    if match is None or not float(match[1]):
        raise ValueError(f"{text}: expected a duration, such as 10s, 500ms or 2min")
    return float(match[1]) * _SECONDS[match[2]]


def rate_in(text: str) -> float:
    """A rate such as ``2/s`` or ``30/min``, a second.

    Raises:
        ValueError: it is none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*/\s*(s|min|h)", text)
    if match is None or not float(match[1]):
        raise ValueError(f"{text}: expected a rate, such as 2/s or 30/min")
    return float(match[1]) / _SECONDS[match[2]]


def under_load(
    fitting: list[Candidate], load: Load, settings: Settings, target: Target, gpu: Gpu, limit: float, most: int
) -> list[Candidate]:
    """The plans that best carry a load, each with its batch, replicas, rate and seconds of 99 % of requests.

    With a rate and a bound, the best needs the fewest GPUs; with one of them, it answers the soonest, or carries the
    most; with neither, it makes the most images. With a price, the best costs the least an image. ``limit`` is the
    memory of a GPU in GiB. Of plans that take as many GPUs and the same batch, only the fastest is among them.
    """
    options: dict[tuple[int, int], _Option] = {}
    within = inf if load.within is None else load.within
    for plan in sorted(_fronts(fitting), key=lambda one: (one.seconds, one.gib)):
        if plan.seconds > within:
            break
        for option in _batches(plan, settings, target, gpu, limit):
            known = options.get((plan.gpus, option.batch))
            if known is None or option.seconds[-1] < known.seconds[-1]:
                options[plan.gpus, option.batch] = option
    return _best(options.values(), load, most)


@dataclass(frozen=True, slots=True)
class _Option:
    """A plan with a batch: seconds of a call for one request, for two, and so on up to the batch."""

    plan: Candidate
    seconds: tuple[float, ...]
    gib: float

    @property
    def batch(self) -> int:
        return len(self.seconds)

    def carried(self, replicas: int, rate: float, load: Load) -> Candidate:
        """The plan, as so many replicas carry so many requests a second."""
        asked = load.rate is not None or load.within is not None
        p99 = percentile_99(rate, replicas, self.seconds) if asked else None
        return replace(
            self.plan,
            batch=self.batch,
            replicas=replicas,
            seconds=self.seconds[-1],
            gib=self.gib,
            rate=rate,
            p99=p99,
            calls=self.seconds,
        )


def _fronts(fitting: list[Candidate]) -> Iterator[Candidate]:
    """Of each number of GPUs the plans that no other beats in both seconds and memory, which a batch needs."""
    by_size: dict[int, list[Candidate]] = {}
    for plan in fitting:
        by_size.setdefault(plan.gpus, []).append(plan)
    for plans in by_size.values():
        yield from pareto(plans)


def _batches(plan: Candidate, settings: Settings, target: Target, gpu: Gpu, limit: float) -> Iterator[_Option]:
    """The plan with each batch that the engine makes, and that fits."""
    changed, _ = target.by(()).applied(settings | plan.changes | {"gpus": plan.gpus})
    most = _most(changed, target)
    taken: list[float] = []
    for size in BATCHES:
        if size > most:
            break
        if size == 1:
            taken, gib = [plan.seconds], plan.gib
        else:
            q = target.quantities(changed | {"num_images_per_prompt": changed["num_images_per_prompt"] * size})
            gib, whole, before = memory(q).peak, sum(seconds(q, gpu).values()), len(taken)
            taken += [taken[-1] + (whole - taken[-1]) * step / before for step in range(1, before + 1)]
        if round(gib, 1) > limit or (size > 1 and taken[-1] / size > _WORTH * taken[size // 2 - 1] / (size // 2)):
            break
        yield _Option(plan, tuple(taken), gib)


def _most(settings: Settings, target: Target) -> int:
    """Requests that the engine's server makes in one call of this plan, as its rules lower it."""
    if target.engine.id != "native":
        return 1
    lowering = [rule for rule in target.rules if rule.adjusts and ("max_batch_size", "fields") in rule.names()]
    asked = settings | {"server": True, "max_batch_size": BATCHES[-1]}
    return int(target.by(lowering).applied(asked)[0]["max_batch_size"])


def _best(options: Iterable[_Option], load: Load, most: int) -> list[Candidate]:
    """The best of the options. Following a queue takes a while, so it is done for those only that may be among them."""
    places = [(place, option) for option in options if (place := _at_best(option, load)) is not None]
    found: list[tuple[tuple[float, ...], int, Candidate]] = []
    for number, (at_best, option) in enumerate(sorted(places, key=lambda item: item[0])):
        worst = found[most - 1][0][0] if len(found) >= most else inf
        if at_best > worst:
            break
        if worst < inf and not _reaches(option, load, worst):
            continue
        plan = _carried(option, load)
        if plan is not None:
            p99 = plan.p99 or 0.0
            place = _place(option, load, plan.replicas, plan.rate or 0.0, p99)
            found = sorted([*found, ((place, p99, plan.gib), number, plan)])
    return [plan for _, _, plan in found[:most]]


def _reaches(option: _Option, load: Load, place: float) -> bool:
    """Whether an option may keep its bound at a place: one look at its queue, where finding its own takes ten."""
    if load.within is None:
        return True
    if load.rate is not None:
        replicas = min(int(place * load.rate / option.plan.gpus), option.plan.replicas)
        return replicas > 0 and percentile_99(load.rate, replicas, option.seconds) <= load.within
    rate = -place if load.price is None else option.plan.gpus * option.plan.replicas / place
    return percentile_99(rate, option.plan.replicas, option.seconds) <= load.within


def _place(option: _Option, load: Load, replicas: int, rate: float, p99: float) -> float:
    """What options are ordered by; the least is the best."""
    if load.price is not None or (load.rate is not None and load.within is not None):
        return option.plan.gpus * replicas / rate
    return -rate if load.rate is None else p99


def _at_best(option: _Option, load: Load) -> float | None:
    """The first place that an option could take, whatever its queue does; None where its replicas cannot follow."""
    most = capacity(option.plan.replicas, option.seconds)
    if load.rate is None:
        return _place(option, load, option.plan.replicas, most, option.seconds[0])
    replicas = _least(option, load.rate)
    return None if load.rate > BUSIEST * most else _place(option, load, replicas, load.rate, option.seconds[0])


def _carried(option: _Option, load: Load) -> Candidate | None:
    """What becomes of an option: the replicas and the rate that suit the load; None where it keeps no bound."""
    replicas, rate = option.plan.replicas, load.rate
    if rate is None:
        most = capacity(replicas, option.seconds)
        rate = most if load.within is None else highest_rate(replicas, option.seconds, load.within)
    elif load.within is not None:
        replicas = fewest_replicas(rate, _least(option, rate), replicas, option.seconds, load.within) or 0
    elif load.price is not None:
        replicas = _least(option, rate)
    return option.carried(replicas, rate, load) if replicas and rate else None


def _least(option: _Option, rate: float) -> int:
    """Replicas that follow a rate at all."""
    return ceil(rate / (BUSIEST * capacity(1, option.seconds)))
