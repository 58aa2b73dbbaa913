"""What our own code takes of a denoising step, from the traces of ``omni launch --profile``; prints a Markdown table.

Python of ours is every frame in runtime/, with what is built into Python and called from there; torch of ours are the
operators that such a frame calls. The profiler slows Python down, so that the shares are upper bounds. A second table
has what takes most of it, called by itself: on one number, and without a profiler.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
BASE = ["--model", "tiny", "--prompt", "a red star", "--num-inference-steps", "8", "--cfg-scale", "2", "--seed", "1"]
CONFIGS = {
    "plain": [],
    "TeaCache": ["--cache-backend", "tea_cache"],
    "Cache-DiT": ["--cache-backend", "cache_dit"],
    "CFG-parallel 2": ["--cfg-parallel-size", "2"],
    "Ulysses 2": ["--usp", "2"],
    "Ring 2": ["--ring", "2"],
    "Tensor 2": ["--tensor-parallel-size", "2"],
}


def own(trace: Path) -> tuple[float, float, float, Counter[str]]:
    """Microseconds of a step, those of our Python and of the operators that it calls, and the former by function."""
    with gzip.open(trace) as file:
        events = [event for event in json.load(file)["traceEvents"] if event.get("ph") == "X"]
    steps = [event for event in events if str(event["name"]).startswith("ProfilerStep#")]
    begin, end = min(step["ts"] for step in steps), max(step["ts"] + step["dur"] for step in steps)
    thread = steps[0]["tid"]
    kinds = ("python_function", "cpu_op")
    events = [e for e in events if e["tid"] == thread and e.get("cat") in kinds and begin <= e["ts"] < end]
    events.sort(key=lambda event: (event["ts"], -event["dur"]))
    python = torch = 0.0
    by_function: Counter[str] = Counter()
    stack: list[tuple[float, str, str]] = []  # when it ends, whose Python is the innermost, and what kind
    for event in events:
        while stack and stack[-1][0] <= event["ts"]:
            stack.pop()
        name, kind = str(event["name"]), event["cat"]
        inside = stack[-1][1] if stack else ""
        if kind == "python_function" and ".py(" in name:
            path, _, function = name.partition(".py(")
            ours = (ROOT / "runtime") in Path(f"{path}.py").parents or path.startswith("runtime/")
            inside = f"{Path(path).name}: {function.partition(' ')[2]}" if ours else ""
        # Each event takes its time from the one that it is in.
        if stack and stack[-1][1]:
            if stack[-1][2] == "cpu_op":
                torch -= event["dur"]
            else:
                python -= event["dur"]
                by_function[stack[-1][1]] -= event["dur"]
        if inside:
            if kind == "cpu_op":
                torch += event["dur"]
            else:
                python += event["dur"]
                by_function[inside] += event["dur"]
        stack.append((event["ts"] + event["dur"], inside, kind))
    return (end - begin) / len(steps), python / len(steps), torch / len(steps), by_function


def alone() -> Iterator[tuple[str, float, int]]:
    """Microseconds of CPU of our functions, with operators, and how often a step of the embedded model calls each."""
    import torch
    from cache_dit.attention.backends import native
    from cache_dit.distributed.core import _templated_ring

    from runtime import compat
    from runtime.events import Writer
    from runtime.features.tea_cache import Cache

    torch.set_num_threads(1)
    compat.cache_dit.ring_attention_on_cpu()
    one, ctx = torch.zeros(1, 1, 1, 1), SimpleNamespace()
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
    attention = partial(native._native_attention_forward_op, ctx, one, one, one, None, 0.0, False, None, False, True)
    cache = SimpleNamespace(shared=False)
    blocks = 8
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        yield "every run: an event", cost(partial(Writer(Path(folder), 0).progress, "denoising", 1, 8)), 1
        yield "TeaCache: the distance", cost(partial(Cache.change, cache, one, one + 1)), 1
        yield "Ring 2: attention, beyond its kernel", cost(attention) - cost(partial(kernel, one, one, one)), 2 * blocks
        yield "Ring 2: a merge", cost(partial(_templated_ring.fused_merge_attn_states, one, one, one, one)), blocks


def cost(call: Callable[[], object], times: int = 20_000) -> float:
    """Microseconds of CPU that one call takes."""
    call()
    start = time.process_time()
    for _ in range(times):
        call()
    return (time.process_time() - start) / times * 1e6


def main() -> None:
    print("| config | a step, traced | our Python | operators it calls | most of it |\n|---|---|---|---|---|")
    for name, flags in CONFIGS.items():
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        with tempfile.TemporaryDirectory() as folder:
            line = [sys.executable, "-m", "omni_config", "launch", *BASE, *flags, "--output", folder, "--profile"]
            subprocess.run(line, cwd=ROOT, check=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
            step, python, torch, by_function = own(Path(folder, "trace-rank0.json.gz"))
        most = ", ".join(f"{function} {time / 3 / step:.2%}" for function, time in by_function.most_common(3))
        print(f"| {name} | {step / 1000:.1f} ms | {python / step:.2%} | {torch / step:.2%} | {most} |", flush=True)
    print("\n| by itself | a call | calls a step | a step |\n|---|---|---|---|")
    for name, taken, calls in alone():
        print(f"| {name} | {taken:.1f} µs | {calls} | {taken * calls:.0f} µs |", flush=True)


if __name__ == "__main__":
    main()
