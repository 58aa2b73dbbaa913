"""Reads what ``nvidia-smi`` prints: the GPUs, and how each pair of them is connected."""

from __future__ import annotations

import re
from dataclasses import dataclass

#: Kinds of connection in ``nvidia-smi topo -m``, from the fastest, in NVIDIA's words.
LINKS = {
    "NV": "NVLink",
    "PIX": "one PCIe bridge",
    "PXB": "several PCIe bridges",
    "PHB": "the CPU's PCIe host bridge",
    "NODE": "PCIe host bridges of one NUMA node",
    "SYS": "the link between CPUs",
}
SLOW = ("PHB", "NODE", "SYS")


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


def links(text: str) -> dict[tuple[int, int], str]:
    """The kind of link of each pair of GPUs, from ``nvidia-smi topo -m``: NV12, PIX, PXB, PHB, NODE or SYS."""
    rows = [line.split() for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()]
    named = [[cell for cell in cells if re.fullmatch(r"GPU\d+", cell)] for cells in rows]
    count = max(map(len, named), default=0)  # the heading names each GPU; behind them stand network cards
    return {
        (int(cells[0][3:]), column): cell
        for cells in rows
        if cells and re.fullmatch(r"GPU\d+", cells[0]) and "X" in cells
        for column, cell in enumerate(cells[1 : count + 1])
        if cell != "X" and int(cells[0][3:]) < column
    }


def kind(link: str) -> str:
    """``NV12`` as NV; the others as they are."""
    return "NV" if link.startswith("NV") else link
