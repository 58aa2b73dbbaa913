"""``omni explain``, ``omni rules``, ``omni schema`` and ``omni docs``: the catalog, for people and programs."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from omni_config.cards import Retired
from omni_config.catalog.load import catalog
from omni_config.cli.completion import codes
from omni_config.rules.rule import Rule


def explain(
    code: Annotated[str, typer.Argument(help="Code of a rule, such as OMNI101.", autocompletion=codes)],
    as_json: Annotated[bool, typer.Option("--json", help="Print the rule as JSON.")] = False,
) -> None:
    """Explain a rule: what it asks, why, how to repair it, with a bad and a good example."""
    known = catalog().by_code
    rule = known.get(code.upper())
    retired = next((entry for entry in catalog().retired if entry.code == code.upper()), None)
    if retired is not None:
        _explain_retired(retired, as_json)
        return
    if rule is None:
        near = difflib.get_close_matches(code.upper(), known, 3)
        typer.echo(
            f"omni: no rule {code}; {'did you mean ' + ' or '.join(near) if near else 'see omni rules'}", err=True
        )
        raise typer.Exit(2)
    if as_json:
        typer.echo(json.dumps(as_dict(rule), indent=2))
        return
    from rich.markdown import Markdown

    from omni_config.output.pages import rule_page

    Console().print(Markdown(rule_page(rule)))


def _explain_retired(entry: Retired, as_json: bool) -> None:
    from dataclasses import asdict

    from rich.markdown import Markdown

    from omni_config.output.pages import retired_page

    if as_json:
        typer.echo(json.dumps(asdict(entry), indent=2))
    else:
        Console().print(Markdown(retired_page(entry)))


def rules(as_json: Annotated[bool, typer.Option("--json", help="Print all rules as JSON.")] = False) -> None:
    """List all rules."""
    if as_json:
        typer.echo(json.dumps([as_dict(rule) for rule in catalog().rules], indent=2))
        return
    for rule in catalog().rules:
        engines = f"  [{', '.join(rule.engines)}]" if rule.engines else ""
        typer.echo(f"{rule.code}  {rule.severity:<8} {rule.name}{engines}")


def schema() -> None:
    """Print the JSON Schema (2020-12) of the config, for editors."""
    from omni_config.output.pages import schema as build

    typer.echo(json.dumps(build(), indent=2))


def docs(
    folder: Annotated[Path, typer.Argument(help="Folder of the generated pages.")],
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; fail, with a diff, where they differ.")
    ] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Also the pages that are published and not kept in git.")
    ] = False,
) -> None:
    """Write the pages that are generated from the catalog, or check that they are up to date."""
    from matrix import pages as matrix_pages
    from omni_config.output import pages, published

    more = matrix_pages.pages() | published.pages() if everything else matrix_pages.kept()
    generate(folder, check, pages.pages() | more, (*pages.OWNED, *matrix_pages.OWNED, *published.OWNED))


def generate(folder: Path, check: bool, wanted: dict[str, str], owned: tuple[str, ...]) -> None:
    """Write generated pages, or with ``check`` fail with a diff where they are not up to date."""
    from omni_config.output import pages

    if not check:
        typer.echo(f"{pages.write(folder, wanted, owned)} files in {folder}")
        return
    difference = pages.drift(folder, wanted, owned)
    typer.echo(difference or f"{folder} is up to date", nl=not difference)
    raise typer.Exit(1 if difference else 0)


def as_dict(rule: Rule) -> dict[str, object]:
    """A rule as JSON-ready values, its kind included."""
    from dataclasses import asdict, replace

    from omni_config.rules.kinds import KINDS, Refuses

    kind = next(name for name, cls in KINDS.items() if type(rule) is cls)
    if isinstance(rule, Refuses):
        rule = replace(rule, cases=rule.stated)
    return {"code": rule.code, "kind": kind, **asdict(rule), "statement": rule.explain()}
