"""``omni bench``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from omni_config.cli.flags import with_overrides
from omni_config.cli.inputs import checked_plan
from omni_config.cli.running import bar, errors, fail, require_startable
from omni_config.rules.rule import Rule
from omni_config.schema.overrides import Override

if TYPE_CHECKING:
    from runtime.measure.bench import Series

TITLES = {"step_seconds": "seconds a step", "seconds": "seconds an image", "peak_memory": "peak memory, MiB"}


@with_overrides
def bench(
    file: Annotated[Path | None, typer.Argument(help="The config.", show_default=False)] = None,
    against: Annotated[
        Path | None, typer.Option("--against", help="A second config; settings of this line are not for it.")
    ] = None,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Runs of each config, after one to warm up.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print every run as JSON.")] = False,
    plot: Annotated[Path | None, typer.Option("--plot", help="File for a plot, .png or .svg.")] = None,
    timeout: Annotated[float, typer.Option("--timeout", min=1, help="Seconds without progress that end it.")] = 600,
    overrides: list[Override] = [],  # noqa: B006 (filled in by the decorator)
    policies: tuple[Rule, ...] = (),
) -> None:
    """Measure a config, or two in turn: medians of time and memory, and their ratio with its spread.

    Exit code: 0 done, 1 findings or a failed run, 2 a config that cannot be used.
    """
    plans = {"config": checked_plan(file, overrides, policies)}
    if against is not None:
        plans["against"] = checked_plan(against, [], policies)
    for plan in plans.values():
        require_startable("bench", plan)
    if plot is not None:
        _require_plot(plot)
    from runtime.measure.bench import MEASURES, ratio
    from runtime.measure.bench import bench as start

    with errors("bench"), bar() as show:
        series = start(plans, repeats=repeats, timeout=timeout, on_progress=show)
        if plot is not None:
            _draw(series, plot)
    ratios = {of: ratio(series[-1], series[0], of) for of in MEASURES} if against is not None else {}
    if as_json:
        result = {one.name: one.to_dict() for one in series}
        typer.echo(json.dumps(result | {"ratios": {of: found.to_dict() for of, found in ratios.items()}}, indent=2))
        return
    table = Table(title=f"Medians of {repeats} runs in turn, and from the lowest to the highest", title_justify="left")
    for column in ("", *TITLES.values()):
        table.add_column(column)
    for one in series:
        table.add_row(one.name, *(_spread(one.medians[of], getattr(one, of)) for of in MEASURES))
    if ratios:
        cells = [_spread(found.median, (found.lowest, found.highest)) for found in ratios.values()]
        table.add_row("config / against", *cells)
    Console(highlight=False, soft_wrap=True).print(table)


def _spread(middle: float, values: tuple[float, ...]) -> str:
    return f"{middle:.4g} ({min(values):.4g} to {max(values):.4g})"


def _require_plot(path: Path) -> None:
    from importlib.util import find_spec

    if path.suffix not in (".png", ".svg"):
        raise typer.BadParameter(f"{path}: a plot is a .png or .svg file")
    if find_spec("matplotlib") is None:
        fail("bench", "matplotlib not installed; next: pip install 'omni-config[plot]'")


def _draw(series: tuple[Series, ...], path: Path) -> None:
    """Every run as a point, and the median of each config as a line, a panel for each measure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3), layout="constrained")
    for axes, (of, title) in zip(figure.subplots(1, len(TITLES)), TITLES.items(), strict=True):
        for place, one in enumerate(series):
            values = getattr(one, of)
            axes.plot([place] * len(values), values, "o", alpha=0.5)
            axes.hlines(one.medians[of], place - 0.3, place + 0.3)
        axes.set(title=title, ylim=(0, None), xlim=(-0.6, len(series) - 0.4))
        axes.set_xticks(range(len(series)), [one.name for one in series])
    figure.savefig(path)
