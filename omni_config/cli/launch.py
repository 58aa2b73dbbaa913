"""``omni launch``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from omni_config.cli.flags import with_overrides
from omni_config.cli.inputs import checked_plan
from omni_config.overrides import Override


@with_overrides
def launch(
    file: Annotated[Path | None, typer.Argument(help="The config.", show_default=False)] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the torchrun command and stop.")] = False,
    timeout: Annotated[float, typer.Option("--timeout", min=1, help="Seconds without progress that end it.")] = 600,
    overrides: list[Override] = [],  # noqa: B006 (filled in by the decorator)
) -> None:
    """Check, plan, and run under torchrun: pictures and report.json in the output folder."""
    plan = checked_plan(file, overrides)
    print(plan)
