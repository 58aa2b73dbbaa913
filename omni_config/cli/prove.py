"""``omni prove``."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from omni_config.cli.flags import with_overrides
from omni_config.cli.inputs import checked_plan
from omni_config.cli.running import bar, errors, require_startable
from omni_config.rules.rule import Rule
from omni_config.schema.overrides import Override

if TYPE_CHECKING:
    from runtime.proof.prove import Distance, Proof


@with_overrides
def prove(
    file: Annotated[Path | None, typer.Argument(help="The config.", show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the proof as JSON.")] = False,
    timeout: Annotated[float, typer.Option("--timeout", min=1, help="Seconds without progress that end a run.")] = 600,
    overrides: list[Override] = [],  # noqa: B006 (filled in by the decorator)
    policies: tuple[Rule, ...] = (),
) -> None:
    """Run a config and the plain pipeline on one rank, and compare what they compute.

    Each run is followed by controls, in which one weight of one rank is damaged: they must be noticed. Exit code: 0
    proven, 1 findings, a failed run, or a difference above the bound, 2 a config that cannot be used.
    """
    plan = checked_plan(file, overrides, policies)
    require_startable("prove", plan)
    from runtime.proof.prove import prove as start

    with errors("prove"), bar() as show:
        proof = start(plan, timeout=timeout, on_progress=lambda done, all_: show("runs", done, all_))
    if proof.log:
        typer.echo(proof.log.rstrip(), err=True)
    if as_json:
        typer.echo(json.dumps(proof.to_dict(), indent=2))
    else:
        Console(highlight=False, soft_wrap=True).print(_table(proof))
    raise typer.Exit(0 if proof.passed else 1)


def _table(proof: Proof) -> Table:
    title = "proven" if proof.passed else f"not proven: {proof.problem}"
    table = Table(title=f"{proof.plan['model']['id']}, {proof.kind}: {title}", title_justify="left")
    for column in ("against the plain pipeline", "largest difference of latents", "PSNR of the image"):
        table.add_column(column)
    limit = proof.bound
    table.add_row(
        "bound",
        f"at most {limit.difference:g}" if math.isfinite(limit.difference) else "any",
        f"at least {limit.psnr:g} dB",
    )
    if proof.distance is not None:
        table.add_row("this config", *_cells(proof.distance))
    for part, distance in proof.controls.items():
        table.add_row(f"with a damaged weight ({part})", *_cells(distance))
    return table


def _cells(distance: Distance) -> tuple[str, str]:
    return f"{distance.difference:.2g}", f"{distance.psnr:.1f} dB" if math.isfinite(distance.psnr) else "equal"
