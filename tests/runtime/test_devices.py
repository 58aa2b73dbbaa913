"""GPUs are counted by the tools of their makers, as a process that is started here would see them."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.launcher.devices import gpu_count, share_of_gpus

TOOLS = {
    "nvidia-smi": "NVIDIA L40S, 46068 MiB\nNVIDIA L40S, 46068 MiB",
    "rocm-smi": "GPU[0]: Device ID: 0x74a1\nGPU[0]: GUID: 1\nGPU[1]: Device ID: 0x74a1\nGPU[2]: Device ID: 0x74a1",
}


def tool(folder: Path, name: str, said: str, status: int = 0) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\ncat <<END\n{said}\nEND\nexit {status}\n")
    path.chmod(0o755)


@pytest.fixture(autouse=True)
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    tool(tmp_path, "nvidia-smi", "", status=9)
    tool(tmp_path, "rocm-smi", "", status=1)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "variable", "count"), [("nvidia-smi", "CUDA_VISIBLE_DEVICES", 2), ("rocm-smi", "HIP_VISIBLE_DEVICES", 3)]
)
def test_gpus_are_those_that_are_visible(
    tools: Path, monkeypatch: pytest.MonkeyPatch, name: str, variable: str, count: int
) -> None:
    tool(tools, name, TOOLS[name])
    assert gpu_count() == count
    for visible, seen in (("1", 1), ("-1", 0), ("", 0), ("0,1,2,3", count)):
        monkeypatch.setenv(variable, visible)
        assert gpu_count() == seen


@pytest.mark.parametrize(
    ("name", "variable"), [("nvidia-smi", "CUDA_VISIBLE_DEVICES"), ("rocm-smi", "HIP_VISIBLE_DEVICES")]
)
def test_each_replica_sees_gpus_of_its_own(
    tools: Path, monkeypatch: pytest.MonkeyPatch, name: str, variable: str
) -> None:
    assert share_of_gpus(1, 2) == {}
    tool(tools, name, TOOLS[name])
    assert [share_of_gpus(replica, 1) for replica in range(2)] == [{variable: "0"}, {variable: "1"}]
    monkeypatch.setenv(variable, "GPU-a, GPU-b,GPU-c,GPU-d")
    assert [share_of_gpus(replica, 2) for replica in range(2)] == [{variable: "GPU-a,GPU-b"}, {variable: "GPU-c,GPU-d"}]


def test_a_tool_that_fails_counts_nothing() -> None:
    assert gpu_count() == 0
