"""Every valid plan on some GPUs, with its estimate: what ``omni suggest`` chooses from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

from omni_config.estimate.data import Gpu
from omni_config.estimate.estimate import memory, seconds
from omni_config.mesh import AXES, DEGREES
from omni_config.resolving.search import open_rules, valid
from omni_config.resolving.target import Target
from omni_config.rules.quantities import Quantities
from omni_config.schema.settings import Settings

#: What is tried beside the degrees; of each group one, and the first means nothing of it.
WEIGHTS: tuple[Settings, ...] = (
    {},
    {"enable_cpu_offload": True},
    {"enable_layerwise_offload": True},
    {"use_hsdp": True},
)
CACHES: tuple[Settings, ...] = ({}, {"cache_dit": True}, {"tea_cache": True})
VAE = ("vae_use_tiling", "vae_patch_parallel_size")
CHANGED = {"gpus", *DEGREES, *VAE, *(name for group in (*WEIGHTS, *CACHES) for name in group)}
SMALL = 16  # up to here every number of GPUs is tried for a plan, beyond only the divisors of what there is


@dataclass(frozen=True)
class Candidate:
    """A valid plan: the settings that make it, and its estimate. ``replicas`` of it fill the GPUs.

    ``seconds`` are those of a call, which makes ``images`` of each of ``batch`` requests. Under a load (serving.py),
    ``rate`` requests a second are carried, and 99 % of them are answered within ``p99`` seconds.
    """

    changes: Settings
    gpus: int
    replicas: int
    gib: float
    seconds: float
    images: int
    batch: int = 1
    rate: float | None = None
    p99: float | None = None
    calls: tuple[float, ...] = ()
    """Under a load: seconds of a call for one request, for two, and so on up to the batch."""

    @property
    def throughput(self) -> float:
        """Images a second of all replicas together: as many as are asked for, else as many as they can make."""
        return self.images * (self.replicas * self.batch / self.seconds if self.rate is None else self.rate)

    @property
    def title(self) -> str:
        """The plan in words: "cfg 2 x ulysses 4, vae tiling"."""
        degrees = [f"{axis.short} {self.changes[axis.setting]}" for axis in AXES if self.changes[axis.setting] > 1]
        on = [_WORDS[name] for name, value in self.changes.items() if value is True]
        if self.changes.get("vae_patch_parallel_size", 1) > 1:
            on.append(f"vae patch parallel {self.changes['vae_patch_parallel_size']}")
        return ", ".join([" x ".join(degrees) or "one GPU", *on])


_WORDS = {
    "enable_cpu_offload": "model offload",
    "enable_layerwise_offload": "layerwise offload",
    "use_hsdp": "hsdp",
    "vae_use_tiling": "vae tiling",
    "cache_dit": "cache-dit",
    "tea_cache": "teacache",
}


def candidates(
    settings: Settings, target: Target, gpu: Gpu, gpus: int, *, lossless: bool = False
) -> Iterator[Candidate]:
    """Every valid plan on at most ``gpus`` GPUs; ``lossless`` leaves out what changes the image (step caches)."""
    # What does not fit is to be seen, not to be refused.
    free, _ = target.by(()).applied(settings | {"memory": None, "gpu": None, "machine": None})
    target = target.by(open_rules(free, target, CHANGED))
    work = target.quantities(free)["work"]  # the same whatever a plan changes
    for size in sizes(gpus):
        for shape in valid(free, target, size):
            for changes in _switched(shape, target, size, lossless):
                q = target.quantities(shape | changes)
                q["work"] = work
                yield _estimated(q, changes, gpu, size, gpus // size)


def sizes(gpus: int) -> list[int]:
    """Numbers of GPUs that a plan may use."""
    return [size for size in range(1, gpus + 1) if size <= SMALL or gpus % size == 0]


def _switched(shape: Settings, target: Target, size: int, lossless: bool) -> Iterator[dict[str, Any]]:
    """Changes on top of a shape that are valid: groups that are refused alone are not combined."""
    vae: list[Settings] = [{}, {"vae_use_tiling": True}]
    if size > 1:
        vae.append({"vae_use_tiling": True, "vae_patch_parallel_size": size})
    groups: list[list[Settings]] = []
    for group in (vae, WEIGHTS, CACHES[:1] if lossless else CACHES):
        groups.append([{}])
        for changes in group:
            if changes and not target.broken(shape | changes):
                groups[-1].append(changes)
    for chosen in product(*groups):
        merged: Settings = {}
        for changes in chosen:
            merged |= changes
        if sum(map(bool, chosen)) < 2 or not target.broken(shape | merged):
            yield {axis: shape[axis] for axis in DEGREES} | merged


def _estimated(q: Quantities, changes: Settings, gpu: Gpu, size: int, replicas: int) -> Candidate:
    taken = sum(seconds(q, gpu).values())
    return Candidate(changes, size, replicas, memory(q).peak, taken, int(q["images"]))


def pareto(found: list[Candidate]) -> list[Candidate]:
    """The plans that no other beats in both seconds and memory, from the fastest to the smallest."""
    front: list[Candidate] = []
    for candidate in sorted(found, key=lambda one: (one.seconds, one.gib, one.gpus)):
        if not front or candidate.gib < front[-1].gib - 0.05:
            front.append(candidate)
    return front
