"""Why a run failed: the first rank that did, and not those that only saw it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from runtime import compat
from runtime.events import Rank, stacks_path


class LaunchError(RuntimeError):
    """A run failed; the text is one line that names the rank, its cause and the log."""

    def __init__(
        self, message: str, rank: int | None, cause: str, exit_code: int | None, *, secondary: bool = False
    ) -> None:
        super().__init__(message)
        self.rank = rank
        """The first rank that failed; None if torchrun or another machine did."""
        self.cause = cause
        """What it raised, the signal that killed it, or where it hung."""
        self.exit_code = exit_code
        """Of that rank, negative for a signal; None if it was still running."""
        self.secondary = secondary
        """Whether the cause lies with a rank of another machine."""


def failure(agent: subprocess.Popen[bytes], ranks: Sequence[Rank], log: Path) -> LaunchError:
    """The error of a run of which a rank has raised, or torchrun has ended."""
    text = log.read_text(encoding="utf-8", errors="replace")
    codes = compat.torch.exit_codes(text)
    raised = sorted((rank for rank in ranks if rank.error), key=lambda rank: (rank.secondary, rank.error_time))
    killed = [rank for rank in ranks if not rank.error and codes.get(rank.rank, 0) < 0]
    # torchrun ends the other ranks with SIGTERM when one has died.
    killed.sort(key=lambda rank: codes[rank.rank] == -signal.SIGTERM)
    crashed = agent.returncode is not None and agent.returncode < 0
    if raised and not (raised[0].secondary and (killed or crashed)):
        first = raised[0]
        cause, code = str(first.error), codes.get(first.rank, 1)
        message = f"rank {first.rank} failed while {first.progress}: {cause} (log: {log})"
        return LaunchError(message, first.rank, cause, code, secondary=first.secondary)
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


def hang(run: Path, ranks: Sequence[Rank], timeout: float, log: Path) -> LaunchError:
    """The error of a run of which a rank makes no progress: it names those that hang, not those that wait for them."""
    silent = {rank.rank: rank for rank in ranks if rank.is_busy}
    found = stacks(run, silent.values())
    with log.open("a", encoding="utf-8") as out:
        out.write(shown(found))
    first, *_ = names = stuck(found)
    cause = f"no progress for {timeout:g} s"
    message = (
        f"rank {' and '.join(map(str, names))} made {cause} while {silent[first].progress}; "
        f"if it is only slow, raise the timeout (log: {log})"
    )
    return LaunchError(message, first, cause, None)


def stacks(folder: Path, ranks: Collection[Rank]) -> dict[int, str]:
    """The Python stack of each rank, which it writes into the folder of its events; empty where it does not answer."""
    for rank in ranks:
        if rank.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(rank.pid, signal.SIGUSR1)
    time.sleep(0.5)
    paths = {rank.rank: stacks_path(folder, rank.rank) for rank in ranks}
    return {rank: path.read_text(encoding="utf-8") if path.exists() else "" for rank, path in paths.items()}


def shown(stacks: Mapping[int, str]) -> str:
    """Stacks, each under the name of its rank."""
    return "".join(f"stack of rank {rank}:\n{stack or '(it did not answer)'}\n" for rank, stack in stacks.items())


def stuck(stacks: Mapping[int, str]) -> list[int]:
    """Of ranks that make no progress, those that hang; all where each waits for another."""
    return [rank for rank, stack in stacks.items() if not _waits_for_peers(stack)] or list(stacks)


def _waits_for_peers(stack: str) -> bool:
    """Whether the innermost frames are inside a collective."""
    frames = [line for line in stack.splitlines() if line.lstrip().startswith("File ")]
    return any("torch/distributed/" in frame for frame in frames[:3])
