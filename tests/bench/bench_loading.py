"""Measures how ranks load a pipeline of 1.5 GB of random weights, made on the fly: memory, bytes read, and time.

    python tests/bench/bench_loading.py              # 5 minutes on two cores

Memory is what a rank has for itself (RssAnon), at its highest while it loads, less what it needs for the embedded model
under the same plan: libraries, and threads. Pages of a file that are mapped are not in it, as the ranks of a machine
share them, and the kernel takes them back when it needs memory. Time is that of loading and of all features, without
imports, against diffusers alone, which loads and copies each weight once, as it would onto a device; by the clock, and
in CPU seconds of the rank that needs most. Nothing is asserted.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "runtime"), str(Path(__file__).parent)]

from cases import tiny  # noqa: E402

from omni_config.plan import Hsdp, Mesh, Model, Plan  # noqa: E402
from runtime.pipeline.load import FOLDERS  # noqa: E402

REPEATS = int(os.environ.get("OMNI_REPEATS", "3"))
SPLIT = re.compile(r"(attention|feed_forward|self_attn|mlp)\.")  # of what tensor ranks have a part
PLANS: dict[str, dict[str, Any]] = {
    "one rank": {},
    "Ulysses 2": {"mesh": Mesh(ulysses=2)},
    "TP 2": {"mesh": Mesh(tensor=2), "text_encoder_tensor_parallel": True},
    "TP 4": {"mesh": Mesh(tensor=4), "text_encoder_tensor_parallel": True},
    "HSDP 2": {"mesh": Mesh(ulysses=2), "hsdp": Hsdp(1, 2)},
    "HSDP 4": {"mesh": Mesh(ulysses=4), "hsdp": Hsdp(1, 4)},
}


def build(folder: Path) -> None:
    """Save a Z-Image of 1.5 GB in bfloat16, with a text encoder of 0.2 GB."""
    import torch
    from large import z_image

    torch.set_default_dtype(torch.bfloat16)
    z_image(folder, width=2048, layers=12, text_width=1024, text_layers=8)


def share(folder: Path, plan: Plan) -> int:
    """The bytes that a rank of a Plan should hold of what is split: all of a component, or its part."""
    total = 0
    for name in ("transformer", "text_encoder"):
        shards = plan.hsdp.shard if plan.hsdp and name == "transformer" else 1
        if shards == 1 and plan.mesh.tensor == 1:
            continue  # whole, and mapped
        for path in (folder / name).glob("*.safetensors"):
            with path.open("rb") as file:
                header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
            for weight, entry in header.items():
                if weight != "__metadata__":
                    matrix = len(entry["shape"]) > 1 and SPLIT.search(weight) and weight.endswith("weight")
                    start, end = entry["data_offsets"]
                    total += (end - start) // (plan.mesh.tensor if matrix else 1) // shards
    return total


def memory(name: str = "status", what: str = "RssAnon") -> float:
    """MiB of this process by the kernel's count."""
    found = re.search(rf"^{what}:\s+(\d+)", Path("/proc/self", name).read_text(), re.MULTILINE)
    assert found
    return int(found[1]) / 1024


