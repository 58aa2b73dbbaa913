"""What a machine means: for the runtime at all, and for one Plan."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from omni_config.doctor.bytecode import PREVENTED
from omni_config.doctor.machine import TESTED, Machine
from omni_config.estimate.topology import LINKS, SLOW, kind
from omni_config.mesh import NAMES, Mesh


@dataclass(frozen=True)
class Note:
    """One thing to know, with the next step."""

    level: Literal["problem", "warning", "fine"]
    text: str
    next: str = ""


def diagnose(machine: Machine, mesh: Mesh | None = None, gib: float | None = None) -> list[Note]:
    """Notes about a machine, and about a plan's mesh and its estimated GiB a GPU on it; the worst first."""
    notes = [*_versions(machine), *_backends(machine), *_bytecode(machine)]
    if mesh is not None:
        notes += _plan(machine, mesh, gib)
    order = ("problem", "warning", "fine")
    return sorted(notes, key=lambda note: order.index(note.level))


def _versions(machine: Machine) -> list[Note]:
    notes = []
    for name, tested in TESTED.items():
        have = machine.versions.get(name)
        if have is None:
            notes.append(Note("warning", f"{name} is not installed", "pip install 'omni-config[runtime]'"))
        elif have.split("+")[0] != tested:
            notes.append(Note("warning", f"{name} {have} is not the version that is tested", f"use {name} {tested}"))
        else:
            notes.append(Note("fine", f"{name} {have} is the version that is tested"))
    return notes


def _backends(machine: Machine) -> list[Note]:
    if machine.gpus and len(machine.gpus) > 1 and machine.versions.get("torch") and "nccl" not in machine.backends:
        return [
            Note("problem", "torch has no NCCL, so GPUs cannot talk to each other", "install a CUDA build of torch")
        ]
    if not machine.gpus:
        return [Note("warning", "no GPU is seen, so ranks are CPU processes (gloo)", "look at nvidia-smi")]
    return []


def _bytecode(machine: Machine) -> list[Note]:
    notes = []
    if machine.environment.get(PREVENTED):
        notes.append(
            Note(
                "warning",
                f"{PREVENTED} is set, so Python compiles torch and diffusers at each start, 11 s of CPU; omni's own "
                "runs start without it",
                f"unset {PREVENTED}",
            )
        )
    if machine.bytecode_folder is not None:
        text = f"the libraries' folders cannot be written to, so runs keep bytecode in {machine.bytecode_folder}"
        notes.append(Note("fine", text))
    return notes


def _plan(machine: Machine, mesh: Mesh, gib: float | None) -> list[Note]:
    ranks, count = mesh.world_size, len(machine.gpus)
    if not count:
        return []
    if ranks > count:
        return [Note("problem", f"the plan needs {ranks} GPUs and there are {count}", "lower the degrees")]
    notes = []
    smallest = min(device.gib for device in machine.gpus[:ranks])
    if gib is not None and gib > smallest:
        notes.append(
            Note(
                "problem",
                f"about {gib:.1f} GiB are needed and a GPU has {smallest:.1f}",
                "omni suggest finds what fits",
            )
        )
    for axis in NAMES:
        worst = _slowest(machine, mesh, axis)
        if worst:
            pair, link = worst
            notes.append(
                Note(
                    "warning",
                    f"{axis} {getattr(mesh, axis)} crosses {LINKS[kind(link)]} ({link}) between GPU{pair[0]} and "
                    f"GPU{pair[1]}, which makes it a bad idea",
                    f"keep {axis} inside of GPUs that NVLink or one PCIe bridge connects, or use CFG-parallel across",
                )
            )
    return notes or [Note("fine", "the plan's ranks are well connected")]


def _slowest(machine: Machine, mesh: Mesh, axis: str) -> tuple[tuple[int, int], str] | None:
    """The slowest link that an axis uses, if it is a slow one; CFG moves too little to matter."""
    if axis == "cfg" or getattr(mesh, axis) == 1:
        return None
    found = []
    for one, other in combinations(range(mesh.world_size), 2):
        a, b = mesh.coordinates(one), mesh.coordinates(other)
        if all(a[name] == b[name] for name in NAMES if name != axis):
            link = machine.links.get((one, other))
            if link and kind(link) in SLOW:
                found.append(((one, other), link))
    return max(found, key=lambda item: SLOW.index(kind(item[1])), default=None)
