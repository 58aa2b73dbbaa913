"""Step caches on the trained models: speed-up and PSNR over the threshold; prints a Markdown table and draws a plot.

    python tests/bench/bench_caches.py [docs/caches.svg]

One process, one thread. Each cached call follows one without a cache of the same prompt and seed; speed-up is the ratio
of their seconds of CPU from call to last step, which other programs disturb least, PSNR that of the pictures. Medians
of six prompts.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "runtime")]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from cases import DBCACHE, tiny, tiny_qwen  # noqa: E402

from omni_config.catalog.load import catalog  # noqa: E402
from omni_config.plan import Plan, TeaCache  # noqa: E402
from runtime.pipeline import apply, load  # noqa: E402
from runtime.ranks import generate  # noqa: E402

STEPS = 20
PROMPTS = [
    f"a {color} {shape} on a {ground} background"
    for color, shape, ground in (
        ("red", "star", "white"),
        ("blue", "heart", "gray"),
        ("green", "circle", "black"),
        ("yellow", "triangle", "blue"),
        ("white", "cross", "green"),
        ("black", "square", "yellow"),
    )
]
THRESHOLDS = {
    "tea_cache": (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.8),
    "cache_dit": (0.06, 0.12, 0.18, 0.24, 0.36, 0.5),
}
NAMES = {"tea_cache": "TeaCache rel_l1_thresh", "cache_dit": "Cache-DiT residual_diff_threshold"}


def cached(plan: Plan, backend: str, threshold: float) -> Plan:
    """The Plan with a cache at a threshold; all else as a config without it has."""
    if backend == "cache_dit":
        return replace(plan, cache=replace(DBCACHE, residual_diff_threshold=threshold))
    card = catalog().model(plan.model.id)
    assert card is not None
    return replace(plan, cache=TeaCache(threshold, card.teacache_coefficients))


def call(pipe: Any, plan: Plan, prompt: str, seed: int) -> tuple[float, np.ndarray]:
    """Seconds of CPU to the last step, and the picture as numbers from 0 to 1."""
    sampling = replace(plan.sampling, prompt=prompt, seed=seed)
    arguments = generate.arguments(replace(plan, sampling=sampling)) | {"output_type": "np"}
    end = 0.0

    def after_step(_pipe: Any, _step: int, _time: Any, _tensors: Any) -> dict[str, Any]:
        nonlocal end
        end = time.process_time()
        return {}

    start = time.process_time()
    picture = pipe(**arguments, callback_on_step_end=after_step).images[0]
    return end - start, picture


def measure(plan: Plan, backend: str, threshold: float) -> tuple[float, float, float]:
    """Speed-up, PSNR in dB and steps that were cached."""
    plain_pipe, pipe = load.pipeline(plan), load.pipeline(plan)
    with_cache = cached(plan, backend, threshold)
    handles = apply.apply(pipe, with_cache, None)
    found = []
    for seed, prompt in enumerate(PROMPTS):
        plain_seconds, plain = call(plain_pipe, plan, prompt, seed)
        seconds, picture = call(pipe, with_cache, prompt, seed)
        steps = sum(len(handle.measure().get("cached_steps", ())) for handle in handles.values())
        error = float(((picture - plain) ** 2).mean())
        found.append((plain_seconds / seconds, 10 * math.log10(1 / error) if error else math.inf, steps))
    speed, psnr, steps = (statistics.median(column) for column in zip(*found, strict=True))
    return speed, psnr, steps


def main() -> None:
    """Measure both caches on both models."""
    torch.set_num_threads(1)
    curves: dict[str, list[tuple[float, float, float]]] = {}
    print(f"| model | cache | threshold | speed-up | PSNR | cached of {STEPS} |\n|---|---|---|---|---|---|", flush=True)
    for plan in (tiny(), tiny_qwen()):
        plan = replace(plan, sampling=replace(plan.sampling, num_inference_steps=STEPS))
        for backend, thresholds in THRESHOLDS.items():
            for threshold in thresholds:
                speed, psnr, steps = measure(plan, backend, threshold)
                curves.setdefault(f"{NAMES[backend].split()[0]}, {plan.model.id}", []).append((threshold, speed, psnr))
                row = f"{plan.model.id} | {NAMES[backend]} | {threshold:g} | {speed:.2f} | {psnr:.1f} dB | {steps:g}"
                print(f"| {row} |", flush=True)
    if sys.argv[1:]:
        draw(curves, Path(sys.argv[1]))


def draw(curves: dict[str, list[tuple[float, float, float]]], path: Path) -> None:
    """PSNR over speed-up, each point with its threshold."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, points in curves.items():
        places = [(speed, min(psnr, 70)) for _, speed, psnr in points]
        axes.plot(*zip(*places, strict=True), "o-", label=name)
        for (threshold, _, _), place in zip(points, places, strict=True):
            axes.annotate(f"{threshold:g}", place, textcoords="offset points", xytext=(4, 4), fontsize=7)
    axes.axhline(35, color="gray", linestyle=":")
    axes.set(xlabel="speed-up of denoising", ylabel="PSNR in dB (70: identical)", title="Step caches by threshold")
    axes.legend(fontsize=8)
    figure.savefig(path)


if __name__ == "__main__":
    main()
