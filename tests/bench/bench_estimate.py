"""The estimate against 1, 2 and 4 CPU ranks: steps of tiny-qwen by the clock, and what the estimate says of this CPU.

    python tests/bench/bench_estimate.py

The CPU is calibrated first: a thread's matrix product, attention and copy, a block of 16 tokens (what calling it
costs), and gloo's bytes a second and latency between two ranks. Nothing is fitted to the steps. Where ranks outnumber
cores, they share them, so that what they compute takes as many times as long; what they wait for does not.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "runtime"), str(Path(__file__).parent)]

import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402
from bench_runtime import sized, timed, unguided  # noqa: E402
from cases import tiny_qwen  # noqa: E402

from omni_config.catalog import catalog  # noqa: E402
from omni_config.estimate.data import Gpu, efficiencies  # noqa: E402
from omni_config.estimate.latency import pass_of  # noqa: E402
from omni_config.estimate.work import work_of  # noqa: E402
from omni_config.plan import Mesh  # noqa: E402
from omni_config.quantities import Quantities  # noqa: E402
from omni_config.resolver import resolve_settings  # noqa: E402
from omni_config.settings import validate  # noqa: E402
from runtime import load, worker  # noqa: E402

REPEATS, STEPS = 2, 4
CORES = os.cpu_count() or 1
WIDTH, HEADS, HEAD = 112, 4, 28  # of tiny-qwen
MESHES = {
    "Ulysses": ("ulysses_degree", lambda ranks: Mesh(ulysses=ranks)),
    "Ring": ("ring_degree", lambda ranks: Mesh(ring=ranks)),
    "TP": ("tensor_parallel_size", lambda ranks: Mesh(tensor=ranks)),
}


def seconds(call: Callable[[], object], least: float = 0.3) -> float:
    """Of one call, the median of as many as fill some time."""
    call()
    taken: list[float] = []
    while sum(taken) < least:
        begun = time.perf_counter()
        call()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


def calibrated() -> tuple[Gpu, dict[str, float]]:
    """This CPU as a GPU of one thread, and its efficiencies; in float32, whose peak is half of ``tflops``."""
    tokens = 4096
    activations, weights = torch.randn(tokens, WIDTH), torch.randn(WIDTH, 4 * WIDTH)
    flops = 2 * tokens * WIDTH * 4 * WIDTH / seconds(lambda: activations @ weights)
    heads = torch.randn(1, HEADS, tokens, HEAD)
    scores = (
        4 * tokens**2 * WIDTH / seconds(lambda: torch.nn.functional.scaled_dot_product_attention(heads, heads, heads))
    )
    target = torch.empty_like(activations)
    copied = 2 * activations.nbytes / seconds(lambda: target.copy_(activations))
    sent, latency = (float(number) for number in between_two_ranks().split())
    share = dict(efficiencies()) | {"matmul_cpu": 1.0, "attention_cpu": scores / flops, "memory": 1.0, "loopback": 1.0}
    share |= {"block": small_block(), "collective": latency, "ring_overlap": 0.0}  # as gloo blocks
    cpu = Gpu(
        "cpu", "this CPU", "cpu", 2 * flops / 1e12, 8, copied / 1e9, "loopback", sent / 1e9, 1, 64, "measured here"
    )
    print(
        f"one thread: {flops / 1e9:.0f} GFLOP/s, attention {scores / 1e9:.0f}, copies {copied / 1e9:.1f} GB/s; ", end=""
    )
    print(f"gloo: {sent / 1e9:.2f} GB/s, {latency * 1e6:.0f} us a collective; {CORES} cores\n")
    return cpu, share


def small_block() -> float:
    """Seconds of one block of tiny-qwen on a picture of 32 px."""
    plan = unguided(sized(tiny_qwen(), 32, 1))
    pipe = load.pipeline(plan)
    block, seen = pipe.transformer.transformer_blocks[0], []
    block.register_forward_pre_hook(lambda _, args, kwargs: seen.append((args, kwargs)), with_kwargs=True)
    pipe(**worker.arguments(plan))
    args, kwargs = seen[0]
    with torch.no_grad():
        return seconds(lambda: block(*args, **kwargs))


def between_two_ranks() -> str:
    """Bytes a second that a rank sends, and seconds of the smallest collective."""
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo"}
    line += ["--nproc-per-node=2", __file__, "link"]
    return subprocess.run(line, env=environment, check=True, capture_output=True, text=True).stdout


def link() -> None:
    """One of the two ranks."""
    dist.init_process_group("gloo")
    large, small = torch.zeros(2**20), torch.zeros(2)
    received = [torch.empty_like(large) for _ in range(2)]

    def median(call: Callable[[], object]) -> float:
        taken = []
        for _ in range(50):
            begun = time.perf_counter()
            call()
            taken.append(time.perf_counter() - begun)
        return statistics.median(taken)

    whole, latency = median(lambda: dist.all_gather(received, large)), median(lambda: dist.all_reduce(small))
    if dist.get_rank() == 0:
        print(large.nbytes / (whole - latency), latency)
    dist.destroy_process_group()


def estimated(degree: str, ranks: int, pixels: int, cpu: Gpu, share: dict[str, float]) -> float:
    """Seconds a step."""
    card, engine = catalog().model("tiny-qwen"), catalog().engine("native")
    assert card is not None
    assert engine is not None
    settings = {"version": 1, "model": "tiny-qwen", "width": pixels, "height": pixels, "cfg_scale": 1.0, degree: ranks}
    settings = resolve_settings(validate({"version": 1, "model": "tiny-qwen"}) | settings, card, engine, ()).settings
    q = Quantities(settings, card, engine, catalog().features)
    terms = pass_of(q, work_of(q), cpu, share)
    crowd = max(1.0, ranks / CORES)  # also of what is sent: loopback is a copy, by a core
    return sum(value * (crowd if name != "launches" else 1.0) for name, value in terms.items())


def main() -> None:
    """Print a row a mesh: measured and estimated seconds, and speed-ups over one rank."""
    cpu, share = calibrated()
    print("| tiny-qwen | ranks | measured | speed-up | estimated | speed-up | error of the speed-up |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    errors = []
    for pixels in (256, 512):
        plan = unguided(sized(tiny_qwen(), pixels, STEPS))
        plans = [("", 1, plan, "ulysses_degree")]
        for name, (degree, mesh) in MESHES.items():
            plans += [(name, ranks, replace(plan, mesh=mesh(ranks)), degree) for ranks in (2, 4)]
        turns = [[timed(one)[0] for _, _, one, _ in plans] for _ in range(REPEATS + 1)][1:]
        measured = [statistics.median(column) for column in zip(*turns, strict=True)]
        guessed = [estimated(degree, ranks, pixels, cpu, share) for _, ranks, _, degree in plans]
        for (name, ranks, _, _), one, guess in zip(plans, measured, guessed, strict=True):
            speed, expected = measured[0] / one, guessed[0] / guess
            errors += [abs(expected / speed - 1)] if ranks > 1 else []
            row = f"| {name or 'one rank'}, {pixels} px | {ranks} | {one * 1000:.0f} ms | {speed:.2f} "
            print(row + f"| {guess * 1000:.0f} ms | {expected:.2f} | {expected / speed - 1:+.0%} |", flush=True)
    print(f"\nmedian error of speed-ups {statistics.median(errors):.0%}, worst {max(errors):.0%}")


if __name__ == "__main__":
    link() if sys.argv[1:] == ["link"] else main()
