"""The estimate against 1, 2 and 4 CPU ranks: steps of tiny-qwen by the clock, and what the estimate says of this CPU.

    python tests/bench/bench_estimate.py

The CPU is calibrated first: a thread's matrix product, attention and norm, gloo's bytes a second between two ranks, and
on each mesh a step of the smallest picture, which is what calling the blocks and their collectives costs: a CPU, unlike
a GPU, computes nothing meanwhile. Nothing is fitted to the steps that are judged. Where ranks outnumber cores, they
share them, so that what they compute takes as many times as long.
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

from omni_config.catalog.load import catalog  # noqa: E402
from omni_config.estimate.data import Gpu, efficiencies  # noqa: E402
from omni_config.estimate.latency import pass_of  # noqa: E402
from omni_config.estimate.work import work_of  # noqa: E402
from omni_config.plan import Mesh  # noqa: E402
from omni_config.resolving.target import target_of  # noqa: E402
from omni_config.schema.settings import validate  # noqa: E402

REPEATS, STEPS = 2, 4
SMALLEST = 32  # pixels: 16 tokens and those of the prompt
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
    normed = 2 * activations.nbytes / seconds(lambda: torch.nn.functional.layer_norm(activations, (WIDTH,)))
    sent = float(between_two_ranks())
    share = dict(efficiencies()) | {"matmul_cpu": 1.0, "attention_cpu": scores / flops, "memory": 1.0, "loopback": 1.0}
    share |= {"block": 0.0, "collective": 0.0, "ring_overlap": 0.0}  # calls are measured, and gloo blocks
    cpu = Gpu(
        "cpu", "this CPU", "cpu", 2 * flops / 1e12, 8, normed / 1e9, "loopback", sent / 1e9, 1, 64, "measured here"
    )
    print(
        f"one thread: {flops / 1e9:.0f} GFLOP/s, attention {scores / 1e9:.0f}, norms {normed / 1e9:.1f} GB/s; ", end=""
    )
    print(f"gloo: {sent / 1e9:.2f} GB/s; {CORES} cores\n")
    return cpu, share


def between_two_ranks() -> str:
    """Bytes a second that a rank sends."""
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
        print(large.nbytes / (whole - latency))
    dist.destroy_process_group()


def estimated(degree: str, ranks: int, pixels: int, cpu: Gpu, share: dict[str, float]) -> float:
    """Seconds a step, without those of calling."""
    card, engine = catalog().model("tiny-qwen"), catalog().engine("native")
    assert card is not None
    assert engine is not None
    settings = {"version": 1, "model": "tiny-qwen", "width": pixels, "height": pixels, "cfg_scale": 1.0, degree: ranks}
    target = target_of(card, engine).by(())
    q = target.quantities(target.applied(validate({"version": 1, "model": "tiny-qwen"}) | settings)[0])
    terms = pass_of(q, work_of(q), cpu, share)
    crowd = max(1.0, ranks / CORES)  # also of what is sent: loopback is a copy, by a core
    return sum(terms.values()) * crowd


def main() -> None:
    """Print a row a mesh: measured and estimated seconds, and speed-ups over one rank."""
    cpu, share = calibrated()
    print("| tiny-qwen | ranks | of calls | measured | speed-up | estimated | speed-up | error of the speed-up |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    errors = []
    for pixels in (256, 512):
        plan = unguided(sized(tiny_qwen(), pixels, STEPS))
        plans = [("", 1, plan, "ulysses_degree")]
        for name, (degree, mesh) in MESHES.items():
            plans += [(name, ranks, replace(plan, mesh=mesh(ranks)), degree) for ranks in (2, 4)]
        smallest = [sized(one, SMALLEST, 8) for _, _, one, _ in plans]
        turns = [[timed(one)[0] for one in (*smallest, *(one for _, _, one, _ in plans))] for _ in range(REPEATS)]
        medians = [statistics.median(column) for column in zip(*turns, strict=True)]
        calls, measured = medians[: len(plans)], medians[len(plans) :]
        guessed = [
            call + estimated(degree, ranks, pixels, cpu, share)
            for call, (_, ranks, _, degree) in zip(calls, plans, strict=True)
        ]
        for (name, ranks, _, _), call, one, guess in zip(plans, calls, measured, guessed, strict=True):
            speed, expected = measured[0] / one, guessed[0] / guess
            errors += [abs(expected / speed - 1)] if ranks > 1 else []
            row = f"| {name or 'one rank'}, {pixels} px | {ranks} | {call * 1000:.0f} ms | {one * 1000:.0f} ms "
            row += f"| {speed:.2f} | {guess * 1000:.0f} ms | {expected:.2f} | {expected / speed - 1:+.0%} |"
            print(row, flush=True)
    print(f"\nmedian error of speed-ups {statistics.median(errors):.0%}, worst {max(errors):.0%}")


if __name__ == "__main__":
    link() if sys.argv[1:] == ["link"] else main()
