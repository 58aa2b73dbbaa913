"""Starts torchrun, follows its ranks, and ends every process: what every kind of run shares."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from getpass import getuser
from pathlib import Path
from types import FrameType

from omni_config.doctor.bytecode import with_bytecode
from runtime.events import Progress, Rank
from runtime.launcher.failures import LaunchError, failure, hang
from runtime.launcher.machine import Machine, interface_to
from runtime.launcher.peers import ALONE, Peers

LOG = "torchrun.log"
WORKER = Path(__file__).parents[1] / "ranks" / "__main__.py"
_POLL = 0.05  # seconds between two looks at the ranks
_GRACE = 4.0  # seconds that torchrun gets, after a rank has failed, to say how the others ended


def command(
    world_size: int,
    job: str,
    arguments: Sequence[str],
    machine: Machine | None = None,
    *,
    worker: Path = WORKER,
) -> list[str]:
    """The torchrun command that starts a job on each rank, or on each that this machine holds.

    It works from any working directory: ``-P`` keeps the folders there from shadowing ours.
    """
    python = [sys.executable, "-P"]
    torchrun = [*python, "-m", "torch.distributed.run"]
    if machine is None:
        torchrun += ["--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", str(world_size)]
    else:
        # Not the backend c10d, which numbers the nodes as they come.
        torchrun += ["--nnodes", str(machine.nnodes), "--node-rank", str(machine.node_rank), "--rdzv-backend", "static"]
        torchrun += ["--rdzv-endpoint", f"{machine.host}:{machine.port}"]
        torchrun += ["--nproc-per-node", str(len(machine.ranks(world_size)))]
    return [*torchrun, "--no-python", *python, "-u", str(worker), job, *arguments]


@contextmanager
def run_folder(*, signals: bool = True) -> Iterator[Path]:
    """A temporary folder for a run; it is kept if the run fails and its log is there.

    With ``signals``, SIGTERM and SIGHUP raise SystemExit meanwhile, so that what the run started is ended.
    """
    folder = Path(tempfile.mkdtemp(prefix="omni-run-"))
    keep = False
    with _signals_raise() if signals else nullcontext():
        try:
            yield folder
        except LaunchError:
            keep = (folder / LOG).exists()
            raise
        finally:
            if not keep:
                shutil.rmtree(folder, ignore_errors=True)


def run(
    line: Sequence[str],
    folder: Path,
    ranks: Sequence[Rank],
    *,
    timeout: float,
    log: Path,
    on_progress: Callable[[Rank, Progress], None],
    peers: Peers = ALONE,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Start a command of torchrun, and return when all ranks are done; every process has ended then, or on an error.

    ``ranks`` are those of this machine. ``timeout`` bounds the seconds in which one makes no progress; ``environment``
    is added to ours.

    Raises:
        LaunchError: a rank raised, was killed, or hung, or torchrun did not start.
    """
    os.mkfifo(folder / "alive")
    # Workers read this pipe, and end when it closes, however this process ends.
    alive = os.open(folder / "alive", os.O_RDWR)
    agent = None
    try:
        with log.open("ab") as out:
            agent = subprocess.Popen(
                line,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=_environment(len(ranks), folder, peers.machine) | dict(environment or {}),
                start_new_session=True,  # Ctrl-C reaches only us, and we end the others
            )
        _follow(agent, folder, ranks, timeout, log, on_progress, peers)
    finally:
        os.close(alive)
        if agent is not None:
            _end(agent, folder, ranks)


def _environment(ranks: int, run: Path, machine: Machine | None) -> dict[str, str]:
    defaults = {
        "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // ranks)),
        "TORCHINDUCTOR_CACHE_DIR": str(Path(tempfile.gettempdir()) / f"torchinductor_{getuser()}"),
    }
    # gloo would take the address of this machine's name, which may not resolve, or belong to another network.
    if interface := interface_to(machine.address() if machine else "127.0.0.1"):
        defaults["GLOO_SOCKET_IFNAME"] = interface
    # torchrun leaves a temporary folder behind, even if told where to log; in ours, it goes with ours.
    return with_bytecode(defaults | os.environ | {"TMPDIR": str(run)})


def _follow(
    agent: subprocess.Popen[bytes],
    run: Path,
    ranks: Sequence[Rank],
    timeout: float,
    log: Path,
    on_progress: Callable[[Rank, Progress], None],
    peers: Peers,
) -> None:
    """Return when all ranks of all machines are done; raise LaunchError when one failed or hangs."""
    failed_at: float | None = None
    while True:
        ended = agent.poll() is not None  # looked at before the events, so that none is missed
        for rank in ranks:
            for progress in rank.read():
                on_progress(rank, progress)
        peers.listen()
        now = time.monotonic()
        results = [rank.result for rank in ranks if rank.result is not None]
        if len(results) == len(ranks):
            if peers.done([result["peak_memory"] for result in results if "peak_memory" in result]):
                return
            time.sleep(_POLL)
            continue
        if failed_at is None and any(rank.error for rank in ranks):
            failed_at = now
        if ended or (failed_at is not None and now > failed_at + _GRACE):
            error = failure(agent, ranks, log)
            if error.secondary:
                peers.wait_for_cause()
            raise error
        if any(rank.is_busy and now > rank.heard + timeout for rank in ranks):
            raise hang(run, ranks, timeout, log)
        time.sleep(_POLL)


@contextmanager
def _signals_raise() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into SystemExit, so that ``finally`` runs; only possible in the main thread."""

    def end(number: int, _: FrameType | None) -> None:
        if number == signal.SIGHUP:  # the terminal is gone, and writing to it would raise
            nowhere = os.open(os.devnull, os.O_RDWR)
            for stream in (1, 2):
                os.dup2(nowhere, stream)
        raise SystemExit(128 + number)

    previous = {}
    try:
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
                previous[number] = signal.signal(number, end)
    except ValueError:
        pass
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _end(agent: subprocess.Popen[bytes], run: Path, ranks: Sequence[Rank]) -> None:
    """Kill the workers, and torchrun if it does not end by itself then, as it does unless it is stuck."""
    import psutil

    workers = {rank.pid for rank in ranks if rank.pid is not None}
    with suppress(psutil.NoSuchProcess):
        workers |= {child.pid for child in psutil.Process(agent.pid).children(recursive=True)}
    for pid in workers:
        with suppress(psutil.Error):
            worker = psutil.Process(pid)
            if str(run) in " ".join(worker.cmdline()):  # the number may belong to another process by now
                worker.kill()
    try:
        agent.wait(timeout=3)
    except subprocess.TimeoutExpired:
        agent.kill()
        agent.wait()
