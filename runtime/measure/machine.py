"""Measures a machine: rates at the shapes of models, collectives by size, and what calling a block takes.

One run of torchrun measures the rates. What calling takes is seen in launches of the embedded model at its smallest,
alone and over two ranks of each axis: of a step of theirs, what the rates do not explain is the calls'.
"""

from __future__ import annotations

import json
import os
import platform
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from omni_config.doctor.machine import output
from omni_config.estimate.data import gpus
from omni_config.estimate.machine import CALLED, Machine, gpu_of
from omni_config.estimate.topology import Topology
from omni_config.mesh import Mesh
from omni_config.plan import Plan
from omni_config.planner.fit import step_seconds
from omni_config.planner.runs import quantities_of
from runtime.events import Progress, Rank
from runtime.launcher import torchrun
from runtime.launcher.launch import launch
from runtime.report import versions

OnProgress = Callable[[str, int, int], None]
_AXES = {"ulysses": Mesh(ulysses=2), "ring": Mesh(ring=2), "tensor": Mesh(tensor=2)}
_GIB = 2**30


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a model's blocks."""

    hidden: int
    ffn: int
    heads: int
    head_size: int


def measure(
    ranks: int,
    shapes: Sequence[Shape],
    embedded: Plan,
    *,
    tokens: Iterable[int] = (64, 256, 1024, 4096),
    seconds: float = 40.0,
    timeout: float = 120.0,
    on_progress: OnProgress | None = None,
) -> Machine:
    """The rates of this machine, with so many ranks on it, all of which compute at once.

    ``tokens`` are the sizes of matrix products and of attention, and ``seconds`` bound what is spent on rates.
    ``embedded`` is a Plan of an embedded model on one rank, small and without guidance, that shows what calling takes.
    ``timeout`` bounds the seconds without progress.

    Raises:
        LaunchError: a run failed.
    """
    show = on_progress or (lambda *_: None)
    dtype = "bfloat16" if output("nvidia-smi", "-L") else "float32"
    asked = {"shapes": [asdict(one) for one in shapes], "tokens": list(tokens), "seconds": seconds, "dtype": dtype}
    found = _rates(ranks, asked, timeout, lambda progress: show("rates", progress.step, progress.steps))
    machine = _machine(found, ranks)
    called = {"alone": embedded}
    if machine.device == "cpu" and ranks > 1:  # a GPU computes while it is called, whatever a block is split over
        called |= {name: replace(embedded, mesh=mesh) for name, mesh in _AXES.items()}
    block: dict[str, float] = {}
    for done, (name, plan) in enumerate(called.items()):
        show("calls", done, len(called))
        with tempfile.TemporaryDirectory(prefix="omni-machine-") as folder:
            report = launch(replace(plan, output=folder), timeout=timeout)
        block[name] = _of_a_call(plan, name, report.step_seconds, machine)
    return _with_block(machine, block)


def _with_block(machine: Machine, block: Mapping[str, float]) -> Machine:
    return Machine.model_validate(machine.model_dump(exclude_defaults=True) | {"block": block})


def _rates(
    ranks: int, asked: Mapping[str, Any], timeout: float, show: Callable[[Progress], None]
) -> list[dict[str, Any]]:
    """What each rank has measured."""
    with torchrun.run_folder() as folder:
        (folder / "machine.json").write_text(json.dumps(asked), encoding="utf-8")
        followed = [Rank(folder, rank) for rank in range(ranks)]

        def on_progress(rank: Rank, progress: Progress) -> None:
            if rank is followed[0]:
                show(progress)

        line = torchrun.command(ranks, "machine", [str(folder)])
        torchrun.run(line, folder, followed, timeout=timeout, log=folder / torchrun.LOG, on_progress=on_progress)
    return [rank.result for rank in followed if rank.result is not None]


def _machine(found: Sequence[Mapping[str, Any]], ranks: int) -> Machine:
    """The file of what ranks have measured; of each number, the median of the ranks."""
    device = found[0]["device"]
    sections = {
        name: [_median(items) for items in zip(*(of_rank["measured"][name] for of_rank in found), strict=True)]
        for name in found[0]["measured"]
    }
    collectives: dict[tuple[str, int], dict[str, Any]] = {}
    for one in sections.get("collectives", []):
        kept = collectives.setdefault((one["kind"], one["ranks"]), one | {"bytes": [], "seconds": []})
        kept["bytes"].append(one["bytes"])
        kept["seconds"].append(one["seconds"])
    on_gpu = device["type"] == "gpu"
    table = output("nvidia-smi", "topo", "-m") if on_gpu and ranks > 1 else ""
    values: dict[str, Any] = {
        "version": 1,
        "name": f"{ranks} x {device['name']}" if on_gpu else f"{ranks} ranks of {_processor()}",
        "made": {
            "date": datetime.now(UTC).date().isoformat(),
            "by": "omni calibrate machine",
            "versions": versions(),
            "threads": found[0]["threads"],
        },
        "device": device["type"],
        "gpu": _known(device) if on_gpu else None,
        "processors": None if on_gpu else len(os.sched_getaffinity(0)) // found[0]["threads"] or 1,
        "memory": round(device["memory"], 1) if on_gpu else round(_memory() / ranks, 1),
        "gpus_per_node": ranks if on_gpu else None,
        "matmul": sections["matmul"],
        "attention": sections["attention"],
        "norm": sections["norm"],
        "links": _links(sections.get("pairs", []), table, on_gpu),
        "collectives": list(collectives.values()),
        "host": sections["host"][0]["bandwidth"] if "host" in sections else None,
        "decode": sections["decode"][0]["tflops"],
        "topology": table or None,
    }
    return Machine.model_validate({name: value for name, value in values.items() if value is not None})


def _median(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One item of several ranks': sizes are the same, and of rates the median."""
    rates = ("tflops", "bandwidth", "seconds")
    return {
        name: _short(median(item[name] for item in items)) if name in rates else value
        for name, value in items[0].items()
    }


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def _links(pairs: Sequence[Mapping[str, Any]], table: str, on_gpu: bool) -> dict[str, float]:
    """GB a second by class of link; without a table of them, all links are one class."""
    by_class: dict[str, list[float]] = {}
    known = Topology.of(table).by_pair if table else {}
    for one in pairs:
        name = known.get((one["ranks"][0], one["ranks"][1]), "nvlink") if on_gpu else "memory"
        by_class.setdefault(name, []).append(one["bandwidth"])
    return {name: _short(median(found)) for name, found in by_class.items()}


def _known(device: Mapping[str, Any]) -> str | None:
    """The datasheet of a GPU by the name that its driver gives, and its memory; None where none or several fit."""
    words = re.split(r"[\s-]+", device["name"].upper())
    fitting = [
        gpu.id
        for gpu in gpus().values()
        if (gpu.id.split("-")[1] if gpu.id.startswith("rtx") else gpu.id.split("-")[0]).upper() in words
        and abs(gpu.memory / device["memory"] - 1) < 0.1
    ]
    return fitting[0] if len(fitting) == 1 else None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def _memory() -> float:
    """GiB of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GIB


def _of_a_call(plan: Plan, axis: str, step: float, machine: Machine) -> float:
    """Seconds of calling a block: what the rates leave of a plan's step, shared out over its blocks.

    At least a tenth of the step, as rates at such small shapes are uncertain.
    """
    q = quantities_of(plan)
    assert q is not None
    explained = step_seconds(q, gpu_of(_with_block(machine, {"alone": CALLED, axis: CALLED})))
    return _short(max(step - explained, step / 10) / q["work"].calls)
