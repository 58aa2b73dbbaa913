"""``omni check``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from omni_config.checker import Checked, check_bytes
from omni_config.checker import check as check_file
from omni_config.discover import STDIN, discover
from omni_config.rules import Rule

MOST_REPAIRS_SHOWN = 20  # documents; the search takes longer than the check


class Format(StrEnum):
    """How findings are printed."""

    text = "text"
    json = "json"
    sarif = "sarif"
    github = "github"
    junit = "junit"


def check(
    files: Annotated[list[str], typer.Argument(help="Files, folders, globs, or - for standard input.")],
    output_format: Annotated[Format, typer.Option("--output-format", help="How to print findings.")] = Format.text,
    as_json: Annotated[bool, typer.Option("--json", help="Short for --output-format json.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings fail too.")] = False,
    rules: Annotated[list[str], typer.Option("--rules", help="A policy file with rules of your own.")] = [],  # noqa: B006
) -> None:
    """Say whether configs will run; if not, which line breaks which rule, why, and what would work.

    Exit code: 0 clean (warnings and advice allowed), 1 findings, 2 a file that cannot be used.
    """
    policies = load_rules(rules)
    skipped: list[str] = []
    checked = list(_checked(files, policies, skipped))
    chosen = Format.json if as_json else output_format
    if chosen is Format.text:
        _print(checked, skipped, policies)
    else:
        from omni_config import formats

        typer.echo(getattr(formats, f"to_{chosen.value}")(checked, policies))
    code = max((item.exit_code for item in checked), default=0)
    if strict and any(finding.severity == "warning" for item in checked for finding in item.findings):
        code = max(code, 1)
    if not checked:
        typer.echo("omni check: no configs found", err=True)
        code = 2
    raise typer.Exit(code)


def load_rules(paths: list[str]) -> tuple[Rule, ...]:
    """Policies of ``--rules``; one that cannot be used ends the command with exit code 2."""
    if not paths:
        return ()
    from omni_config.policies import load_policies

    try:
        return tuple(rule for path in paths for rule in load_policies(path))
    except ValueError as error:
        typer.echo(f"omni: {error}", err=True)
        raise typer.Exit(2) from None


def _checked(names: list[str], policies: tuple[Rule, ...], skipped: list[str]) -> Iterator[Checked]:
    """Documents of all files; a file of a folder or glob that is no config of ours is set aside, and counted."""
    for name, named in discover(names):
        documents = check_bytes("-", sys.stdin.buffer.read(), policies) if name == STDIN else check_file(name, policies)
        if named or any(is_config(document) for document in documents):
            yield from documents
        else:
            skipped.append(name)


def is_config(checked: Checked) -> bool:
    """Whether a document means to be a config: it names a model, or cannot be read at all."""
    return checked.node is None or (isinstance(checked.node.value, dict) and "model" in checked.node.value)


def _print(checked: list[Checked], skipped: list[str], policies: tuple[Rule, ...]) -> None:
    from omni_config.report import render, summary

    console = Console(highlight=False, soft_wrap=True)
    repairs = 0
    for item in checked:
        for finding in item.findings:
            console.print(render(finding), end="\n\n")
        if item.resolution and item.exit_code and repairs < MOST_REPAIRS_SHOWN:
            repairs += 1
            console.print(_repairs(item, policies), end="\n\n")
    findings = [finding for item in checked for finding in item.findings]
    line = summary(findings, len(checked))
    ignored = sum(len(item.ignored) for item in checked)
    if ignored:
        line.append(f" {ignored} accepted by a comment.")
    if skipped:
        line.append(f" {len(skipped)} YAML files without a model set aside.")
    console.print(line)


def _repairs(item: Checked, policies: tuple[Rule, ...]) -> Text:
    """The smallest set of settings that cannot hold together, and the nearest configurations that work."""
    from omni_config.fix import conflict_of, diff_of, nearest_changes

    text = Text()
    together = conflict_of(item, policies)
    if len(together) > 1:
        text.append("These cannot hold together, whatever the rest is: ", "bold").append(f"{', '.join(together)}\n")
    found = nearest_changes(item, policies)
    if not found:
        return text.append("No configuration within a few changes works.", "bold")
    text.append("Nearest configurations that work:", "bold")
    for number, changes in enumerate(found, start=1):
        text.append(f"\n  {number}. ", "bold")
        for index, line in enumerate(diff_of(item, changes)):
            text.append("\n     " if index else "").append(line, "red" if line.startswith("-") else "green")
    return text
