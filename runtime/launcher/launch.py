"""Runs a Plan under torchrun, and leaves nothing behind: no process, no partial file."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from omni_config.plan import Plan
from runtime.events import Progress, Rank
from runtime.launcher import torchrun
from runtime.launcher.machine import Machine
from runtime.launcher.peers import peers_of
from runtime.report import RankResult, Report, remove_partial, versions


def command(
    plan: Plan,
    plan_file: str | Path,
    *,
    run: Path | None = None,
    timeout: float = 600.0,
    worker: Path = torchrun.WORKER,
    machine: Machine | None = None,
    profile: bool = False,
) -> list[str]:
    """The torchrun command of a Plan that was written to ``plan_file`` as JSON; it works from any working directory."""
    # the launcher gives up before a rank
    options = ["--folder", str(run), "--timeout", str(timeout + 60)] if run else []
    options += ["--profile"] if profile else []
    return torchrun.command(plan.mesh.world_size, "generate", [str(plan_file), *options], machine, worker=worker)


def launch(
    plan: Plan,
    *,
    timeout: float = 600.0,
    on_progress: Callable[[Progress], None] | None = None,
    log: str | Path | None = None,
    worker: Path = torchrun.WORKER,
    machine: Machine | None = None,
    profile: bool = False,
) -> Report:
    """Run a Plan under torchrun; images and ``report.json`` are then in ``plan.output``.

    With ``machine``, this is one of several, on each of which this is called: it runs its share of the ranks. Only
    node 0 writes images and the report; the reports that the others get are of their own first rank.

    With ``profile``, each rank writes a trace of some steps into ``plan.output`` (see trace.py).

    ``timeout`` bounds the seconds in which a rank makes no progress. ``on_progress`` gets that of the first rank here.
    ``log`` is the file for the output of torchrun and the tracebacks of the ranks; left out, it is in a temporary
    folder, which is kept if the run fails. SIGTERM and SIGHUP end the run as Ctrl-C does.

    Raises:
        LaunchError: a rank raised, was killed, or hung, torchrun did not start, or another node is lost.
        OSError: the output folder cannot be written.
    """
    started = time.monotonic()
    world_size = plan.mesh.world_size
    with torchrun.run_folder() as run, peers_of(machine, plan) as peers:
        log = Path(log) if log is not None else run / torchrun.LOG
        plan_file = run / "plan.json"
        plan_file.write_text(json.dumps(plan.to_dict(), indent=2), encoding="utf-8")
        peers.meet(timeout)
        ranks = [Rank(run, rank) for rank in (range(world_size) if machine is None else machine.ranks(world_size))]

        def show(rank: Rank, progress: Progress) -> None:
            if rank is ranks[0] and on_progress is not None:
                on_progress(progress)

        line = command(plan, plan_file, run=run, timeout=timeout, worker=worker, machine=machine, profile=profile)
        try:
            torchrun.run(line, run, ranks, timeout=timeout, log=log, on_progress=show, peers=peers)
        finally:
            remove_partial(plan.output, {rank.pid for rank in ranks if rank.pid} | {os.getpid()})
        report = _report(plan, ranks, peers.peak_memory(), time.monotonic() - started)
        if ranks[0].rank == 0:
            report.save(plan.output)
        return report


def _report(plan: Plan, ranks: Sequence[Rank], others: Sequence[float], seconds: float) -> Report:
    """``others`` is the peak memory of the ranks of all other machines."""
    results = [RankResult.from_dict(rank.result) for rank in ranks if rank.result is not None]
    first = results[0]
    return Report(
        plan=plan.to_dict(),
        images=first.images,
        seconds=seconds,
        load_seconds=first.load_seconds,
        denoise_seconds=first.denoise_seconds,
        step_seconds=first.step_seconds,
        decode_seconds=first.decode_seconds,
        steps_computed=first.steps_computed,
        steps_cached=first.steps_cached,
        peak_memory=(*(result.peak_memory for result in results), *others),
        features=first.features,
        versions=versions(),
    )
