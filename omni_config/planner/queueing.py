"""How long requests wait in front of replicas that each make a batch at a time.

Arrivals are Poisson, and a call takes as long as its batch says. Calls of one request make it M/D/c, whose waiting time
is known: Franx (2001), "A simple solution for the M/D/c waiting time distribution", with the length of the queue as the
maximum of a random walk (Spitzer, 1956). Of batches there is no such formula, so the queue is followed, request by
request, always with the same arrivals: what is compared is compared under the same luck.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Sequence
from functools import cache, lru_cache
from itertools import accumulate
from math import exp, inf, lgamma, log, sqrt

REQUESTS = 12_000
_FIRST = REQUESTS // 10  # requests of a queue that fills; they are not counted
BUSIEST = 0.98  # of what replicas can do at most; beyond, a queue is as long as its day
_NEGLIGIBLE = 1e-7


def percentile_99(rate: float, replicas: int, seconds: Sequence[float]) -> float:
    """Seconds from a request to its answer that 99 % keep, where ``rate`` requests a second arrive.

    ``seconds[n - 1]`` are those of a call for ``n`` requests; a free replica takes what waits, at most as many as there
    are numbers. Infinite where the replicas cannot follow.
    """
    if rate > BUSIEST * capacity(replicas, seconds):
        return inf
    if len(seconds) == 1:
        return seconds[0] + _wait_99(rate, replicas, seconds[0])
    taken = _together([at / rate for at in _arrivals()], replicas, seconds)
    return sorted(taken[_FIRST:])[(REQUESTS - _FIRST) * 99 // 100]


def capacity(replicas: int, seconds: Sequence[float]) -> float:
    """Requests a second that replicas answer at most, each with the batch that suits it best."""
    return replicas * max(size / taken for size, taken in enumerate(seconds, start=1))


def highest_rate(replicas: int, seconds: Sequence[float], within: float) -> float:
    """The most requests a second of which 99 % are answered within so many seconds, to a hundredth; 0 where none is."""
    low, high = 0.0, BUSIEST * capacity(replicas, seconds)
    if seconds[0] > within:
        return 0.0
    if percentile_99(high, replicas, seconds) <= within:
        return high
    for _ in range(7):
        middle = (low + high) / 2
        low, high = (middle, high) if percentile_99(middle, replicas, seconds) <= within else (low, middle)
    return low


def fewest_replicas(rate: float, least: int, most: int, seconds: Sequence[float], within: float) -> int | None:
    """The fewest replicas, from ``least`` to ``most``, that answer 99 % of the requests in time; None where none do."""

    def enough(replicas: int) -> bool:
        return percentile_99(rate, replicas, seconds) <= within

    low, high, step = least - 1, least, 1  # too few, and perhaps enough: most often it is the first that follow
    while not enough(high):
        if high == most:
            return None
        low, high, step = high, min(high + step, most), 2 * step
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _wait_99(rate: float, servers: int, seconds: float) -> float:
    """Seconds that a request waits in M/D/c at most, but for one in a hundred."""
    low, high = 0.0, seconds / servers
    if _longer(0.0, rate, servers, seconds) <= 0.01:
        return 0.0
    while _longer(high, rate, servers, seconds) > 0.01:
        low, high = high, 2 * high
    while high - low > 1e-3 * (high + seconds):
        middle = (low + high) / 2
        low, high = (middle, high) if _longer(middle, rate, servers, seconds) > 0.01 else (low, middle)
    return high


def _longer(wait: float, rate: float, servers: int, seconds: float) -> float:
    """The share of requests that wait longer in M/D/c (Franx)."""
    queued = _queued(rate * seconds, servers)
    periods = int(wait / seconds) + 1
    mean, last = rate * (periods * seconds - wait), periods * servers - 1
    first = max(0, last - len(queued) + 1, int(mean - 10 * sqrt(mean) - 10))
    chance, longer, count = _poisson(first, mean), 0.0, first
    while count <= last or chance > _NEGLIGIBLE:
        longer += chance * (1 - queued[last - count] if count <= last else 1.0)
        count += 1
        chance *= mean / count
    return longer


@lru_cache(maxsize=64)
def _queued(mean: float, servers: int) -> list[float]:
    """The chance that at most 0, 1, 2, ... requests wait, up to where it is 1; ``mean`` arrive while a call lasts.

    From one call's end to the next, the queue grows by a Poisson number and shrinks by ``servers``, and is never below
    0: in the long run it is as long as the highest point of that walk.
    """
    times = [0.0, 1.0]  # of the walk; later ones are so much alike that some stand for those between them
    while times[-1] * (servers - mean) ** 2 / servers < 40:
        times.append(max(times[-1] + 1, round(times[-1] * 1.03)))
    ups: list[float] = []  # how often the walk is at each height above 0, each time over when that is (Spitzer)
    for before, time, after in zip(times, times[1:], times[2:], strict=False):
        height, chance = 1, _poisson(int(time) * servers + 1, time * mean) * (after - before) / 2 / time
        while chance > _NEGLIGIBLE / 100:
            if height > len(ups):
                ups.append(0.0)
            ups[height - 1] += chance
            height += 1
            chance *= time * mean / (time * servers + height)
    lengths = [exp(-sum(ups))]
    weighted = [height * up for height, up in enumerate(ups, start=1)]
    result = lengths[:]
    while 1 - result[-1] > 10 * _NEGLIGIBLE and len(result) < 10_000:
        known = reversed(lengths[-len(weighted) :])
        lengths.append(sum(up * length for up, length in zip(weighted, known, strict=False)) / len(lengths))
        result.append(result[-1] + lengths[-1])
    return result


def _poisson(count: int, mean: float) -> float:
    return exp(count * log(mean) - mean - lgamma(count + 1)) if mean > 0 else float(count == 0)


@cache
def _arrivals() -> list[float]:
    """When requests arrive, at one a second in the mean."""
    chance = random.Random(0)
    return list(accumulate(chance.expovariate(1.0) for _ in range(REQUESTS)))


def _together(arrivals: list[float], replicas: int, seconds: Sequence[float]) -> list[float]:
    """Seconds of each request, where a replica that is free takes all that wait, up to its batch."""
    free = [0.0] * min(replicas, len(arrivals))
    taken: list[float] = []
    first = 0
    while first < len(arrivals):
        start = max(free[0], arrivals[first])
        last = first + 1
        while last < len(arrivals) and last - first < len(seconds) and arrivals[last] <= start:
            last += 1
        done = start + seconds[last - first - 1]
        taken += [done - at for at in arrivals[first:last]]
        heapq.heapreplace(free, done)
        first = last
    return taken
