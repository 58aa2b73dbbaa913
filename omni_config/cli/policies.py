"""``--rules``: an organisation's own rules, the same option of every command that judges a config."""

from __future__ import annotations

from typing import Annotated

import typer

from omni_config.rules.rule import Rule

Rules = Annotated[list[str], typer.Option("--rules", help="A policy file with rules of your own; may be repeated.")]


def load_rules(paths: list[str]) -> tuple[Rule, ...]:
    """The rules of policy files; one that cannot be used ends the command with exit code 2."""
    if not paths:
        return ()
    from omni_config.catalog.policies import load_policies

    try:
        return tuple(rule for path in paths for rule in load_policies(path))
    except ValueError as error:
        typer.echo(f"omni: {error}", err=True)
        raise typer.Exit(2) from None
