"""``omni calibrate``."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from omni_config.cli.flags import with_overrides
from omni_config.cli.inputs import checked_plan
from omni_config.cli.running import bar, errors, fail, require_startable
from omni_config.rules.rule import Rule
from omni_config.schema.overrides import Override

if TYPE_CHECKING:
    from runtime.measure.calibrate import Calibration


class What(StrEnum):
    """What can be calibrated."""

    teacache = "teacache"


@with_overrides
def calibrate(
    what: Annotated[What, typer.Argument(help="The cache.", show_default=False)],
    file: Annotated[Path | None, typer.Argument(help="The config.", show_default=False)] = None,
    prompts: Annotated[Path | None, typer.Option("--prompts", help="One prompt a line; else the config's.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="File for the YAML lines.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything, with the points, as JSON.")] = False,
    timeout: Annotated[float, typer.Option("--timeout", min=1, help="Seconds without progress that end it.")] = 600,
    overrides: list[Override] = [],  # noqa: B006 (filled in by the decorator)
    policies: tuple[Rule, ...] = (),
) -> None:
    """Fit TeaCache's coefficients for a model, from runs of the plain pipeline without a cache.

    Exit code: 0 done, 1 findings or a failed run, 2 a config or prompts that cannot be used.
    """
    # The config may already ask for the cache, whose coefficients are what is missing.
    none = [Override(("cache", name), False, ("--cache-backend", "none")) for name in ("tea_cache", "cache_dit")]
    plan = checked_plan(file, [*overrides, *none], policies)
    lines = [plan.sampling.prompt] if prompts is None else _lines(prompts)
    require_startable("calibrate", plan)
    from runtime import Progress
    from runtime.measure.calibrate import calibrate as start

    with errors("calibrate"), bar() as show:

        def on_progress(progress: Progress) -> None:
            show(progress.phase, progress.step, progress.steps)

        try:
            result = start(plan, lines, timeout=timeout, on_progress=on_progress)
        except ValueError as error:
            fail("calibrate", str(error))
        if out is not None:
            out.write_text(_yaml(result), encoding="utf-8")
    if as_json:
        typer.echo(json.dumps(result.to_dict(), indent=2))
        return
    typer.echo(_yaml(result), nl=False)
    if result.lowest <= 0:
        typer.echo(f"omni calibrate: the polynomial falls to {result.lowest:.2g}, where the cache never stops; "
                   "more prompts or steps make it better", err=True)  # fmt: skip


def _lines(path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        typer.echo(f"omni calibrate: {path}: {getattr(error, 'strerror', None) or 'not UTF-8 text'}", err=True)
        raise typer.Exit(2) from None
    if not lines:
        typer.echo(f"omni calibrate: {path}: holds no prompt", err=True)
        raise typer.Exit(2)
    return lines


def _yaml(result: Calibration) -> str:
    numbers = ", ".join(f"{value:.9g}" for value in result.coefficients)
    moved = [before for before, _ in result.points]
    held = f"lowest: {min(moved):.3g}, highest: {max(moved):.3g}"
    return (
        f"# {result.model}: {len(result.points)} points of {len(result.prompts)} prompts, {result.steps} steps;\n"
        f"# error of the fit {result.fit_error:.3g}, of the identity {result.identity_error:.3g}. They hold for the\n"
        f"# relative L1 distances of these runs; other steps and other samplers make other distances. On a card:\n"
        f"# teacache_fit: {{found: fitted, by: omni calibrate teacache, to: {result.model}, {held}}}\n"
        f"cache:\n  tea_cache:\n    coefficients: [{numbers}]\n"
    )
