"""``omni launch``."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from omni_config.cli.flags import with_overrides
from omni_config.cli.inputs import checked_plan
from omni_config.overrides import Override
from omni_config.plan import Plan

if TYPE_CHECKING:
    from runtime import Report


@with_overrides
def launch(
    file: Annotated[Path | None, typer.Argument(help="The config.", show_default=False)] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the torchrun command; start nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    timeout: Annotated[float, typer.Option("--timeout", min=1, help="Seconds without progress that end it.")] = 600,
    log: Annotated[Path | None, typer.Option("--log", help="File for the output of torchrun and the ranks.")] = None,
    overrides: list[Override] = [],  # noqa: B006 (filled in by the decorator)
) -> None:
    """Check, plan, and run under torchrun: pictures and report.json in the output folder.

    Exit code: 0 done, 1 findings or a failed run, 2 a config that cannot be used.
    """
    plan = checked_plan(file, overrides)
    problem = _cannot_start(plan)
    if problem and not dry_run:
        _fail(problem)
    from runtime import LaunchError, command

    if dry_run:
        plan_file = Path(plan.output, "plan.json")
        plan_file.parent.mkdir(parents=True, exist_ok=True)
        plan_file.write_text(json.dumps(plan.to_dict(), indent=2) + "\n", encoding="utf-8")
        typer.echo(shlex.join(command(plan, plan_file)))
        return
    try:
        report = _run(plan, timeout, log)
    except LaunchError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error.filename or plan.output}: {(error.strerror or str(error)).lower()}")
    except KeyboardInterrupt:
        typer.echo("omni launch: interrupted; every process has been ended", err=True)
        raise typer.Exit(130) from None
    if as_json:
        typer.echo(json.dumps(report.to_dict(), indent=2))
    else:
        _show(plan, report)


def _cannot_start(plan: Plan) -> str | None:
    """Why this machine cannot carry out a Plan that is right as such."""
    from importlib.util import find_spec

    if plan.engine != "native":
        return (
            f"engine {plan.engine} is checked and planned here, but not started; "
            "set engine: native, or start the engine yourself"
        )
    missing = [name for name in ("torch", "diffusers", "cache_dit") if find_spec(name) is None]
    if missing:
        return f"{' and '.join(missing)} not installed; next: pip install 'omni-config[runtime]'"
    from runtime.devices import gpu_count

    gpus, ranks = gpu_count(), plan.mesh.world_size
    if 0 < gpus < ranks:
        return f"the plan needs {ranks} GPUs and this machine has {gpus}; lower the degrees, or add machines"
    return None


def _run(plan: Plan, timeout: float, log: Path | None) -> Report:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from runtime import launch as start
    from runtime.events import Progress as RankProgress

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:<10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("starting", total=plan.sampling.num_inference_steps)

        def show(progress: RankProgress) -> None:
            done = {"completed": progress.step} if progress.steps else {}
            bar.update(task, description=progress.phase, **done)  # type: ignore[arg-type]

        return start(plan, timeout=timeout, on_progress=show, log=log)


def _fail(message: str) -> None:
    typer.echo(f"omni launch: {message}", err=True)
    raise typer.Exit(1)


def _show(plan: Plan, report: Report) -> None:
    from omni_config.cli.plan import plan_table

    console = Console(highlight=False)
    console.print(plan_table(plan))
    table = Table(title="Run", show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    rows = {
        "seconds a step": f"{report.step_seconds:.3f}",
        "steps": f"{report.steps_computed} computed, {report.steps_cached} cached",
        "seconds": f"{report.seconds:.1f} (loading {report.load_seconds:.1f}, decoding {report.decode_seconds:.1f})",
        "peak memory": ", ".join(f"rank {rank}: {size:.0f} MiB" for rank, size in enumerate(report.peak_memory)),
        "picture": "\n".join(report.pictures),
        "report": str(Path(plan.output, "report.json")),
    }
    for name, value in rows.items():
        table.add_row(name, value)
    console.print(table)
