"""Starts torchrun, follows its ranks, and ends every process: what every kind of run shares."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from getpass import getuser
from pathlib import Path
from types import FrameType

from runtime import compat
from runtime.events import Progress, Rank, stacks_path

LOG = "torchrun.log"
_POLL = 0.05  # seconds between two looks at the ranks
_GRACE = 4.0  # seconds that torchrun gets, after a rank has failed, to say how the others ended


class LaunchError(RuntimeError):
    """A run failed; the text is one line that names the rank, its cause and the log."""

    def __init__(self, message: str, rank: int | None, cause: str, exit_code: int | None) -> None:
        super().__init__(message)
        self.rank = rank
        """The first rank that failed; None if torchrun itself did."""
        self.cause = cause
        """What it raised, the signal that killed it, or where it hung."""
        self.exit_code = exit_code
        """Of that rank, negative for a signal; None if it was still running."""


def command(world_size: int, worker: Path, arguments: Sequence[str]) -> list[str]:
    """The torchrun command that starts a worker on each rank.

    It works from any working directory: ``-P`` keeps the folders there from shadowing ours.
    """
    python = [sys.executable, "-P"]
    torchrun = [*python, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    torchrun += ["--nproc-per-node", str(world_size)]
    return [*torchrun, "--no-python", *python, "-u", str(worker), *arguments]


@contextmanager
def run_folder() -> Iterator[Path]:
    """A temporary folder for a run; it is kept if the run fails and its log is there.

    SIGTERM and SIGHUP raise SystemExit meanwhile, so that what the run started is ended.
    """
    folder = Path(tempfile.mkdtemp(prefix="omni-run-"))
    keep = False
    with _signals_raise():
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
) -> None:
    """Start a command of torchrun, and return when all ranks are done; every process has ended then, or on an error.

    ``timeout`` bounds the seconds in which a rank makes no progress.

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
                env=_environment(len(ranks), folder),
                start_new_session=True,  # Ctrl-C reaches only us, and we end the others
            )
        _follow(agent, folder, ranks, timeout, log, on_progress)
    finally:
        os.close(alive)
        if agent is not None:
            _end(agent, folder, ranks)


def _environment(world_size: int, run: Path) -> dict[str, str]:
    defaults = {
        "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // world_size)),
        "TORCHINDUCTOR_CACHE_DIR": str(Path(tempfile.gettempdir()) / f"torchinductor_{getuser()}"),
    }
    if Path("/sys/class/net/lo").exists():
        defaults["GLOO_SOCKET_IFNAME"] = "lo"  # all ranks are on this machine, whose name may not resolve
    # torchrun leaves a temporary folder behind, even if told where to log; in ours, it goes with ours.
    return defaults | os.environ | {"TMPDIR": str(run)}


def _follow(
    agent: subprocess.Popen[bytes],
    run: Path,
    ranks: Sequence[Rank],
    timeout: float,
    log: Path,
    on_progress: Callable[[Rank, Progress], None],
) -> None:
    """Return when all ranks are done; raise LaunchError when one failed or hangs."""
    failed_at: float | None = None
    while True:
        ended = agent.poll() is not None  # looked at before the events, so that none is missed
        for rank in ranks:
            for progress in rank.read():
                on_progress(rank, progress)
        now = time.monotonic()
        if all(rank.result is not None for rank in ranks):
            return
        if failed_at is None and any(rank.error for rank in ranks):
            failed_at = now
        if ended or (failed_at is not None and now > failed_at + _GRACE):
            raise _failure(agent, ranks, log)
        if any(rank.result is None and now > rank.heard + timeout for rank in ranks):
            raise _hang(run, ranks, timeout, log)
        time.sleep(_POLL)


def _failure(agent: subprocess.Popen[bytes], ranks: Sequence[Rank], log: Path) -> LaunchError:
    text = log.read_text(encoding="utf-8", errors="replace")
    codes = compat.exit_codes(text)
    raised = sorted((rank for rank in ranks if rank.error), key=lambda rank: (rank.echo, rank.error_time))
    killed = [rank for rank in ranks if not rank.error and codes.get(rank.rank, 0) < 0]
    # torchrun ends the other ranks with SIGTERM when one has died.
    killed.sort(key=lambda rank: codes[rank.rank] == -signal.SIGTERM)
    crashed = agent.returncode is not None and agent.returncode < 0
    if raised and not (raised[0].echo and (killed or crashed)):
        first = raised[0]
        cause, code = str(first.error), codes.get(first.rank, 1)
        return LaunchError(
            f"rank {first.rank} failed while {first.progress}: {cause} (log: {log})", first.rank, cause, code
        )
    if killed:
        first = killed[0]
        code = codes[first.rank]
        name = signal.Signals(-code).name
        cause = f"killed by {name}"
        hint = "; the system may be out of memory, see dmesg" if name == "SIGKILL" else ""
        return LaunchError(
            f"rank {first.rank} was {cause} while {first.progress}{hint} (log: {log})", first.rank, cause, code
        )
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    cause = f"torchrun ended with {agent.returncode}: {lines[-1] if lines else 'it said nothing'}"
    return LaunchError(f"{cause} (log: {log})", None, cause, agent.returncode)


def _hang(run: Path, ranks: Sequence[Rank], timeout: float, log: Path) -> LaunchError:
    """Name the ranks that hang, and not those that wait for them in a collective."""
    silent = [rank for rank in ranks if rank.result is None]
    for rank in silent:
        if rank.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(rank.pid, signal.SIGUSR1)  # the worker writes its stack
    time.sleep(0.5)
    stacks = {rank.rank: _stack(run, rank) for rank in silent}
    with log.open("a", encoding="utf-8") as out:
        out.writelines(f"stack of rank {rank}:\n{stack or '(it did not answer)'}\n" for rank, stack in stacks.items())
    stuck = [rank for rank in silent if not _waits_for_others(stacks[rank.rank])] or silent
    names = " and ".join(str(rank.rank) for rank in stuck)
    cause = f"no progress for {timeout:g} s"
    message = f"rank {names} made {cause} while {stuck[0].progress}; if it is only slow, raise the timeout (log: {log})"
    return LaunchError(message, stuck[0].rank, cause, None)


def _stack(run: Path, rank: Rank) -> str:
    path = stacks_path(run, rank.rank)
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _waits_for_others(stack: str) -> bool:
    """Whether the innermost frames are inside a collective."""
    frames = [line for line in stack.splitlines() if line.lstrip().startswith("File ")]
    return any("torch/distributed/" in frame for frame in frames[:3])


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
