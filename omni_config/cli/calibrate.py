"""``omni calibrate``."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from omni_config.cards import EngineCard, ModelCard
from omni_config.catalog.load import catalog
from omni_config.checking.document import CheckResult
from omni_config.cli.flags import with_overrides
from omni_config.cli.inputs import checked_config, checked_plan, document_of
from omni_config.cli.running import bar, errors, fail, require_startable
from omni_config.resolving.resolver import resolve
from omni_config.resolving.target import target_of
from omni_config.rules.rule import Rule
from omni_config.schema.overrides import Override

if TYPE_CHECKING:
    from runtime.measure.calibrate import Calibration


class What(StrEnum):
    """What can be calibrated."""

    teacache = "teacache"
    machine = "machine"


@with_overrides
def calibrate(
    what: Annotated[What, typer.Argument(help="A cache, or this machine.", show_default=False)],
    file: Annotated[Path | None, typer.Argument(help="The config.", show_default=False)] = None,
    prompts: Annotated[Path | None, typer.Option("--prompts", help="One prompt a line; else the config's.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="File for the YAML lines.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything, with the points, as JSON.")] = False,
    timeout: Annotated[float, typer.Option("--timeout", min=1, help="Seconds without progress that end it.")] = 600,
    ranks: Annotated[
        int | None,
        typer.Option("--ranks", min=1, max=64, help="machine: processes; left out, its GPUs, or 2 of a CPU."),
    ] = None,
    seconds: Annotated[
        float | None, typer.Option("--seconds", min=0.1, max=600, help="machine: spent on its rates; left out, 40.")
    ] = None,
    overrides: list[Override] = [],  # noqa: B006 (filled in by the decorator)
    policies: tuple[Rule, ...] = (),
) -> None:
    """Fit TeaCache's coefficients for a model, from runs of the plain pipeline without a cache; or measure a machine.

    machine measures this one, in about two minutes: matrix products, attention, norms, collectives, links, the way from
    the CPU, decoding and calls, at usual shapes and those of a config's model. It writes machine.yaml, for --machine.

    Exit code: 0 done, 1 findings or a failed run, 2 a config or prompts that cannot be used.
    """
    if what is What.machine:
        if prompts is not None:
            raise typer.BadParameter("--prompts is for teacache")
        _machine(file, overrides, policies, ranks, seconds or 40.0, out or Path("machine.yaml"), timeout, as_json)
        return
    if (ranks, seconds) != (None, None):
        raise typer.BadParameter("--ranks and --seconds are for machine")
    # The config may already ask for the cache, whose coefficients are what is missing.
    none = [Override(("cache", name), False, ("--cache-backend", "none")) for name in ("tea_cache", "cache_dit")]
    plan = checked_plan(file, [*overrides, *none], policies)
    lines = plan.sampling.prompts if prompts is None else _lines(prompts)
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


#: Hidden size, feed-forward width, heads and their size: of usual models, and of what a CPU can run.
_OF_GPUS = ((1536, 6144, 24, 64), (3072, 12288, 24, 128), (5120, 13824, 40, 128))
_OF_CPUS = ((64, 256, 4, 16), (144, 384, 6, 24), (256, 1024, 8, 32))


def _machine(
    file: Path | None,
    overrides: list[Override],
    policies: tuple[Rule, ...],
    ranks: int | None,
    seconds: float,
    out: Path,
    timeout: float,
    as_json: bool,
) -> None:
    from omni_config.doctor.machine import nvidia_gpus
    from omni_config.estimate.machine import text_of
    from omni_config.schema.document import Document

    count = len(nvidia_gpus())
    embedded = resolve(Document.model_validate(_CALLED), target_of(*_named("tiny"))).plan
    assert embedded is not None
    require_startable("calibrate", embedded)
    shapes = list(_OF_GPUS if count else _OF_CPUS)
    if file is not None or overrides:
        shapes.append(_shape(checked_config(document_of(file, overrides), policies)))
    from runtime.measure.machine import Shape, measure

    with errors("calibrate"), bar() as show:
        found = measure(
            ranks or count or 2,
            [Shape(*shape) for shape in shapes],
            embedded,
            seconds=seconds,
            timeout=timeout,
            on_progress=show,
        )
        text = text_of(found)
        out.write_text(text, encoding="utf-8")
    typer.echo(json.dumps(found.model_dump(exclude_defaults=True), indent=2) if as_json else f"{found.name}: {out}")


#: What shows how long calling a block takes: the embedded model, as small as it goes.
_CALLED = {
    "version": 1,
    "model": "tiny",
    "sampling": {"prompt": "a red star", "width": 64, "height": 64, "num_inference_steps": 12, "cfg_scale": 0.0},
}


def _named(model: str) -> tuple[ModelCard, EngineCard]:
    card, engine = catalog().model(model), catalog().engine("native")
    assert card is not None
    assert engine is not None
    return card, engine


def _shape(checked: CheckResult) -> tuple[int, int, int, int]:
    assert checked.resolution is not None
    dims = checked.resolution.card.dims
    if not {"hidden_size", "ffn_dim", "num_attention_heads"} <= dims.keys():
        fail("calibrate", f"the card of {checked.resolution.card.id} does not state the sizes of its blocks")
    hidden, heads = dims["hidden_size"], dims["num_attention_heads"]
    return hidden, dims["ffn_dim"], heads, hidden // heads


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
