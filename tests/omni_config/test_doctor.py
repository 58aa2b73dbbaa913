"""``omni doctor`` on recorded outputs: GPUs and links are read, and a link that makes a degree a bad idea is named."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

from typer.testing import CliRunner

from omni_config.cli import app
from omni_config.doctor.devices import Device, devices
from omni_config.doctor.diagnosis import diagnose
from omni_config.doctor.machine import TESTED, Machine
from omni_config.estimate.topology import links
from omni_config.plan import Mesh

PCIE = """\
\tGPU0\tGPU1\tGPU2\tGPU3\tNIC0\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID
GPU0\t X \tPIX\tSYS\tSYS\tNODE\t0-31\t0\t\tN/A
GPU1\tPIX\t X \tSYS\tSYS\tNODE\t0-31\t0\t\tN/A
GPU2\tSYS\tSYS\t X \tPIX\tSYS\t32-63\t1\t\tN/A
GPU3\tSYS\tSYS\tPIX\t X \tSYS\t32-63\t1\t\tN/A
NIC0\tNODE\tNODE\tSYS\tSYS\t X \t\t\t\t

Legend:

  X    = Self
"""
NVLINK = "\t\x1b[4mGPU0\tGPU1\tCPU Affinity\x1b[0m\nGPU0\t X \tNV18\t0-51\nGPU1\tNV18\t X \t0-51\n"
L40S = "NVIDIA L40S, 46068 MiB\n" * 4


def machine(topology: str, gpus: str) -> Machine:
    found = tuple(devices(gpus))
    return Machine("3.12", "Linux", 64, 512.0, found, links(topology), ("nccl", "gloo"), dict(TESTED), {})


def test_gpus_and_links_are_read() -> None:
    assert devices(L40S)[0] == Device("NVIDIA L40S", 45.0)
    assert links(PCIE) == {(0, 1): "PIX", (0, 2): "SYS", (0, 3): "SYS", (1, 2): "SYS", (1, 3): "SYS", (2, 3): "PIX"}
    assert links(NVLINK) == {(0, 1): "NV18"}
    assert links("") == {}


def test_a_degree_across_a_slow_link_is_named() -> None:
    here = machine(PCIE, L40S)
    (note,) = [note for note in diagnose(here, Mesh(ulysses=4)) if note.level == "warning"]
    assert "ulysses 4 crosses the link between CPUs (SYS) between GPU0 and GPU2" in note.text
    assert not [note for note in diagnose(here, Mesh(cfg=2, ulysses=2)) if note.level != "fine"]
    assert not [note for note in diagnose(machine(NVLINK, L40S), Mesh(tensor=2)) if note.level != "fine"]


def test_what_does_not_fit_or_is_not_there_is_a_problem() -> None:
    here = machine(PCIE, L40S)
    assert diagnose(here, Mesh(ulysses=8))[0].text == "the plan needs 8 GPUs and there are 4"
    assert diagnose(here, Mesh(), gib=58.5)[0].text == "about 58.5 GiB are needed and a GPU has 45.0"
    assert diagnose(replace(here, backends=("gloo",)))[0].level == "problem"
    other = replace(here, versions=here.versions | {"diffusers": "0.30.0", "torch": "2.13.0+cu128", "cache-dit": None})
    texts = [note.text for note in diagnose(other) if note.level == "warning"]
    assert texts == ["diffusers 0.30.0 is not the version that is tested", "cache-dit is not installed"]


def test_the_tested_versions_are_those_of_the_constraints() -> None:
    pinned = dict(re.findall(r"^(\S+)==(\S+)$", Path("constraints.txt").read_text(), re.MULTILINE))
    assert {name: pinned[name] for name in TESTED} == TESTED


def test_the_report_can_be_read_by_programs(monkeypatch) -> None:
    monkeypatch.setattr("omni_config.cli.doctor.this_machine", lambda: machine(PCIE, L40S))
    result = CliRunner().invoke(app(["doctor"]), ["doctor", "examples/quickstart.yaml", "--json"])
    found = json.loads(result.stdout)
    assert len(found["machine"]["gpus"]) == 4
    assert {"gpus": [0, 2], "link": "SYS"} in found["machine"]["links"]
    assert result.exit_code == 0
