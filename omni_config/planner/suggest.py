"""The best plans for a model on some GPUs, or what keeps every plan from fitting and the smallest change that helps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import ceil
from typing import Any, Literal

from omni_config.catalog.load import catalog
from omni_config.estimate.data import Gpu, gpus
from omni_config.estimate.estimate import Estimate, estimate
from omni_config.estimate.work import unknown
from omni_config.mesh import DEGREES, RANKS
from omni_config.planner.candidates import Candidate, candidates, pareto
from omni_config.planner.serving import NOTHING_ASKED, Load, under_load
from omni_config.resolving.target import Target
from omni_config.rules.quantities import DIMS, Quantities
from omni_config.schema.settings import DEFAULTS, FIELDS, PARAMETERS, SWITCHES, Settings

Objective = Literal["latency", "memory", "throughput"]
ORDER: dict[str, Callable[[Candidate], tuple[float, ...]]] = {
    "latency": lambda plan: (round(plan.seconds, 3), round(plan.gib, 1), plan.gpus),
    "memory": lambda plan: (round(plan.gib, 1), round(plan.seconds, 3), plan.gpus),
}
MORE_GPUS = 64  # how far to look for a number of GPUs on which a plan fits


class CannotEstimateError(ValueError):
    """The card of the model does not state what an estimate needs, or the size of the image is not known."""


@dataclass(frozen=True)
class Suggested:
    """One suggestion: what to write in a config, its estimate, and why it is here.

    ``gpus`` are the GPUs by rank, where those that are close have no neighbouring numbers; else empty.
    """

    candidate: Candidate
    settings: Settings
    estimate: Estimate
    steps: int
    gpus: tuple[int, ...] = ()

    @property
    def step(self) -> dict[str, float]:
        """Seconds of one denoising step by term, most first."""
        once = ("text encoder", "VAE decode")
        terms = {name: value for name, value in self.estimate.terms.items() if name not in once}
        steps = self.steps
        return {name: value / steps for name, value in sorted(terms.items(), key=lambda term: -term[1])}

    @property
    def reasons(self) -> list[str]:
        """Which terms take the time, most first, and what the memory goes to."""
        total = sum(self.estimate.terms.values())
        terms = sorted(self.estimate.terms.items(), key=lambda term: -term[1])
        time = ", ".join(f"{name} {value / total:.0%}" for name, value in terms if value >= 0.05 * total)
        parts = sorted((self.estimate.memory.resident | self.estimate.memory.phases).items(), key=lambda part: -part[1])
        return [f"time: {time}", "memory: " + ", ".join(f"{name} {gib:.1f} GiB" for name, gib in parts if gib >= 0.5)]


@dataclass(frozen=True)
class Suggestion:
    """The best plans, the Pareto front of latency and memory, and how many plans there were.

    Without a plan, ``problem`` says which limit is in the way and ``remedies`` the smallest changes that lift it.
    """

    best: tuple[Suggested, ...]
    front: tuple[Candidate, ...]
    valid: int
    fitting: int
    memory: float
    problem: str = ""
    remedies: tuple[str, ...] = ()


def suggest(
    settings: Settings,
    target: Target,
    gpu: Gpu,
    gpu_count: int,
    *,
    objective: Objective = "latency",
    lossless: bool = False,
    load: Load = NOTHING_ASKED,
    most: int = 5,
) -> Suggestion:
    """The best plans on at most ``gpu_count`` GPUs; for throughput, by the ``load`` that they are to carry.

    Raises:
        CannotEstimateError: nothing can be estimated for this model.
    """
    base = settings | {name: DEFAULTS[name] for name in RANKS} | {"gpus": None}
    q = _quantities(base, target)
    missing = unknown(q) + (["transformer_parameters"] if q["transformer_parameters"] is None else [])
    if missing:
        words = ", ".join(DIMS.get(name, name.replace("_", " ")) for name in missing)
        raise CannotEstimateError(f"the card of {target.card.id} does not state: {words}")
    limit = float(settings["memory"] or gpu.memory)
    found = list(candidates(base, target, gpu, gpu_count, lossless=lossless))
    fitting = [plan for plan in found if round(plan.gib, 1) <= limit]
    plans: list[Suggested] = []
    if objective == "throughput":
        carrying = under_load(fitting, load, base, target, gpu, limit, most)
        plans += [_suggested(base, candidate, target, gpu) for candidate in carrying]
    else:
        for candidate in sorted(fitting, key=ORDER[objective]):
            if len(plans) == most:
                break
            if not any(_same_but_for_more(candidate, plan.candidate) for plan in plans):
                plans.append(_suggested(base, candidate, target, gpu))
    result = Suggestion(tuple(plans), tuple(pareto(fitting)), len(found), len(fitting), limit)
    if plans:
        return result
    if fitting:
        return replace(result, **_overloaded(fitting, load, base, target, gpu, limit))
    if not found:
        broken = target.broken(base | {"gpus": 1})
        reasons = "; ".join(f"{finding.code} {finding.message}" for finding in broken)
        return replace(result, problem=f"no plan is valid: {reasons}", remedies=("run omni check on the config",))
    least = min(found, key=ORDER["memory"])
    memory = _suggested(base, least, target, gpu).estimate.memory
    parts = ", ".join(f"{name} {gib:.1f}" for name, gib in sorted(memory.resident.items(), key=lambda part: -part[1]))
    problem = (
        f"none of {len(found)} valid plans fits into {limit:g} GiB; the smallest ({least.title}) "
        f"takes {least.gib:.1f}: {parts}, and {memory.largest_phase} {max(memory.phases.values(), default=0):.1f}"
    )
    return replace(result, problem=problem, remedies=tuple(_remedies(base, target, gpu, gpu_count, limit, least)))


def _overloaded(
    fitting: list[Candidate], load: Load, base: Settings, target: Target, gpu: Gpu, limit: float
) -> dict[str, Any]:
    """What keeps every plan from carrying a load, and what would help."""
    assert load.rate is not None or load.within is not None  # else every plan carries it
    remedies = []
    if load.within is not None and load.rate is not None:
        most = under_load(fitting, Load(within=load.within), base, target, gpu, limit, 1)
        soonest = under_load(fitting, Load(rate=load.rate), base, target, gpu, limit, 1)
        remedies += [f"a rate of at most {plan.rate:.3g}/s ({plan.replicas} of {plan.title})" for plan in most]
        remedies += [f"--p99 {ceil(plan.p99 or 0)}s ({plan.replicas} of {plan.title})" for plan in soonest]
    quickest = min(fitting, key=ORDER["latency"])
    words = [f"{load.rate:g} requests a second"] if load.rate is not None else []
    words += [f"within {load.within:g} s"] if load.within is not None else []
    problem = (
        f"none of {len(fitting)} plans answers 99 % of {' '.join(words) or 'requests'}; "
        f"the quickest ({quickest.title}) takes {quickest.seconds:.3g} s an image"
    )
    return {"problem": problem, "remedies": (*remedies, "more GPUs, or fewer steps")}


def _remedies(
    base: Settings, target: Target, gpu: Gpu, gpu_count: int, limit: float, least: Candidate
) -> Iterator[str]:
    """The smallest changes that let a plan fit: more GPUs, a quantized DiT, a smaller image, a larger GPU."""
    for more in range(gpu_count + 1, max(MORE_GPUS, gpu_count) + 1):
        free = base | {"gpus": None}
        smallest = min(
            (plan for plan in candidates(free, target, gpu, more, lossless=True) if plan.gpus == more),
            key=ORDER["memory"],
            default=None,
        )
        if smallest and smallest.gib <= limit:
            count = more - gpu_count
            yield f"{count} more GPU{'s' if count > 1 else ''}: {more} with {smallest.title} ({smallest.gib:.1f} GiB)"
            break
        if more > 16:  # beyond, only the text encoder and the decode are left, which no degree divides
            break
    tried: list[tuple[str, Settings]] = [("execution.quantization: fp8", {"quantization": "fp8"})]
    width, height = (base[name] or target.card.defaults.get(name) for name in ("width", "height"))
    if width and height:
        half = {"width": width // 2 // 64 * 64, "height": height // 2 // 64 * 64}
        tried.append((f"half the image's sides, {half['width']}x{half['height']}", half))
    for words, changes in tried:
        possible = candidates(base | changes, target, gpu, gpu_count, lossless=True)
        fits = min(possible, key=ORDER["memory"], default=None)
        if fits and fits.gib <= limit:
            yield f"{words}: {fits.title} ({fits.gib:.1f} GiB)"
    for name in catalog().engine_ids:
        engine = catalog().engine(name)
        if engine is None or name == target.engine.id:
            continue
        other = replace(target, engine=engine)
        possible = candidates(base | {"engine": name}, other, gpu, gpu_count, lossless=True)
        fits = min(possible, key=ORDER["memory"], default=None)
        if fits and fits.gib <= limit:
            yield f"engine: {name}, which has {fits.title} ({fits.gib:.1f} GiB)"
            break
    larger = [each.id for each in gpus().values() if each.memory >= least.gib]
    yield f"a GPU of at least {least.gib:.0f} GiB" + (f": {', '.join(larger[:4])}" if larger else "")


def _same_but_for_more(candidate: Candidate, better: Candidate) -> bool:
    """Whether a plan is a better one with something on top that does not help: no quicker and no smaller."""
    same = all(candidate.changes[axis] == better.changes[axis] for axis in DEGREES)
    return same and candidate.gib >= better.gib - 0.05 and candidate.seconds >= better.seconds - 1e-9


def _suggested(base: Settings, candidate: Candidate, target: Target, gpu: Gpu) -> Suggested:
    settings = base | candidate.changes | {"gpus": candidate.gpus}
    if base["machine"] is None:
        settings["gpu"] = gpu.id
    images = {"num_images_per_prompt": settings["num_images_per_prompt"] * candidate.batch}
    q = _quantities(settings | images, target)
    found = estimate(q, gpu)
    if candidate.rate is not None and target.engine.id == "native":  # whose server starts replicas, and batches
        count = candidate.replicas
        settings |= {"gpus": count * candidate.gpus, "data_parallel_size": count if count > 1 else None}
        settings |= {"server": True, "max_batch_size": candidate.batch}
    topology = gpu.measured.topology if gpu.measured else None
    order = topology.order if topology and topology.order != tuple(sorted(topology.order)) else ()
    return Suggested(candidate, settings, found, int(q["num_inference_steps"]), order)


def _quantities(settings: Settings, target: Target) -> Quantities:
    return target.quantities(target.by(()).applied(settings)[0])


def document(settings: Settings) -> dict[str, Any]:
    """The config that says these settings: what differs from the defaults, by sections."""
    tree: dict[str, Any] = {"version": 1}
    parameters = {inner for name in SWITCHES for inner in PARAMETERS[name]}
    for name, path in FIELDS.items():
        value = settings[name]
        if value == DEFAULTS.get(name) or name in parameters:
            continue
        if name in SWITCHES:
            chosen = {inner: settings[inner] for inner in PARAMETERS[name] if settings[inner] != DEFAULTS[inner]}
            value = chosen or True
        place = tree
        for section in path[:-1]:
            place = place.setdefault(section, {})
        place[path[-1]] = list(value) if isinstance(value, tuple) else value
    return tree
