"""``omni matrix``."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from omni_config.catalog.load import catalog


class Format(StrEnum):
    """How the matrix is written."""

    text = "text"
    markdown = "markdown"
    csv = "csv"
    json = "json"
    html = "html"


class Action(StrEnum):
    """What else the command does."""

    diff = "diff"
    prove = "prove"


def matrix(
    action: Annotated[
        Action | None, typer.Argument(help="diff: where tables and source diff. prove: run the cells.")
    ] = None,
    engine: Annotated[list[str], typer.Option("--engine", help="Only this engine; may be repeated.")] = [],  # noqa: B006
    model: Annotated[list[str], typer.Option("--model", help="Only this model; may be repeated.")] = [],  # noqa: B006
    together: Annotated[
        str, typer.Option("--with", help="Features, such as ulysses,cfg_parallel: what goes with all of them.")
    ] = "",
    drawn: Annotated[
        int, typer.Option("--drawn", min=0, help="With prove --engine: run so many drawn configs, not the cells.")
    ] = 0,
    seed: Annotated[int, typer.Option("--seed", help="Of the drawing.")] = 0,
    output_format: Annotated[Format, typer.Option("--format", help="How to write the matrix.")] = Format.text,
    as_json: Annotated[bool, typer.Option("--json", help="Short for --format json.")] = False,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="File to write to.")] = None,
    check: Annotated[
        Path | None, typer.Option("--check", help="Folder of the generated pages; fail where they diff.")
    ] = None,
) -> None:
    """Show which features go together, on which models, by asking the rules about every pair.

    Exit code: 0, or 1 where --check finds pages that are not up to date.
    """
    chosen = Format.json if as_json else output_format
    if check is not None:
        from matrix.pages import OWNED, kept
        from omni_config.cli.explain import generate

        generate(check, True, kept(), OWNED)
    try:
        if action == Action.prove:
            if drawn:
                raise typer.Exit(_drawn(engine, drawn, seed))
            prove = _prove_engines if engine else _prove
            raise typer.Exit(prove(engine, model, _names(together)))
        text = _diff(chosen) if action else _tables(engine, tuple(model), together, chosen)
    except ValueError as error:
        typer.echo(f"omni: {error}", err=True)
        raise typer.Exit(2) from None
    if output is None:
        sys.stdout.write(text)
    else:
        output.write_text(text, encoding="utf-8")
        typer.echo(f"wrote {output}", err=True)


def _tables(engines: list[str], models: tuple[str, ...], together: str, chosen: Format) -> str:
    from matrix import formats
    from matrix.compatibility import compile_matrix
    from matrix.compatibility import together as ask_together

    names = _names(together)
    for engine in engines:
        if catalog().engine(engine) is None:
            raise ValueError(f"no card for engine '{engine}'; known: {', '.join(catalog().engine_ids)}")
    running = [name for name in (engines or catalog().matrix_engines) if _runs(name, models) or engines]
    if names:
        answers = {engine: ask_together(names, engine, models) for engine in running}
        if chosen == Format.json:
            return formats.sets_json(names, answers) + "\n"
        return _rendered(formats.sets_text(names, answers))
    if chosen == Format.html:
        if engines or models:
            raise ValueError("the page holds every engine and model; choose among them in it")
        from matrix.html import to_html

        return to_html()
    tables = [compile_matrix(name, models) for name in running]
    if chosen == Format.text:
        return _rendered(formats.to_text(tables))
    return {"markdown": formats.to_markdown, "csv": formats.to_csv, "json": formats.to_json}[chosen](tables) + "\n"


def _runs(engine: str, models: tuple[str, ...]) -> bool:
    """Whether an engine runs some of the models; all of the catalog where none is named."""
    cards = [catalog().model(name) for name in models]
    known = catalog().engine(engine)
    return known is not None and (not cards or any(card is None or known.claim(card) for card in cards))


def _diff(chosen: Format) -> str:
    from matrix import diff, formats
    from matrix.compatibility import compile_matrix

    newest = catalog().versions("vllm-omni")[0]
    documented, source = compile_matrix("vllm-omni"), compile_matrix(newest)
    parts = {
        "published table -> vllm-omni": list(diff.against_published(documented)),
        f"vllm-omni -> {newest}": list(diff.against(documented, source)),
    }
    proven = diff.proven_unverified()
    if chosen == Format.json:
        cells = {name: [item.to_dict() for item in found] for name, found in parts.items()}
        return json.dumps(cells | {"not verified there, proven here": proven}, indent=1) + "\n"
    return _rendered(formats.diff_text(parts, proven))


def _prove_engines(engines: list[str], models: list[str], features: list[str]) -> int:
    """Run the cells of other engines themselves, with progress; 1 where a run refutes a rule."""
    from collections import Counter

    from matrix.engines.environments import environment
    from matrix.engines.prove import prove_cells
    from omni_config.cli.running import bar

    refuted = 0
    for name in engines:
        with bar() as show:
            found = prove_cells(environment(name), models, features, lambda done, all_: show("runs", done, all_))
        for model, cells in found.items():
            for cell, entry in cells.items():
                if not entry.agrees:
                    refuted += 1
                    said = f"{entry.verdict} {' '.join(entry.codes)}".rstrip()
                    typer.echo(
                        f"refuted: {cell} on {model}: the rules say {said}, and it is {entry.outcome}: {entry.why}"
                    )
                    typer.echo(f"  {entry.command}")
            counts = Counter(entry.outcome for entry in cells.values())
            typer.echo(f"{model}: {', '.join(f'{count} {outcome}' for outcome, count in counts.most_common())}")
    return int(refuted > 0)


def _drawn(engines: list[str], count: int, seed: int) -> int:
    """Run drawn configs of engines; 1 where too few agree with the rules."""
    from matrix.engines.drawn import MANY, agreement
    from matrix.engines.environments import environment
    from matrix.engines.evidence import write_summary
    from omni_config.cli.running import bar

    holds = True
    for name in engines:
        engine = environment(name)
        with bar() as show:
            found = agreement(engine, count, seed, lambda done, all_: show("runs", done, all_))
        holds &= found.holds
        for one in found.disagreeing:
            said = f"{one.trial.verdict} {' '.join(one.trial.codes)}".rstrip()
            typer.echo(f"the rules say {said}, and it is {one.judged.outcome}: {one.judged.why}\n  {one.trial.command}")
        told = len(found.told)
        if count >= MANY:
            agree = told - len(found.disagreeing)
            write_summary(engine.engine, "drawn", {"count": count, "seed": seed, "told": told, "agree": agree})
        typer.echo(f"{name}: {found.share:.1%} of {told} drawn configs agree; {len(found.shown) - told} show nothing")
    return int(not holds)


def _prove(_: list[str], models: list[str], features: list[str]) -> int:
    """Run the cells, with progress; 1 where a run refutes one."""
    from matrix.prove import pipelines, prove
    from omni_config.cli.running import bar, errors

    with errors("matrix prove"), bar() as show:
        found = prove(models or pipelines(), features, lambda done, all_: show("runs", done, all_))
    for model, cells in found.items():
        for name, entry in cells.items():
            if not entry.proven:
                typer.echo(f"refuted: {name} on {model}: {entry.why}")
        typer.echo(f"{sum(entry.proven for entry in cells.values())} of {len(cells)} cells proven on {model}")
    return int(any(not entry.proven for cells in found.values() for entry in cells.values()))


def _names(together: str) -> list[str]:
    names = [name.strip() for name in together.split(",") if name.strip()]
    for name in names:
        if name not in catalog().features:
            raise ValueError(f"no feature '{name}'; known: {', '.join(catalog().features)}")
    return names


def _rendered(shown: object) -> str:
    console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 160)
    with console.capture() as capture:
        console.print(shown)
    return capture.get()