class Peak(threading.Thread):
    """The highest memory of this process since it was started, looked at every 2 ms."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.mib, self.done = memory(), threading.Event()
        self.start()

    def run(self) -> None:
        while not self.done.wait(0.002):
            self.mib = max(self.mib, memory())


def rank(plan: Plan) -> dict[str, float]:
    """Load as a rank, and say what that took."""
    import torch

    from runtime import compat
    from runtime.pipeline import apply, load, mesh

    torch.set_num_threads(1)
    compat.cache_dit.import_for_forks({plan.model.pipeline})
    import torch.distributed.fsdp

    number = int(os.environ.get("RANK", "0"))
    device_mesh = mesh.build(plan, number, 300)
    load.pipeline(replace(tiny(), hsdp=None))  # what is imported when first used
    disk = _disk()
    peak, started, used = Peak(), time.perf_counter(), time.thread_time()
    pipe = load.pipeline(plan)
    handles = apply.apply(pipe, plan, device_mesh)
    seconds, cpu = time.perf_counter() - started, time.thread_time() - used
    peak.done.set()
    peak.join()
    read = sum(handle.measure().get("bytes_read", 0) for handle in handles.values())
    disk = _disk() - disk
    whole = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    for weight in (weight for part in whole for weight in part.parameters()):
        local = getattr(weight.data, "_local_tensor", weight.data)
        local.flatten()[:: 4096 // local.element_size()].sum()  # every page, as a step would
    mapped = memory("smaps_rollup", "Pss_File")
    found = {"peak": peak.mib, "read": read / 2**20, "disk": disk, "mapped": mapped}
    return found | {"seconds": seconds, "cpu": cpu}


def alone(folder: str) -> dict[str, float]:
    """diffusers alone: load, and copy each weight."""
    import diffusers
    import torch
    from diffusers import ZImagePipeline

    diffusers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    ZImagePipeline.from_pretrained(str(FOLDERS["tiny"]), dtype=torch.float32)
    started, used = time.perf_counter(), time.thread_time()
    pipe = ZImagePipeline.from_pretrained(folder, dtype=torch.bfloat16)
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            for weight in part.parameters():
                weight.data = weight.data.clone()
    return {"seconds": time.perf_counter() - started, "cpu": time.thread_time() - used}


def _disk() -> float:
    found = re.search(r"^read_bytes: (\d+)", Path("/proc/self/io").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) / 2**20


def run(plan: Plan, what: str) -> list[dict[str, float]]:
    """What each rank says."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "plan.json")
        file.write_text(json.dumps(plan.to_dict()))
        line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
        line += [f"--nproc-per-node={plan.mesh.world_size}", __file__, what, str(file), folder]
        environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(line, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        return [json.loads(Path(folder, f"{number}.json").read_text()) for number in range(plan.mesh.world_size)]


def forget(folder: Path) -> None:
    """Take the files out of the page cache."""
    for path in folder.rglob("*.safetensors"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        subprocess.run([sys.executable, __file__, "build", temporary], check=True)
        stored = sum(path.stat().st_size for path in folder.rglob("*.safetensors")) / 2**20
        model = Model("big", temporary, "ZImagePipeline", "text_to_image", "bfloat16")
        plans = {name: tiny(model=model, **changes) for name, changes in PLANS.items()}
        run(tiny(model=model), "alone")  # everything is in the page cache from here on
        print(f"{stored:.0f} MiB of weights; memory in MiB\n")
        print("| plan | share | own memory | over the share | read | from disk | mapped | load | of diffusers | CPU |")
        print("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|", flush=True)
        for name, plan in plans.items():
            needs = tiny(**PLANS[name] | ({"mesh": Mesh(tensor=2)} if plan.mesh.tensor == 4 else {}))
            libraries = max(one["peak"] for one in run(needs, "rank"))
            forget(folder)
            cold = run(plan, "rank")
            pairs = [(run(tiny(model=model), "alone")[0], run(plan, "rank")) for _ in range(REPEATS)]
            ratios = {
                of: [max(one[of] for one in ours) / base[of] for base, ours in pairs] for of in ("seconds", "cpu")
            }
            took = statistics.median(max(one["seconds"] for one in ours) for _, ours in pairs)
            peak = max(one["peak"] for _, ours in pairs for one in ours) - libraries
            part = share(folder, plan) / 2**20
            print(
                f"| {name} | {part:.0f} | {peak:.0f} | {f'{peak / part - 1:+.1%}' if part else ''} "
                f"| {max(one['read'] for one in cold):.0f} | {sum(one['disk'] for one in cold):.0f} in all "
                f"| {sum(one['mapped'] for one in cold):.0f} in all | {took:.2f} s "
                f"| {spread(ratios['seconds'])} | {spread(ratios['cpu'])} |",
                flush=True,
            )


def spread(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


if __name__ == "__main__":
    if sys.argv[1:2] == ["build"]:
        build(Path(sys.argv[2]))
    elif sys.argv[1:]:
        what, file, folder = sys.argv[1:]
        plan = Plan.from_json(Path(file).read_bytes())
        told = rank(plan) if what == "rank" else alone(plan.model.source)
        Path(folder, f"{os.environ['RANK']}.json").write_text(json.dumps(told))
        os._exit(0)
    else:
        main()
