"""What a run of an engine shows: equal, near, refused, ignored, wrong, hangs, or nothing."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, combinations
from typing import TYPE_CHECKING, Any, Literal

from matrix.engines.server import Ran
from omni_config.schema.settings import Settings

if TYPE_CHECKING:
    import numpy as np

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
ROUNDING = 40.0  # dB of an image between two orders of summation in bfloat16, or more
ALIKE = 10.0  # dB of an image where a cache or tiles change it, or more
EARLY = ("arguments", "before weights")  # of moments, those at which a refusal is one of the settings
NEARER = 3.0  # dB that a run must be nearer than its control
SAVED = 0.98  # of the work, or less, is left where something is saved
PADDED = 1.1  # of it, or less, where a sequence is padded
SHARED = 0.75  # of what one of two ranks would do alone, or less, where it is shared


@dataclass(frozen=True)
class Judged:
    """An outcome, with its reason in one line; ``psnr`` in dB, infinite where the images are equal."""

    outcome: Outcome
    why: str
    moment: str = ""
    psnr: float | None = None
    control: float | None = None
    ignored: tuple[str, ...] = ()


def judged(
    ran: Ran, reference: Ran, bare: Ran, settings: Settings, features: Mapping[str, Any], platform: Collection[str]
) -> Judged:
    """What a run shows against that of one process; ``features`` are those that are on.

    The reference has what changes the image beside the rest, ``bare`` has nothing. ``platform`` are errors of a machine
    without a GPU, of which a run on another says nothing.
    """
    if any(text in ran.error for text in platform):
        return Judged("not shown", f"a machine without a GPU refuses it: {_line(ran.error)}", ran.moment)
    if ran.error and ran.moment in EARLY:
        return Judged("refused", _line(ran.error), ran.moment)
    if reference.error or reference.hung:
        return Judged("not shown", f"one process fails: {_line(reference.error) or 'no end'}", reference.moment)
    if ran.hung:
        return Judged("hangs", f"no end after {ran.seconds:.0f} s, at the moment: {ran.moment}", ran.moment)
    if ran.error:
        return Judged("refused", _line(ran.error), ran.moment)
    image, expected = ran.images.get("image"), reference.images.get("image")
    if image is None or expected is None:
        return Judged("not shown", "no rank has an image")
    if image.shape != expected.shape:
        made, wanted = ("x".join(map(str, one.shape[:-1])) for one in (image, expected))
        return Judged("wrong", f"{made} (frames, rows, columns) in the place of {wanted}")
    distance = psnr(image, expected)
    if [*features] == ["lora"]:
        if math.isinf(distance):
            return Judged("ignored", "the image is that without the adapter", ignored=("lora",), psnr=distance)
        return Judged("not shown", f"the adapter changes the image, by {distance:.1f} dB", psnr=distance)
    controls = [psnr(one, expected) for name, one in ran.images.items() if name != "image"]
    control = max(controls, default=None)
    lossy, alone = bool((INEXACT | STALE) & {*features}), {*features} <= LOSSY
    if alone:  # one process, whose image is changed: a damaged weight has nothing to be told from
        control = None
    idle = _ignored(ran, reference, bare, settings, features)
    numbers: dict[str, Any] = {"psnr": distance, "control": control}
    unnoticed = control is not None and control >= distance - NEARER and control > (ALIKE if lossy else ROUNDING)
    if unnoticed and not idle:
        return Judged("not shown", f"a damaged weight was not noticed: {control:.0f} dB", **numbers)
    if distance < (ALIKE if lossy else ROUNDING):
        said = f"the image is {distance:.1f} dB from that of one process"
        return Judged("wrong", said + (f", with a damaged weight {control:.1f}" if control else ""), **numbers)
    if idle:
        return Judged("ignored", "; ".join(dict.fromkeys(idle.values())), ignored=tuple(idle), **numbers)
    cached = bool({"cache_dit", "tea_cache"} & {*features})
    if cached and not _saves(ran if alone else reference, bare):
        return Judged("not shown", "the cache skips no block of the small model", **numbers)
    if math.isinf(distance):
        return Judged("equal", "the image is the same", **numbers)
    near = "near" if lossy else "equal"
    return Judged(near, f"{distance:.1f} dB from the image of one process", **numbers)  # type: ignore[arg-type]


def psnr(image: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> float:
    """Of 8-bit values, in dB."""
    import numpy as np

    if image.shape != expected.shape:
        return 0.0
    error = float(np.mean((image.astype(float) - expected) ** 2))
    return 10 * math.log10(255**2 / error) if error else math.inf


def _saves(ran: Ran, reference: Ran) -> bool:
    """Whether a rank runs fewer tokens through the blocks; so it is taken where nothing was counted."""
    if not ran.work or not reference.work:
        return True
    return max(rank["tokens"] for rank in ran.work) < SAVED * reference.work[0]["tokens"]


def _ignored(ran: Ran, reference: Ran, bare: Ran, settings: Settings, features: Mapping[str, Any]) -> dict[str, str]:
    """By feature, what is not shared or saved although the engine accepted it; only what is counted for sure."""
    if not ran.work or not reference.work:
        return {}
    alone = reference.work[0]
    most = {name: max(rank[name] for rank in ran.work) for name in alone}
    found: dict[str, str] = {}
    degrees = {
        "ulysses": settings.get("ulysses_degree", 1),
        "ring": settings.get("ring_degree", 1),
        "cfg_parallel": settings.get("cfg_parallel_size", 1),
        "pipeline_parallel": settings.get("pipeline_parallel_size", 1),
    }
    cached = bool({"cache_dit", "tea_cache"} & {*features})
    if not cached and alone["tokens"]:
        share = most["tokens"] / alone["tokens"]
        on = {name: degree for name, degree in degrees.items() if degree > 1}
        for idle in _some(on):
            left = 1 / math.prod(degree for name, degree in on.items() if name not in idle)
            if SAVED <= share / left <= PADDED or (len(idle) == len(on) and share > left):
                why = f"a rank computes {share:.0%} of the tokens of one process, not {1 / math.prod(on.values()):.0%}"
                found |= dict.fromkeys(idle, why)
    if "tea_cache" in features and most.get("cache_decisions") == 0:
        found["tea_cache"] = "no step is held against the one before"
    held = most["parameters"] / max(alone["parameters"], 1)
    for name in ("hsdp", "tensor_parallel"):
        if name in features and held > SHARED:
            found[name] = f"a rank holds {held:.0%} of the weights of the transformer"
    decoded = most["decoder_work"] / max(alone["decoder_work"], 1)
    if "vae_patch_parallel" in features and "vae_tiling" not in features and decoded > SHARED + 0.2:
        found["vae_patch_parallel"] = f"a rank does {decoded:.0%} of the decoder's work"
    if bare.work and "vae_tiling" in features and "vae_patch_parallel" not in features:
        whole = bare.work[0]["decoder_calls"]
        if most["decoder_calls"] <= whole:
            found["vae_tiling"] = f"the decoder is called as often as without: {whole}"
    return found


def _some(names: Iterable[str]) -> Iterator[tuple[str, ...]]:
    """Some of them, or all."""
    every = tuple(names)
    return chain.from_iterable(combinations(every, size) for size in range(1, len(every) + 1))


def _line(error: str) -> str:
    return " ".join(error.split())[:400]
