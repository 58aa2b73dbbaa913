"""``omni check``."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Console

from omni_config.check import check as check_file
from omni_config.report import render, summary


class Format(StrEnum):
    """How findings are printed."""

    text = "text"
    json = "json"


def check(
    files: Annotated[list[str], typer.Argument(help="Configs to check.", show_default=False)],
    output_format: Annotated[Format, typer.Option("--output-format", help="How to print the findings.")] = Format.text,
    as_json: Annotated[bool, typer.Option("--json", help="Short for --output-format json.")] = False,
) -> None:
    """Say whether configs will run; if not, which line breaks which rule, why, and what to do.

    Exit code: 0 clean (warnings allowed), 1 errors found, 2 a file that cannot be used.
    """
    checked = [item for file in files for item in check_file(file)]
    findings = [finding for item in checked for finding in item.findings]
    if as_json or output_format is Format.json:
        typer.echo(json.dumps([finding.to_dict() for finding in findings], indent=2))
    else:
        console = Console(highlight=False, soft_wrap=True)
        for finding in findings:
            console.print(render(finding), end="\n\n")
        console.print(summary(findings, len(checked)))
    raise typer.Exit(max(item.exit_code for item in checked))
