"""What ``plan`` and ``launch`` share: a file and flags in, one checked Plan out, or findings and an exit code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer
from rich.console import Console

from omni_config.checking.files import Checked, check, check_node
from omni_config.output.text import render
from omni_config.plan import Plan
from omni_config.schema.overrides import Override, lay_over


def checked_plan(file: Path | None, overrides: Sequence[Override]) -> Plan:
    """The Plan of a file with overrides; see ``checked_config``."""
    plan = checked_config(file, overrides).plan
    assert plan is not None
    return plan


def checked_config(file: Path | None, overrides: Sequence[Override]) -> Checked:
    """A file with overrides, after a check that left it a Plan.

    Findings go to stderr. With an error among them this ends the command: exit code 1, or 2 for unusable input.
    """
    document = checked(file, overrides)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    for finding in document.findings:
        console.print(render(finding), end="\n\n")
    if document.plan is None:
        raise typer.Exit(document.exit_code)
    return document


def checked(file: Path | None, overrides: Sequence[Override]) -> Checked:
    """A file's one document, checked with overrides; without a file, the document that they make."""
    if file is None and not overrides:
        raise typer.BadParameter("give a config, or at least --model")
    if file is None:
        return check_node(*lay_over(None, overrides))
    documents = check(file)
    if len(documents) > 1:
        raise typer.BadParameter(f"{file} holds {len(documents)} documents; this command takes one")
    document = documents[0]
    if document.node is None or not overrides:
        return document
    return check_node(*lay_over(document.node, overrides))
