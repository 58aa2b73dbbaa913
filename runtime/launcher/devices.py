"""What this machine has, found out without importing torch."""

from __future__ import annotations

import os
import subprocess


def gpu_count() -> int:
    """GPUs that a process started here would see; 0 on a machine without, where ranks run on the CPU.

    Asks ``nvidia-smi`` or ``rocm-smi``, and honours CUDA_VISIBLE_DEVICES and HIP_VISIBLE_DEVICES.
    """
    for variable, query, mark in (
        ("CUDA_VISIBLE_DEVICES", ["nvidia-smi", "--list-gpus"], "GPU "),
        ("HIP_VISIBLE_DEVICES", ["rocm-smi", "--showid"], "GPU["),
    ):
        try:
            listed = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True).stdout
        except (OSError, subprocess.SubprocessError):
            continue
        found = len({line.split(":")[0] for line in listed.splitlines() if line.startswith(mark)})
        visible = os.environ.get(variable)
        if visible is not None:
            found = min(found, len([name for name in visible.split(",") if name.strip() not in ("", "-1")]))
        if found:
            return found
    return 0
