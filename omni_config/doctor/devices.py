"""Reads what ``nvidia-smi`` says of GPUs; how they are connected is in estimate/topology.py."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Device:
    """One GPU: its name, and its memory in GiB."""

    name: str
    gib: float


def devices(text: str) -> list[Device]:
    """GPUs from ``nvidia-smi --query-gpu=name,memory.total --format=csv,noheader``."""
    found = []
    for line in text.splitlines():
        match = re.fullmatch(r"\s*(.+?),\s*(\d+)\s*MiB\s*", line)
        if match:
            found.append(Device(match[1], round(int(match[2]) / 1024, 1)))
    return found
