"""What this machine has, found out without importing torch."""

from __future__ import annotations

import os

from omni_config.doctor.machine import nvidia_gpus, output


def gpu_count() -> int:
    """GPUs that a process started here would see; 0 on a machine without, where ranks run on the CPU.

    Asks ``nvidia-smi`` or ``rocm-smi``, and honours CUDA_VISIBLE_DEVICES and HIP_VISIBLE_DEVICES.
    """
    for variable, found in (("CUDA_VISIBLE_DEVICES", len(nvidia_gpus())), ("HIP_VISIBLE_DEVICES", _amd_gpus())):
        visible = os.environ.get(variable)
        if visible is not None:
            found = min(found, len([name for name in visible.split(",") if name.strip() not in ("", "-1")]))
        if found:
            return found
    return 0


def share_of_gpus(replica: int, ranks: int) -> dict[str, str]:
    """The environment in which a replica of so many ranks sees its own GPUs only; empty on a machine without."""
    if not gpu_count():
        return {}
    variable = "HIP_VISIBLE_DEVICES" if _amd_gpus() and not nvidia_gpus() else "CUDA_VISIBLE_DEVICES"
    visible = os.environ.get(variable)
    own = range(replica * ranks, (replica + 1) * ranks)
    if visible is None:
        return {variable: ",".join(map(str, own))}
    names = [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1")]
    return {variable: ",".join(names[own.start : own.stop])}


def _amd_gpus() -> int:
    lines = output("rocm-smi", "--showid").splitlines()
    return len({line.split(":")[0] for line in lines if line.startswith("GPU[")})
