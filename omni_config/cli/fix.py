"""``omni fix``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from omni_config.atomic import write_bytes
from omni_config.checking.choices import Choices
from omni_config.cli.explained import show_pages
from omni_config.cli.policies import Rules, load_rules
from omni_config.reading.discover import STDIN, CannotCheck, discover
from omni_config.reading.project import project_of


def fix(
    files: Annotated[list[str], typer.Argument(help="Files, folders, globs, or - for standard input.")],
    unsafe: Annotated[bool, typer.Option("--unsafe", help="Also take the nearest configuration that works.")] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Show the repairs; write nothing.")] = False,
    rules: Rules = [],  # noqa: B006
) -> None:
    """Repair configs and files of other engines in place; comments, order and quoting of all else survive.

    The table of the repository says what is repaired and what is excluded, as it does for omni check.

    Safe repairs leave what runs as it is: they write down what would be lowered, switched off or ignored anyway.
    Exit code: 0 no errors are left, 1 some are, 2 a file cannot be used.
    """
    choices = Choices(policies=load_rules(rules))
    code = 0
    try:
        for name, named in discover(files):
            if named or not project_of(name).excludes(name):
                code = max(code, _fix(name, named, unsafe, diff, choices))
    except CannotCheck as error:
        typer.echo(f"omni fix: {error}", err=True)
        raise typer.Exit(2) from None
    raise typer.Exit(code)


def _fix(name: str, named: bool, unsafe: bool, diff: bool, choices: Choices) -> int:
    from omni_config.checking.fix import fix as fix_text
    from omni_config.output.run_check import is_config

    checked = choices.check(name, sys.stdin.buffer.read() if name == STDIN else None)
    source = checked[0].source
    if not named and not any(is_config(document) for document in checked):
        return 0
    if not source.text:
        typer.echo(f"{checked[0].findings[0].span}: {checked[0].findings[0].message}", err=True)
        return 2
    repaired = fix_text(name, source.text, unsafe=unsafe, choices=choices)
    if diff:
        typer.echo(repaired.diff(name), nl=False)
    elif name == STDIN:
        typer.echo(repaired.after, nl=False)
    elif repaired.after != repaired.before:
        _write(Path(name), repaired.after)
        typer.echo(
            f"{name}: repaired {', '.join(dict.fromkeys(finding.code for finding in repaired.applied))}", err=True
        )
    show_pages(repaired.applied)
    for reason in repaired.failed:
        typer.echo(f"{name}: {reason}", err=True)
    left = choices.check(name, repaired.after.encode())
    return max(document.exit_code for document in left)


def _write(path: Path, text: str) -> None:
    """Write in place, keeping a byte order mark, and the file that a link points to."""
    path = path.resolve()
    mark = b"\xef\xbb\xbf" if path.read_bytes().startswith(b"\xef\xbb\xbf") else b""
    try:
        write_bytes(path, mark + text.encode())
    except OSError as error:
        typer.echo(f"omni: {path}: {error.strerror}", err=True)
        raise typer.Exit(2) from None
