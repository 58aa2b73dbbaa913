"""What is on this machine, as read from its own tools; nothing here imports torch."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from omni_config.doctor.bytecode import FOLDER, PREVENTED, own_folder
from omni_config.doctor.devices import Device, devices
from omni_config.estimate.topology import links

#: Variables that say how runs go here.
_SHOWN = ("NCCL_", "CUDA_VISIBLE", "GLOO_", "OMP_", PREVENTED, FOLDER)
#: Versions that the runtime is tested with (constraints.txt; a test compares).
TESTED = {"torch": "2.13.0", "diffusers": "0.42.1", "cache-dit": "1.5.3", "transformers": "5.23.0"}


@dataclass(frozen=True)
class Machine:
    """A machine: ``links`` by pair of GPUs, versions of packages (None: not installed), what is in the environment."""

    python: str
    system: str
    cpus: int
    memory_gib: float | None
    gpus: tuple[Device, ...]
    links: dict[tuple[int, int], str]
    backends: tuple[str, ...]
    versions: dict[str, str | None]
    environment: dict[str, str]
    bytecode_folder: str | None = None
    """Where runs keep the bytecode of libraries whose own folders cannot be written to; None where they can."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        pairs = [{"gpus": list(pair), "link": link} for pair, link in self.links.items()]
        return asdict(self) | {"links": pairs}


def this_machine() -> Machine:
    """Look at this machine. A tool that is missing or fails means that there is nothing of its kind."""
    found = nvidia_gpus()
    return Machine(
        python=platform.python_version(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_gib=_memory(),
        gpus=tuple(found),
        links=links(output("nvidia-smi", "topo", "-m")) if found else {},
        backends=_backends(),
        versions={name: _version(name) for name in TESTED},
        environment={name: value for name, value in os.environ.items() if name.startswith(_SHOWN)},
        bytecode_folder=_bytecode_folder(),
    )


def _bytecode_folder() -> str | None:
    folder = own_folder(os.environ)
    return None if folder is None else str(folder)


def nvidia_gpus() -> list[Device]:
    """The NVIDIA GPUs of this machine, whatever CUDA_VISIBLE_DEVICES says."""
    return devices(output("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"))


def output(*command: str) -> str:
    """What a tool prints; nothing where it is missing or fails."""
    if shutil.which(command[0]) is None:
        return ""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _backends() -> tuple[str, ...]:
    """Backends of torch.distributed, asked in a process of its own as importing torch takes seconds."""
    import sys

    if _version("torch") is None:
        return ()
    code = (
        "import torch.distributed as d;"
        "print(*[n for n in ('nccl','gloo','mpi') if d.is_available() and getattr(d, f'is_{n}_available')()])"
    )
    return tuple(output(sys.executable, "-c", code).split())


def _memory() -> float | None:
    try:
        fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        return round(int(fields["MemTotal"].split()[0]) / 2**20, 1)
    except (OSError, KeyError, ValueError):
        return None
