"""Runs on several machines: two network namespaces joined by a cable, which is pulled out in the middle."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cases import tiny
from network import Machines
from test_faults import SECONDS, omni_launch, wait_for

from omni_config.plan import Mesh
from runtime import LaunchError, Machine
from runtime.launcher import peers
from runtime.launcher.peers import Peers

Start = Callable[..., list[subprocess.Popen[str]]]


@pytest.fixture
def machines() -> Iterator[Machines | None]:
    """Two machines; None, for two launchers on this one, where this system allows no namespaces."""
    try:
        machines = Machines().__enter__()
    except OSError:
        yield None
        return
    yield machines
    machines.__exit__(None, None, None)


@pytest.fixture
def start(tmp_path: Path, run_folders: Path, machines: Machines | None) -> Iterator[Start]:
    """Start ``omni launch`` on both machines, one rank on each; ``hooks`` are those of hooked_worker.py."""

    started: list[subprocess.Popen[str]] = []

    def run(**hooks: object) -> list[subprocess.Popen[str]]:
        endpoint = f"{machines.addresses[0]}:29500" if machines else f"127.0.0.1:{free_port()}"
        environment = os.environ | {"OMNI_TEST_HOOKS": json.dumps({"latents": str(tmp_path), "light": True, **hooks})}
        line = omni_launch(run_folders, tmp_path / "outputs")
        line += ["--usp", "1", "--ring", "2", "--gpus-per-node", "1", "--rdzv-endpoint", endpoint, "--nnodes", "2"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
        for rank in (1, 0):  # the first node may come last
            here = machines.on(rank) if machines else []
            started.insert(0, subprocess.Popen([*here, *line, "--node-rank", str(rank)], **pipes))
        return started

    yield run
    for launcher in started:
        launcher.kill()
        launcher.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def ends(launchers: list[subprocess.Popen[str]], seconds: float) -> list[str]:
    end = time.monotonic() + seconds
    return [launcher.communicate(timeout=end - time.monotonic())[1].strip() for launcher in launchers]


def test_a_run_on_two_machines(start: Start, tmp_path: Path, processes) -> None:
    launchers = start()
    assert ends(launchers, 120) == ["", ""]
    assert [launcher.returncode for launcher in launchers] == [0, 0]
    report = json.loads((tmp_path / "outputs" / "report.json").read_text())
    assert report["plan"]["mesh"] == {"cfg": 1, "ring": 2, "ulysses": 1, "tensor": 1, "nodes": 2}
    assert min(report["peak_memory"]) > 50
    assert len(report["peak_memory"]) == 2
    assert sorted(path.name for path in (tmp_path / "outputs").iterdir()) == ["noise.png", "report.json"]
    assert processes() == []


def test_a_rank_of_another_machine_that_is_killed(start: Start, tmp_path: Path, processes) -> None:
    launchers = start(fault=["kill", 1, 3])
    wait_for((tmp_path / "fault").exists, 120)
    first, second = ends(launchers, SECONDS)
    killed = "rank 1 was killed by SIGKILL while denoising, step 2 of 20; the system may be out of memory, see dmesg"
    assert second.startswith(f"omni launch: {killed} (log: ")
    assert first.startswith(f"omni launch: node 1: {killed} (log: ")
    assert [launcher.returncode for launcher in launchers] == [1, 1]
    assert processes() == []
    assert not (tmp_path / "outputs").exists()


def test_a_machine_that_is_cut_off(start: Start, machines: Machines | None, tmp_path: Path, processes) -> None:
    if machines is None:
        pytest.skip("this system lets nobody have a network namespace of their own")
    launchers = start(fault=["hang", 1, 3])
    wait_for((tmp_path / "fault").exists, 120)
    machines.cut(1)
    lost = "omni launch: node {} has not been heard for 8 s: it or its network is down"
    assert ends(launchers, SECONDS) == [lost.format(1), lost.format(0)]
    assert [launcher.returncode for launcher in launchers] == [1, 1]
    assert processes() == []


def nodes(count: int, port: int) -> list[Peers]:
    return [Peers(Machine(count, rank, "127.0.0.1", port), "a plan") for rank in range(count)]


def talk(*everyone: Peers, seconds: float = 1.2) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for node in everyone:
            node.listen()
        time.sleep(0.02)


def test_nodes_that_are_done() -> None:
    first, second, third = nodes(3, free_port())
    talk(first, second, third)
    assert not second.done([2.0])
    assert not third.done([3.0])
    talk(first, second, third)
    assert not second.done([2.0])  # while node 0 is not
    assert first.done([1.0])
    assert first.peak_memory() == [2.0, 3.0]
    first.close()
    third.listen()
    assert third.done([3.0])


def test_a_node_that_fails() -> None:
    first, second, third = nodes(3, free_port())
    talk(first, second, third)
    third.close("rank 5 is made of cheese")
    with pytest.raises(LaunchError, match="node 2: rank 5 is made of cheese"):
        first.wait_for_cause()
    first.close("node 2: rank 5 is made of cheese")
    with pytest.raises(LaunchError, match="node 2: rank 5 is made of cheese"):
        second.listen()


def test_a_node_with_another_plan() -> None:
    node = Machine(2, 1, "::1", free_port())
    plan = tiny(mesh=Mesh(ring=2, nodes=2))
    with peers.peers_of(replace(node, node_rank=0), plan) as first:
        Peers(node, "another").listen()
        with pytest.raises(LaunchError, match="node 1 runs another plan or other versions; next: give every node the"):
            first.meet(5)


def test_a_node_of_an_earlier_run() -> None:
    port = free_port()
    first, second = nodes(2, port)
    talk(first, second)
    first._socket.close()  # as when it is killed
    again = nodes(1, port)[0]
    with pytest.raises(LaunchError, match="node 0 has started again"):
        talk(second, again, seconds=5)


def test_nodes_that_do_not_come() -> None:
    port = free_port()
    with pytest.raises(LaunchError, match=rf"node 1 and 2 did not come to 127.0.0.1:{port} within 0.2 s; next: start"):
        nodes(3, port)[0].meet(0.2)
    with pytest.raises(LaunchError, match=r"no\.such\.host does not resolve here"):
        Peers(Machine(2, 0, "no.such.host", port), "")


def test_a_port_that_is_taken() -> None:
    with socket.socket() as server:
        server.bind(("", 0))
        server.listen()
        taken = server.getsockname()[1]
        with pytest.raises(LaunchError, match=f"port {taken} is taken on this machine; next: choose another one"):
            nodes(1, taken)
