"""What a run of an engine shows: equal, near, refused, ignored, wrong, hangs, or nothing.

What is measured and what follows from it are apart: evidence keeps the first, so that a change of the second asks for
no run.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, combinations
from typing import TYPE_CHECKING, Any, Literal

from omni_config.schema.settings import Settings

if TYPE_CHECKING:
    import numpy as np

    from matrix.engines.server import Ran

Verdict = Literal["runs", "warned", "refused"]
Outcome = Literal["equal", "near", "refused", "ignored", "wrong", "hangs", "not shown"]
OUTCOMES: dict[Outcome, str] = {
    "equal": "computes what one process computes",
    "near": "computes nearly what one process computes, as it must with this feature",
    "refused": "is refused, or fails",
    "ignored": "is accepted, and changes nothing of the work",
    "wrong": "computes something else, and says nothing",
    "hangs": "does not end",
    "not shown": "runs, and the run cannot show whether it is right",
}
RUNS: tuple[Outcome, ...] = ("equal", "near", "not shown")
#: Features that change the image by themselves.
LOSSY = frozenset({"cache_dit", "tea_cache", "vae_tiling", "quantization", "lora"})
#: Of them, those that may change it otherwise beside ranks: an adapter is the same for one process and for several.
INEXACT = LOSSY - {"lora"}
#: Stages of a pipeline work with what other parts of the image were a step ago.
STALE = frozenset({"pipeline_parallel"})
ALIKE = 10.0  # dB of an image where a cache or tiles change it, or more
#: Warnings of what is refused for some sizes or prompts only.
SOMETIMES = {"OMNI106", "OMNI149"}
EARLY = ("arguments", "before weights")  # of moments, those at which a refusal is one of the settings
NEARER = 3.0  # dB that a run must be nearer than its control
SAVED = 0.98  # of the work, or less, is left where something is saved
PADDED = 1.1  # of it, or less, where a sequence is padded
SHARED = 0.75  # of what one of two ranks would do alone, or less, where it is shared
#: Degrees that share the branches and the blocks among ranks, and those that share the tokens of each.
BRANCHES, TOKENS = {"cfg_parallel": "cfg_parallel_size"}, {"ulysses": "ulysses_degree", "ring": "ring_degree"}
STAGES = {"pipeline_parallel": "pipeline_parallel_size"}
DEGREES = (*BRANCHES.values(), *TOKENS.values(), *STAGES.values())

Counts = Mapping[str, int]
#: Numbers of a run that are dB, and kept to a tenth.
DECIBELS = ("psnr", "control", "plain")


@dataclass(frozen=True, slots=True)
class Measured:
    """A run in numbers, beside one process: ``reference`` has what changes the image beside the rest, ``bare`` nothing.

    ``error`` is a line, and ``moment`` is when it was; ``seconds`` are those after which a run that hung was ended.
    ``psnr`` is that of the image against the reference's, in dB, infinite where they are equal; None where there is
    none, and ``sizes`` tells them where they differ. ``control`` is the best that a damaged weight has, ``plain`` that
    of the image against the pipeline of diffusers. ``most`` are the counts of the rank that has the most of each.
    """

    error: str = ""
    moment: str = ""
    hung: bool = False
    seconds: float | None = None
    one_process: str = ""
    one_process_moment: str = ""
    sizes: str = ""
    psnr: float | None = None
    control: float | None = None
    plain: float | None = None
    most: Counts = field(default_factory=dict)
    reference: Counts = field(default_factory=dict)
    bare: Counts = field(default_factory=dict)

    @classmethod
    def of(cls, ran: Ran, reference: Ran, bare: Ran, plain: Ran | None = None) -> Measured:
        """The numbers of a run and those beside it."""
        image, expected = ran.images.get("image"), reference.images.get("image")
        theirs = plain.images.get("image") if plain else None
        numbers: dict[str, Any] = {}
        if image is not None and expected is not None:
            if image.shape != expected.shape:
                made, wanted = ("x".join(map(str, one.shape[:-1])) for one in (image, expected))
                numbers["sizes"] = f"{made} (frames, rows, columns) in the place of {wanted}"
            else:
                controls = [psnr(one, expected) for name, one in ran.images.items() if name != "image"]
                numbers |= {"psnr": psnr(image, expected), "control": max(controls, default=None)}
        if image is not None and theirs is not None:
            numbers["plain"] = psnr(image, theirs)
        numbers |= {name: round(numbers[name], 1) for name in DECIBELS if isinstance(numbers.get(name), float)}
        return cls(
            error=_line(ran.error),
            moment=ran.moment,
            seconds=ran.seconds if ran.hung else None,
            hung=ran.hung,
            one_process=_line(reference.error) or ("no end" if reference.hung else ""),
            one_process_moment=reference.moment,
            most={name: max(rank[name] for rank in ran.work) for name in ran.work[0]} if ran.work else {},
            reference=dict(reference.work[0]) if reference.work else {},
            bare=dict(bare.work[0]) if bare.work else {},
            **numbers,
        )


@dataclass(frozen=True)
class Judged:
    """An outcome, with its reason in one line; ``psnr`` in dB, infinite where the images are equal."""

    outcome: Outcome
    why: str
    moment: str = ""
    psnr: float | None = None
    control: float | None = None
    ignored: tuple[str, ...] = ()


def bears_out(verdict: Verdict, codes: Collection[str], outcome: Outcome) -> bool:
    """Whether a run bears the rules out: what they refuse must not run as it should, and the rest must."""
    if verdict == "refused":
        return outcome not in RUNS or outcome == "not shown"
    if verdict == "warned" and (outcome in ("ignored", "wrong") or (outcome == "refused" and SOMETIMES & {*codes})):
        return True
    return outcome in RUNS


def judged(run: Measured, settings: Settings, features: Collection[str], rounding: float) -> Judged:
    """What a run shows; ``features`` are those that are on, and ``settings`` say their degrees.

    ``rounding`` are the dB of an image between two orders of summation, or more, as the engine computes.
    """
    on = {*features}
    if run.error and not run.hung and run.moment in EARLY:
        return Judged("refused", run.error, run.moment)
    if run.one_process:
        return Judged("not shown", f"one process fails: {run.one_process}", run.one_process_moment)
    if run.hung:
        return Judged("hangs", f"no end after {run.seconds or 0:.0f} s, at the moment: {run.moment}", run.moment)
    if run.error:
        return Judged("refused", run.error, run.moment)
    if run.sizes:
        return Judged("wrong", run.sizes)
    if run.psnr is None:
        return Judged("not shown", "no rank has an image")
    if on == {"lora"}:
        if math.isinf(run.psnr):
            return Judged("ignored", "the image is that without the adapter", ignored=("lora",), psnr=run.psnr)
        return Judged("not shown", f"the adapter changes the image, by {run.psnr:.1f} dB", psnr=run.psnr)
    return _of_images(run, run.psnr, settings, on, rounding)


def _of_images(run: Measured, distance: float, settings: Settings, on: set[str], rounding: float) -> Judged:
    lossy, alone = bool((INEXACT | STALE) & on), on <= LOSSY
    control = None if alone else run.control  # one process, whose image is changed: damage has nothing to be told from
    bound = ALIKE if lossy else rounding
    idle = _ignored(run, settings, on)
    numbers: dict[str, Any] = {"psnr": distance, "control": control}
    if control is not None and control >= distance - NEARER and control > bound and not idle:
        return Judged("not shown", f"a damaged weight was not noticed: {control:.0f} dB", **numbers)
    if distance < bound:
        if run.plain is not None and run.plain >= rounding and not on & LOSSY:  # so it is the one process that is wrong
            why = f"the image is that of diffusers; one process of the engine is {distance:.1f} dB from it"
            return Judged("equal", why, psnr=run.plain, control=control)
        said = f"the image is {distance:.1f} dB from that of one process"
        return Judged("wrong", said + (f", with a damaged weight {control:.1f}" if control else ""), **numbers)
    if idle:
        return Judged("ignored", "; ".join(dict.fromkeys(idle.values())), ignored=tuple(idle), **numbers)
    if {"cache_dit", "tea_cache"} & on and not _saves(run.most if alone else run.reference, run.bare):
        return Judged("not shown", "the cache skips no block of the small model", **numbers)
    if math.isinf(distance):
        return Judged("equal", "the image is the same", **numbers)
    return Judged("near" if lossy else "equal", f"{distance:.1f} dB from the image of one process", **numbers)


def psnr(image: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> float:
    """Of 8-bit values, in dB."""
    import numpy as np

    if image.shape != expected.shape:
        return 0.0
    error = float(np.mean((image.astype(float) - expected) ** 2))
    return 10 * math.log10(255**2 / error) if error else math.inf


def _saves(most: Counts, bare: Counts) -> bool:
    """Whether a rank runs fewer tokens through the blocks; so it is taken where nothing was counted."""
    return not most or not bare or most["tokens"] < SAVED * bare["tokens"]


def _ignored(run: Measured, settings: Settings, on: set[str]) -> dict[str, str]:
    """By feature, what is not shared or saved although the engine accepted it; only what is counted for sure."""
    most, alone = run.most, run.reference
    if not most or not alone:
        return {}
    found: dict[str, str] = {}
    if not {"cache_dit", "tea_cache"} & on or run.psnr == math.inf:  # else ranks may have skipped other steps than one
        found |= _unshared(most, alone, settings)
    if "tea_cache" in on and most.get("cache_decisions") == 0:
        found["tea_cache"] = "no step is held against the one before"
    held = most["parameters"] / max(alone["parameters"], 1)
    for name in ("hsdp", "tensor_parallel"):
        if name in on and held > SHARED:
            found[name] = f"a rank holds {held:.0%} of the weights of the transformer"
    decoded = most["decoder_work"] / max(alone["decoder_work"], 1)
    if "vae_patch_parallel" in on and "vae_tiling" not in on and decoded > SHARED + 0.2:
        found["vae_patch_parallel"] = f"a rank does {decoded:.0%} of the decoder's work"
    if run.bare and "vae_tiling" in on and "vae_patch_parallel" not in on:
        whole = run.bare["decoder_calls"]
        if most["decoder_calls"] <= whole:
            found["vae_tiling"] = f"the decoder is called as often as without: {whole}"
    return found


def _unshared(most: Counts, alone: Counts, settings: Settings) -> dict[str, str]:
    """Degrees that leave a rank with what it would have without them.

    Branches and tokens are counted apart, as text may be whole on each rank; stages have parts of both.
    """
    if not (alone["tokens"] and alone["sequences"] and most["sequences"]):
        return {}
    tokens, sequences = most["tokens"] / alone["tokens"], most["sequences"] / alone["sequences"]
    staged = settings.get(STAGES["pipeline_parallel"], 1) > 1
    shares = [(tokens, BRANCHES | TOKENS | STAGES)] if staged else [(sequences, BRANCHES), (tokens / sequences, TOKENS)]
    found: dict[str, str] = {}
    for share, names in shares:
        on = {name: settings.get(degree, 1) for name, degree in names.items() if settings.get(degree, 1) > 1}
        for idle in _some(on):
            left = 1 / math.prod(degree for name, degree in on.items() if name not in idle)
            if SAVED <= share / left <= PADDED or (len(idle) == len(on) and share > left):
                whole = 1 / math.prod(on.values())
                what = "work" if staged else "branches" if names is BRANCHES else "tokens of a branch"
                why = f"a rank computes {share:.0%} of the {what} of one process, not {whole:.0%}"
                found |= dict.fromkeys(idle, why)
    return found


def _some(names: Iterable[str]) -> Iterator[tuple[str, ...]]:
    """Some of them, or all."""
    every = tuple(names)
    return chain.from_iterable(combinations(every, size) for size in range(1, len(every) + 1))


def _line(error: str) -> str:
    return " ".join(error.split())[:400]
