"""``omni suggest``."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from omni_config.checking.document import judge
from omni_config.cli.explained import show_where_asked
from omni_config.cli.flags import with_overrides
from omni_config.cli.inputs import document_of
from omni_config.estimate.data import gpus
from omni_config.planner.candidates import Candidate
from omni_config.planner.fit import Fitted, Moved, fit
from omni_config.planner.runs import Recorded, runs_in
from omni_config.planner.serving import Load, rate_in, seconds_in
from omni_config.planner.suggest import CannotEstimateError, Objective, Suggested, Suggestion, document
from omni_config.planner.suggest import suggest as find
from omni_config.rules.rule import Rule
from omni_config.schema.overrides import Override
from omni_config.schema.settings import FIELDS, validate


@with_overrides
def suggest(
    file: Annotated[Path | None, typer.Argument(help="A config to start from.", show_default=False)] = None,
    size: Annotated[str | None, typer.Option("--size", help="Image size, such as 2048x2048.")] = None,
    video_frames: Annotated[int | None, typer.Option("--video-frames", min=1, help="Frames of a video.")] = None,
    objective: Annotated[Objective, typer.Option("--objective", help="What to be best at.")] = "latency",
    rate: Annotated[
        str | None, typer.Option("--rate", help="With throughput: requests that arrive, such as 2/s or 30/min.")
    ] = None,
    p99: Annotated[
        str | None, typer.Option("--p99", help="With throughput: 99 % of answers come within this, such as 10s.")
    ] = None,
    price: Annotated[
        float | None, typer.Option("--price", help="Price of a GPU hour; throughput is ranked by the cost an image.")
    ] = None,
    lossless: Annotated[bool, typer.Option("--lossless", help="Leave out what changes the image (caches).")] = False,
    runs: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Fit the estimate to runs: report.json, omni bench --json, SGLang's perf dumps, or a folder.",
        ),
    ] = None,
    top: Annotated[int, typer.Option("--top", min=1, help="How many plans to show.")] = 5,
    save: Annotated[Path | None, typer.Option("--save", "-o", help="Write the best plan as a config.")] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Draw the plans and the time of a step: .svg, .png, .html, or - here.")
    ] = None,
    export: Annotated[
        str | None,
        typer.Option("--export", help="Plan for this engine, and print what starts it: sglang, vllm-omni, ..."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    overrides: list[Override] = [],  # noqa: B006 (filled in by the decorator)
    policies: tuple[Rule, ...] = (),
) -> None:
    """Find the best plans for a model on some GPUs: --model, --gpus, --gpu and --size, or a file that says them.

    Estimates are ranges; docs/estimates.md explains them. Exit code: 0 a plan was found, 1 none fits, 2 unusable input.
    """
    load = _load(objective, rate, p99, price)
    if size is not None:
        overrides = [*overrides, *_size(size)]
    if video_frames is not None:
        flag = ("--video-frames", str(video_frames))
        overrides = [*overrides, Override(("sampling", "num_frames"), video_frames, flag)]
    if export is not None:
        overrides = [*overrides, _engine(export, overrides)]
    done = judge(document_of(file, overrides), policies)
    show_where_asked(done.findings)  # of what it starts from
    if done.node is None or not isinstance(done.node.value, dict) or done.resolution is None:
        _fail(done.findings[0].message if done.findings else "give a config, or --model, --gpus and --gpu")
    assert done.node is not None
    assert done.resolution is not None
    settings = validate(done.node.value)
    gpu = done.resolution.target.quantities(settings)["known_gpu"]
    if gpu is None:
        _fail(f"--gpu: {'name one of' if settings['gpu'] is None else 'unknown; name one of'} {', '.join(gpus())}")
    if settings["gpus"] is None:
        _fail("--gpus: say how many GPUs there are")
    target = done.unaccepted
    card = target.card
    recorded = None if runs is None else _recorded(runs)
    learned = None if recorded is None else fit(recorded.runs, gpu)
    gpu = gpu if learned is None else learned.gpu
    try:
        found = find(
            settings,
            target,
            gpu,
            settings["gpus"],
            objective=objective,
            lossless=lossless,
            load=load,
            most=_MANY if export else top,
        )
    except CannotEstimateError as error:
        _fail(str(error))
    commands: list[str] = []
    if export is not None and found.best:
        found, commands = _exported(found, export, policies, top)
    if plot is not None and found.best and plot != _HERE:
        _draw(found, plot, f"{card.id} on {settings['gpus']} {gpu.id}")
    if save is not None and found.best:
        _write(save, config(found.best[0]))
    if as_json:
        more: dict[str, Any] = {}
        if learned is not None and recorded is not None:
            more = {"runs": [_moved(one) for one in learned.moved], "runs_refused": recorded.refused}
        shown = as_dict(found, load)
        for plan, command in zip(shown["plans"], commands, strict=False):
            plan["command"] = command
        typer.echo(json.dumps(shown | more, indent=2))
    else:
        if learned is not None and recorded is not None:
            _show_changes(learned, recorded)
        unguided = bool(card.guidance and card.guidance.needs_negative_prompt and settings["negative_prompt"] is None)
        _show(found, f"{card.id} on {settings['gpus']} x {gpu.title}", objective, load, unguided, commands)
        if plot == _HERE and found.best:
            from omni_config.planner.plot import terminal

            typer.echo(terminal(found))
    raise typer.Exit(0 if found.best else 1)


def config(plan: Suggested) -> str:
    """The plan as the text of a config."""
    import yaml

    one, seconds = plan.candidate, plan.estimate.seconds
    head = f"# {one.title}: about {seconds} s a call, {plan.estimate.gib} GiB a GPU"
    if one.rate is not None:
        times = f", 99 % answered within {one.p99:.3g} s" if one.p99 is not None else ""
        count = f"{one.replicas} replicas" if one.replicas > 1 else "it"
        head += f"\n# {count} with batches of up to {one.batch}: {one.rate:.3g} requests a second{times}\n"
    else:
        head += f"; {one.replicas} of these fill the GPUs\n" if one.replicas > 1 else "\n"
    if plan.gpus:
        order = ",".join(map(str, plan.gpus))
        head += f"# CUDA_VISIBLE_DEVICES={order}: ranks that talk the most get GPUs that are close\n"
    return head + str(yaml.safe_dump(document(plan.settings), sort_keys=False))


def as_dict(found: Suggestion, load: Load) -> dict[str, Any]:
    """Everything that was found, as JSON-ready values."""
    return {
        "valid": found.valid,
        "fitting": found.fitting,
        "memory": found.memory,
        "plans": [
            _row(plan.candidate)
            | {"batch": plan.candidate.batch, "rate": plan.candidate.rate, "p99": plan.candidate.p99}
            | {"cost_an_image": load.cost(plan.candidate), "gpus_by_rank": list(plan.gpus) or None}
            | {"reasons": plan.reasons, "estimate": plan.estimate.to_dict(), "config": config(plan)}
            for plan in found.best
        ],
        "pareto": [_row(candidate) for candidate in found.front],
        "problem": found.problem or None,
        "remedies": list(found.remedies),
    }


def _row(one: Candidate) -> dict[str, Any]:
    changes = {".".join(FIELDS[name]): value for name, value in one.changes.items()}
    return {
        "title": one.title,
        "gpus": one.gpus,
        "replicas": one.replicas,
        "seconds": round(one.seconds, 3),
        "gib": round(one.gib, 2),
        "pictures_a_second": round(one.throughput, 4),
        "changes": changes,
    }


def _show(
    found: Suggestion, title: str, objective: Objective, load: Load, unguided: bool, commands: Sequence[str]
) -> None:
    console = Console(highlight=False)
    if not found.best:
        lead = "No plan carries that." if found.fitting else "No plan fits."
        console.print(f"[bold red]{lead}[/] {found.problem}", soft_wrap=True)
        for remedy in found.remedies:
            console.print(f"  next: {remedy}", soft_wrap=True)
        return
    console.print(
        f"[bold]{title}[/]: {found.fitting} of {found.valid} valid plans fit into {found.memory:g} GiB", soft_wrap=True
    )
    if unguided:
        console.print(
            "Without a negative prompt this model has no guidance; --negative-prompt '' plans for both branches."
        )
    console.print()
    table = _under_load(found, load) if objective == "throughput" else _best(found, objective)
    console.print(table)
    for reason in found.best[0].reasons:
        console.print(f"  1. {reason}", soft_wrap=True)
    front = Table(title="\nPareto front of latency and memory", title_justify="left")
    for name in ("plan", "GPUs", "seconds", "GiB a GPU"):
        front.add_column(name, justify="left" if name == "plan" else "right")
    for one in found.front:
        front.add_row(one.title, str(one.gpus), f"{one.seconds:.3g}", f"{one.gib:.1f}")
    console.print(front)
    text = config(found.best[0])
    if commands:
        text = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#")) + commands[0]
    console.print(f"\n{text}", markup=False, soft_wrap=True)


def _best(found: Suggestion, objective: Objective) -> Table:
    table = Table(title=f"Best by {objective}", title_justify="left")
    for name in ("", "plan", "GPUs", "seconds (range)", "GiB a GPU (range)", "images a second", "mostly"):
        table.add_column(name, justify="left" if name in ("plan", "mostly") else "right")
    for number, plan in enumerate(found.best, start=1):
        one, guess = plan.candidate, plan.estimate
        count = f"{one.gpus}" + (f" (x{one.replicas})" if one.replicas > 1 else "")
        row = (one.title, count, str(guess.seconds), str(guess.gib), f"{one.throughput:.3g}", guess.dominant)
        table.add_row(str(number), *row)
    return table


def _under_load(found: Suggestion, load: Load) -> Table:
    """Plans with their replicas: what they carry together, and how soon they answer."""
    table = Table(title="Best by throughput", title_justify="left")
    priced = ("cost of 1000 images",) if load.price is not None else ()
    names = ("plan", "GPUs", "batch", "seconds a call (range)", "GiB a GPU", "images a minute", "99 % within", *priced)
    for name in ("", *names):
        table.add_column(name, justify="left" if name == "plan" else "right")
    for number, plan in enumerate(found.best, start=1):
        one, guess = plan.candidate, plan.estimate
        count = f"{one.replicas} x {one.gpus}" if one.replicas > 1 else f"{one.gpus}"
        row = [one.title, count, str(one.batch), str(guess.seconds), f"{one.gib:.1f}", f"{60 * one.throughput:.3g}"]
        row.append("" if one.p99 is None else f"{one.p99:.3g} s")
        row += [] if (cost := load.cost(one)) is None else [f"{1000 * cost:.3g}"]
        table.add_row(str(number), *row)
    return table


def _recorded(path: Path) -> Recorded:
    try:
        found = runs_in(path)
    except ValueError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{path}: {(error.strerror or str(error)).lower()}")
    if not found.runs:
        _fail("\n  ".join([f"{path}: none of its runs can be used", *found.refused]))
    return found


def _show_changes(learned: Fitted, recorded: Recorded) -> None:
    console = Console(highlight=False)
    console.print(_changes(learned))
    unused = [f"{run.name}: not used: {'; '.join(run.unused)}" for run in recorded.runs if run.unused]
    for line in (*unused, *(f"left out: {reason}" for reason in recorded.refused)):
        console.print(f"  {line}", markup=False, soft_wrap=True)


def _changes(learned: Fitted) -> Table:
    """What each run changed, in the order in which they were read."""
    title = f"{len(learned.moved)} runs, after the datasheet: seconds a step, and what each run changed"
    table = Table(title=title, title_justify="left")
    for name in ("run", "measured", "estimated before", "after", "changed"):
        table.add_column(name, justify="left" if name in ("run", "changed") else "right")
    for one in learned.moved:
        changed = ", ".join(f"{name} {old:.3g} to {new:.3g}" for name, (old, new) in one.efficiencies.items())
        seconds = (one.run.step_seconds, one.before, one.after)
        table.add_row(one.run.name, *(f"{value:.3g}" for value in seconds), changed or "nothing")
    return table


def _moved(one: Moved) -> dict[str, Any]:
    return {
        "run": one.run.name,
        "step_seconds": one.run.step_seconds,
        "unused": one.run.unused,
        "before": one.before,
        "after": one.after,
        "efficiencies": {name: {"before": old, "after": new} for name, (old, new) in one.efficiencies.items()},
    }


def _load(objective: Objective, rate: str | None, p99: str | None, price: float | None) -> Load:
    if objective != "throughput" and (rate, p99, price) != (None, None, None):
        raise typer.BadParameter("--rate, --p99 and --price go with --objective throughput")
    if price is not None and not 0 < price < inf:
        raise typer.BadParameter(f"--price {price:g}: expected a price above 0")
    try:
        return Load(None if rate is None else rate_in(rate), None if p99 is None else seconds_in(p99), price)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


#: How many plans are asked of an engine's writer, which has no words for some.
_MANY = 40
#: What ``--plot`` is told to draw in the terminal.
_HERE = Path("-")


def _engine(name: str, overrides: Sequence[Override]) -> Override:
    """The engine to plan for, as the config would say it."""
    from omni_config.catalog.load import catalog
    from omni_config.engines import ENGINES

    known = catalog().engine(name)
    exported = [family for family, engine in ENGINES.items() if engine.exported]
    if known is None or known.family not in exported:
        raise typer.BadParameter(f"--export {name}: expected one of {', '.join(exported)}; a version may follow ==")
    for other in overrides:
        if other.path == ("engine",) and str(other.value).partition("==")[0] != known.family:
            raise typer.BadParameter(f"--export {name} plans for {known.family}, and --engine names {other.value}")
    return Override(("engine",), name, ("--export", name))


def _exported(found: Suggestion, engine: str, policies: tuple[Rule, ...], most: int) -> tuple[Suggestion, list[str]]:
    """The plans that the engine has words for, and the command or file of each."""
    from omni_config.checking.export import export as write
    from omni_config.checking.files import read_bytes

    plans: list[Suggested] = []
    commands: list[str] = []
    reasons: list[str] = []
    for plan in found.best:
        if len(plans) == most:
            break
        (document,) = read_bytes("suggested.yaml", config(plan).encode())
        text, findings = write(judge(document.for_engine(engine), policies))
        if text is None:
            reasons += [finding.message for finding in findings if finding.severity == "error"]
        else:
            plans.append(plan)
            commands.append(text)
    if not plans:
        _fail(f"{engine} has no words for any of the {len(found.best)} best plans: {reasons[0]}")
    return replace(found, best=tuple(plans)), commands


def _size(text: str) -> list[Override]:
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if match is None:
        raise typer.BadParameter(f"--size {text}: expected WIDTHxHEIGHT, such as 2048x2048")
    return [
        Override(("sampling", name), int(value), ("--size", text))
        for name, value in zip(("width", "height"), match.groups(), strict=True)
    ]


def _draw(found: Suggestion, path: Path, title: str) -> None:
    from omni_config.planner.plot import draw

    try:
        draw(found, path, title)
    except (ImportError, ValueError) as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{path}: {(error.strerror or str(error)).lower()}")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        _fail(f"{path}: {(error.strerror or str(error)).lower()}")


def _fail(message: str) -> None:
    typer.echo(f"omni suggest: {message}", err=True)
    raise typer.Exit(2)
