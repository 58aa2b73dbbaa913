"""``omni engine``: facts of an engine's release, read from its wheel without importing it."""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from omni_config.facts.difference import SECTIONS, as_text, difference
from omni_config.facts.document import compile_facts, to_json
from omni_config.facts.guards import guards as guards_of
from omni_config.facts.shelf import download, facts_file, load, named, other_wheel
from omni_config.facts.wheel import WheelError, read_wheel

engine = typer.Typer(help="Facts of an engine's release, read from its wheel.", no_args_is_help=True)

_Name = Annotated[str, typer.Argument(metavar="NAME==VERSION", help="Such as vllm-omni==0.30.")]


@engine.command("compile")
def compile_(
    name: _Name,
    wheel: Annotated[Path | None, typer.Argument(help="Its wheel; without one, pip fetches it.")] = None,
    others: Annotated[
        list[str],
        typer.Option(
            "--with", help="A package whose flags it takes, too: NAME==VERSION, or its wheel; may be repeated."
        ),
    ] = [],  # noqa: B006
) -> None:
    """Read a wheel and write its facts: flags, variables, fields, pipelines, registries and guards."""
    try:
        which, version = named(name)
        with tempfile.TemporaryDirectory() as folder:
            taken = [other_wheel(stated, Path(folder)) for stated in others]
            wheel = wheel or download(which.distribution, version, Path(folder))
            facts = compile_facts(which, wheel, version, taken)
    except WheelError as error:
        _fail(error)
    file = facts_file(which, version)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(to_json(facts))
    counts = ", ".join(f"{len(facts[section])} {section}" for section in SECTIONS if facts[section])
    typer.echo(f"{file}: {counts}")
    for path, reason in facts["unread"].items():
        typer.echo(f"not read: {path} ({reason})", err=True)


@engine.command()
def guards(
    name: _Name,
    wheel: Annotated[Path, typer.Argument(help="Its wheel.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print them as JSON.")] = False,
) -> None:
    """Print each guard with its condition and message as they stand in the wheel. Nothing of them is kept."""
    try:
        which, _ = named(name)
        found = guards_of(read_wheel(wheel, which.roots, which.without), which)
    except WheelError as error:
        _fail(error)
    if as_json:
        typer.echo(json.dumps([asdict(guard) for guard in found], indent=1))
        return
    for guard in found:
        typer.echo(f"{guard.id}\n  line {guard.line}, {guard.kind} {guard.exception}".rstrip())
        typer.echo(f"  if {guard.condition}\n  says {guard.message or 'nothing'}\n  reads {', '.join(guard.reads)}")


@engine.command()
def diff(
    old: _Name,
    new: _Name,
    as_json: Annotated[bool, typer.Option("--json", help="Print the difference as JSON.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print it as a page.")] = False,
) -> None:
    """Say what a release changed: flags, fields, variables, pipelines, registries and guards."""
    try:
        sections = difference(load(old), load(new))
    except WheelError as error:
        _fail(error)
    if as_json:
        typer.echo(json.dumps({name: asdict(section) for name, section in sections.items()}, indent=1))
    else:
        title = f"# From {old} to {new}\n\n" if markdown else ""
        typer.echo(title + (as_text(sections, markdown=markdown) or "nothing changed"))


@engine.command()
def coverage(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME[==VERSION] ...]", help="All by default.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print it as JSON, with the guards that have no answer.")
    ] = False,
) -> None:
    """Say how much of each version is judged: its guards by answer, its flags, its pipelines."""
    from rich.console import Console

    from omni_config.engines.coverage import coverage as covered
    from omni_config.output.coverage import to_text

    try:
        found = [covered(one) for name in names or [""] for one in _versions(name)]
    except WheelError as error:
        _fail(error)
    if as_json:
        typer.echo(json.dumps([asdict(one) | {"guards": one.guards} for one in found], indent=1))
    else:
        Console(width=None if sys.stdout.isatty() else 160).print(to_text(found))


@engine.command()
def install(
    name: _Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON what was installed, and where.")] = False,
) -> None:
    """Install an engine in an environment of its own, for `omni prove --engine` and `omni matrix prove --engine`.

    It says first what it will fetch and how long that takes. Exit code: 0, 1 where pip failed, 2 for an engine that has
    no such environment.
    """
    import time

    from matrix.engines.environments import NoEnvironment, environment
    from matrix.engines.environments import install as start
    from omni_config.cli.running import bar, fail

    try:
        wanted = environment(name)
    except NoEnvironment as error:
        _fail(error)
    typer.echo(wanted.said(), err=True)
    if not (yes or as_json) and sys.stdin.isatty() and not typer.confirm("install it?", default=True, err=True):
        raise typer.Exit(1)
    began = time.monotonic()
    try:
        with bar() as show:
            start(wanted, show)
    except NoEnvironment as error:
        fail("engine install", str(error))
    seconds = round(time.monotonic() - began)
    told = {
        "engine": wanted.engine,
        "folder": str(wanted.folder),
        "packages": list(wanted.packages),
        "seconds": seconds,
    }
    typer.echo(json.dumps(told, indent=1) if as_json else f"{wanted.engine} is in {wanted.folder}, after {seconds} s")


def _versions(name: str) -> list[str]:
    """The shipped versions that a name means, with or without a version.

    Raises:
        WheelError: It means none.
    """
    from omni_config.catalog.versions import same
    from omni_config.engines.facts import shipped

    known = shipped()
    meant = [one for one in known if name in ("", one.partition("==")[0])]
    if not meant and (one := same(name, known)):
        meant = [one]
    if not meant:
        raise WheelError(f"{name}: no facts of it; there are {', '.join(known)}")
    return meant


def _fail(error: Exception) -> None:
    typer.echo(str(error), err=True)
    raise typer.Exit(2)
