"""Measures the runtime on this machine: each number a ratio of two things measured in turn; prints a Markdown table.

    python tests/bench/bench_runtime.py                     # all parts, 15 minutes
    python tests/bench/bench_runtime.py overhead scaling    # some

Every rank has one thread. Medians, with the lowest and the highest of the pairs. Nothing is asserted.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "runtime")]

from cases import tiny, tiny_qwen  # noqa: E402

from omni_config.plan import Mesh, Plan, Vae  # noqa: E402
from runtime import launch  # noqa: E402
from runtime.pipeline.load import FOLDERS  # noqa: E402

Row = tuple[str, str]  # what is compared, and the result
REPEATS = int(os.environ.get("OMNI_REPEATS", "5"))


def sized(plan: Plan, pixels: int, steps: int) -> Plan:
    """The Plan with other pictures, and guidance as it is."""
    return replace(plan, sampling=replace(plan.sampling, width=pixels, height=pixels, num_inference_steps=steps))


def unguided(plan: Plan) -> Plan:
    """One prediction a step."""
    sampling = replace(plan.sampling, negative_prompt=None, guidance=dict.fromkeys(plan.sampling.guidance, 0.0))
    return replace(plan, sampling=replace(sampling, guidance_branches=1))


def direct(plan: Plan) -> list[float]:
    """Wall-clock and CPU seconds a step of the same without us; see direct.py."""
    plan = replace(plan, model=replace(plan.model, source=str(FOLDERS[plan.model.source])))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "plan.json")
        file.write_text(json.dumps(plan.to_dict()))
        line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
        line += [f"--nproc-per-node={plan.mesh.world_size}", str(Path(__file__).with_name("direct.py")), str(file)]
        environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo"}
        done = subprocess.run(line, stdout=subprocess.PIPE, text=True, check=True, env=environment)
        return [float(seconds) for seconds in done.stdout.split()[-2:]]


def launched(plan: Plan) -> dict[str, Any]:
    """The report of ``omni launch``."""
    with tempfile.TemporaryDirectory() as folder:
        return launch(replace(plan, output=folder), timeout=1200).to_dict()


def compare(what: str, first: Callable[[], list[float]], second: Callable[[], list[float]]) -> Iterator[Row]:
    """Second over first, by the clock and in CPU seconds, in pairs taken in turn after one of each to warm up."""
    pairs = [(first(), second()) for _ in range(REPEATS + 1)][1:]
    for clock, unit in enumerate(("a step", "CPU seconds a step")):
        text, a, b = spread([(one[clock], other[clock]) for one, other in pairs])
        yield f"{what}: {unit}", f"{text}, {b:.3f} s / {a:.3f} s"


def spread(pairs: list[tuple[float, float]]) -> tuple[str, float, float]:
    """The median of the ratios, with the lowest and highest; and the medians of both."""
    ratios = [b / a for a, b in pairs]
    text = f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
    return text, statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)


def timed(plan: Plan) -> list[float]:
    """The same of omni launch."""
    with tempfile.TemporaryDirectory() as folder:
        times = Path(folder, "times.json")
        os.environ |= {"OMNI_BENCH_TIMES": str(times), "OMNI_BENCH_STEPS": str(plan.sampling.num_inference_steps)}
        launch(replace(plan, output=folder), worker=Path(__file__).with_name("timed_worker.py"))
        return [float(seconds) for seconds in json.loads(times.read_text())]


def overhead() -> Iterator[Row]:
    """A step of omni launch over a step of the same pipeline called directly; CPU seconds are of rank 0."""
    for name, mesh in {
        "plain diffusers": Mesh(),
        "cache-dit, Ulysses 2": Mesh(ulysses=2),
        "cache-dit, Ring 2": Mesh(ring=2),
        "cache-dit, TP 2": Mesh(tensor=2),
    }.items():
        plan = replace(sized(tiny(), 256, 12), mesh=mesh)
        what = f"omni launch / {name} called directly (tiny, 256 px)"
        yield from compare(what, partial(direct, plan), partial(timed, plan))


def scaling() -> Iterator[Row]:
    """One rank over two. In CPU seconds of a rank, it is what two cores of their own would give."""
    for name, plan, mesh in (
        ("CFG-parallel 2 (tiny, 256 px)", sized(tiny(), 256, 8), Mesh(cfg=2)),
        ("CFG-parallel 2 (tiny, 512 px)", sized(tiny(), 512, 4), Mesh(cfg=2)),
        ("CFG-parallel 2 (tiny-qwen, 256 px)", sized(tiny_qwen(), 256, 8), Mesh(cfg=2)),
        ("Ulysses 2 (tiny, 512 px: 4096 tokens)", sized(unguided(tiny()), 512, 4), Mesh(ulysses=2)),
        ("Ring 2 (tiny, 512 px: 4096 tokens)", sized(unguided(tiny()), 512, 4), Mesh(ring=2)),
    ):
        two = replace(plan, mesh=mesh)
        yield from compare(f"one rank / {name}", partial(timed, two), partial(timed, plan))


def growth() -> Iterator[Row]:
    """Seconds a step and peak memory a rank over resolution and ranks."""
    smallest = None
    for pixels in (128, 256, 512, 1024, 2048):
        steps = 3 if pixels < 2048 else 1  # of six minutes on one rank
        cells = []
        for ranks in (1, 2, 4):
            plan = tiny_qwen(mesh=Mesh(ulysses=ranks), vae=Vae(pixels > 512, False, 1))
            report = launched(sized(unguided(plan), pixels, steps))
            seconds, memory = report["step_seconds"], max(report["peak_memory"])
            smallest = smallest or (seconds, memory)
            cells.append(
                f"{ranks} rank{'s' * (ranks > 1)} {seconds:.2f} s ({seconds / smallest[0]:.1f}x), "
                f"{memory:.0f} MiB ({memory / smallest[1]:.2f}x)"
            )
        yield f"Ulysses, tiny-qwen, {pixels} px, {(pixels // 8) ** 2} tokens", "; ".join(cells)


def decode() -> Iterator[Row]:
    """Peak memory of a rank beyond what the same run needs at 64 px, by how the VAE decodes."""
    plan = sized(unguided(tiny_qwen()), 1024, 1)
    base = max(launched(sized(unguided(tiny_qwen()), 64, 1))["peak_memory"])
    found = {
        "in one piece": launched(replace(plan, mesh=Mesh(ulysses=2))),
        "in tiles": launched(replace(plan, mesh=Mesh(ulysses=2), vae=Vae(True, False, 1))),
        "tiles, patch parallel 2": launched(replace(plan, mesh=Mesh(ulysses=2), vae=Vae(True, False, 2))),
    }
    peaks = {name: max(report["peak_memory"]) - base for name, report in found.items()}
    first = peaks["in one piece"]
    for name, peak in peaks.items():
        seconds = found[name]["decode_seconds"]
        yield f"VAE decode {name} (tiny-qwen, 1024 px)", f"{peak:.0f} MiB ({peak / first:.2f}x), {seconds:.1f} s"


PARTS = {part.__name__: part for part in (overhead, scaling, growth, decode)}


def main() -> None:
    """Run the parts that are named, or all."""
    os.environ["OMP_NUM_THREADS"] = "1"
    print("| measured | result |\n|---|---|", flush=True)
    for name in sys.argv[1:] or PARTS:
        for what, result in PARTS[name]():
            print(f"| {what} | {result} |", flush=True)


if __name__ == "__main__":
    main()
