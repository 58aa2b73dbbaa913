"""``omni launch``."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from omni_config.checking.document import CheckResult
from omni_config.cli.flags import with_overrides
from omni_config.cli.inputs import checked_config, document_of, with_server
from omni_config.cli.nodes import Endpoint, Nnodes, NodeRank, machine_of
from omni_config.cli.running import bar, errors, fail, require_startable
from omni_config.plan import Plan
from omni_config.rules.rule import Rule
from omni_config.schema.overrides import Override

if TYPE_CHECKING:
    from runtime import Report


@with_overrides
def launch(
    file: Annotated[Path | None, typer.Argument(help="The config.", show_default=False)] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the torchrun command; start nothing.")] = False,
    emit: Annotated[
        str | None, typer.Option("--emit", help="Print a job that runs it, for slurm or kubernetes; start nothing.")
    ] = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Write a torch profiler trace of three steps, a file a rank.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    timeout: Annotated[float, typer.Option("--timeout", min=1, help="Seconds without progress that end it.")] = 600,
    prompts: Annotated[
        Path | None, typer.Option("--prompts", help="Make an image of each line, or JSON Lines of requests.")
    ] = None,
    log: Annotated[Path | None, typer.Option("--log", help="File for the output of torchrun and the ranks.")] = None,
    nnodes: Nnodes = None,
    node_rank: NodeRank = None,
    rdzv_endpoint: Endpoint = None,
    overrides: list[Override] = [],  # noqa: B006 (filled in by the decorator)
    policies: tuple[Rule, ...] = (),
) -> None:
    """Check, plan, and run under torchrun: images and report.json in the output folder.

    A plan for several machines is started on each of them, with the same config and --rdzv-endpoint.
    Where the config names another engine, that engine is started, or its command is printed where it is not installed.

    With --prompts FILE, the images of all its lines are made by parallel.data_parallel_size replicas, each once: those
    that are in the output folder are not made again. A line of a .jsonl file is a request as omni serve takes it.

    Exit code: 0 done, 1 findings or a failed run, 2 a config that cannot be used.
    """
    document = document_of(file, overrides)
    if prompts is not None:
        if emit or profile or log or nnodes is not None or node_rank is not None or rdzv_endpoint is not None:
            raise typer.BadParameter("--prompts goes with --dry-run, --json and --timeout only")
        document = with_server(document)
    checked = checked_config(document, policies)
    plan = checked.plan
    assert plan is not None
    if plan.engine != "native":
        from omni_config.cli.other_engine import start_other

        if prompts is not None:
            fail("launch", f"--prompts is for the built-in runtime, and the config says engine {plan.engine}")
        raise typer.Exit(start_other("launch", checked, plan.engine, dry_run=dry_run))
    if prompts is not None:
        from omni_config.cli.prompts import launch_prompts

        launch_prompts(checked, prompts, dry_run=dry_run, as_json=as_json, timeout=timeout)
        return
    assert checked.resolution is not None
    if (replicas := checked.resolution.settings["data_parallel_size"] or 1) > 1:
        fail("launch", f"data_parallel_size {replicas}: one call makes the images of one replica; next: --prompts")
    if emit is not None:
        typer.echo(_job(checked, plan, emit), nl=False)
        return
    machine = machine_of(plan, nnodes, node_rank, rdzv_endpoint)
    if not dry_run:
        require_startable("launch", plan)
    from runtime import Progress, command
    from runtime import launch as start

    if dry_run:
        plan_file = Path(plan.output, "plan.json")
        plan_file.parent.mkdir(parents=True, exist_ok=True)
        plan_file.write_text(json.dumps(plan.to_dict(), indent=2) + "\n", encoding="utf-8")
        typer.echo(shlex.join(command(plan, plan_file, machine=machine, profile=profile)))
        return
    with errors("launch"), bar() as show:

        def on_progress(progress: Progress) -> None:
            show(progress.phase, progress.step, progress.steps)

        report = start(plan, timeout=timeout, on_progress=on_progress, log=log, machine=machine, profile=profile)
    if as_json:
        typer.echo(json.dumps(report.to_dict(), indent=2))
    else:
        _show(plan, report)


def _job(checked: CheckResult, plan: Plan, cluster: str) -> str:
    from omni_config.cli.exchange import as_yaml
    from omni_config.output.cluster import EMITTERS

    if cluster not in EMITTERS:
        raise typer.BadParameter(f"--emit {cluster}: expected {' or '.join(EMITTERS)}")
    return EMITTERS[cluster](plan, as_yaml(checked))


def _show(plan: Plan, report: Report) -> None:
    from omni_config.cli.plan import made, plan_table

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
        made(plan): "\n".join(report.images),
        "report": str(Path(plan.output, "report.json")),
    }
    for name, value in rows.items():
        table.add_row(name, value)
    console.print(table)
