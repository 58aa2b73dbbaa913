"""``omni prove``."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from omni_config.cli.explained import show_findings
from omni_config.cli.flags import with_overrides
from omni_config.cli.inputs import checked_plan, document_of
from omni_config.cli.running import bar, errors, fail, require_startable
from omni_config.rules.rule import Rule
from omni_config.schema.overrides import Override

if TYPE_CHECKING:
    from matrix.engines.environments import Environment
    from omni_config.checking.document import ParsedDocument
    from runtime.proof.prove import Distance, Proof


@with_overrides
def prove(
    file: Annotated[Path | None, typer.Argument(help="The config.", show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the proof as JSON.")] = False,
    timeout: Annotated[float, typer.Option("--timeout", min=1, help="Seconds without progress that end a run.")] = 600,
    overrides: list[Override] = [],  # noqa: B006 (filled in by the decorator)
    policies: tuple[Rule, ...] = (),
) -> None:
    """Run a config and the plain pipeline on one rank, and compare what they compute.

    With --engine xdit or sglang, that engine itself runs it, with a small model in the place of the published one.

    Each run is followed by controls, in which one weight of one rank is damaged: they must be noticed. Exit code: 0
    proven, 1 findings, a failed run, or a difference above the bound, 2 a config that cannot be used.
    """
    document = document_of(file, overrides)
    if document.node is not None and (environment := _environment(document.node.value.get("engine"))):
        raise typer.Exit(_of_engine(environment, document.as_ours(), policies, as_json, timeout))
    plan = checked_plan(file, overrides, policies)
    require_startable("prove", plan)
    from runtime.proof.prove import prove as start

    with errors("prove"), bar() as show:
        proof = start(plan, timeout=timeout, on_progress=lambda done, all_: show("runs", done, all_))
    if proof.log:
        typer.echo(proof.log.rstrip(), err=True)
    if as_json:
        typer.echo(json.dumps(proof.to_dict(), indent=2))
    else:
        Console(highlight=False, soft_wrap=True).print(_table(proof))
    raise typer.Exit(0 if proof.passed else 1)


def _environment(engine: object) -> Environment | None:
    """The environment of another engine that can be run here; None for any other."""
    from matrix.engines.environments import NoEnvironment, environment

    try:
        return environment(str(engine))
    except NoEnvironment:
        return None


def _of_engine(
    environment: Environment, document: ParsedDocument, policies: tuple[Rule, ...], as_json: bool, timeout: float
) -> int:
    """Run a config on another engine, whatever the rules say of it, and show both; the exit code."""
    from matrix.engines.environments import NoEnvironment
    from matrix.engines.judge import OUTCOMES, RUNS
    from matrix.engines.prove_one import prove_config
    from omni_config.checking.document import judge
    from omni_config.checking.export import said

    checked = judge(document, policies)
    show_findings(checked.findings)
    if checked.resolution is None:
        return 2
    settings = said(checked)
    named = str(settings["model"])
    model = {"tiny": "Tongyi-MAI/Z-Image", "tiny-qwen": "Qwen/Qwen-Image"}.get(named, named)
    small = {name: value for name, value in settings.items() if name in _LARGEST and value <= _LARGEST[name]}
    request = {name: value for name, value in settings.items() if name in _REQUEST} | small
    asked = {name: value for name, value in settings.items() if name not in {*_REQUEST, *_LARGEST, *_NOT_RUN}}
    left = [name for name in settings if name in {*_LARGEST, *_NOT_RUN} - {*small, *_NAMES}]
    try:
        with bar() as show:
            proven = prove_config(
                environment, model, asked, request, lambda done, all_: show("runs", done, all_), timeout
            )
    except (NoEnvironment, ValueError) as error:
        fail("prove", str(error))
    told = proven.to_dict() | {"left_out": left}
    if as_json:
        typer.echo(json.dumps(told, indent=2))
    else:
        outcome = proven.shown.judged.outcome
        typer.echo(f"{environment.engine}, with a small {model}: {outcome} ({OUTCOMES[outcome]})")
        typer.echo(f"  ran: {told['command']}, {told['ranks']} ranks")
        typer.echo(f"  why: {told['why']}" + (f" (at the moment: {told['moment']})" if told["moment"] else ""))
        typer.echo(f"  control: {told['control']} dB with a damaged weight" if told["control"] else "  control: none")
        if left:
            typer.echo(f"  left out: {', '.join(left)}, of which the small model has its own or none")
        if proven.idle:
            typer.echo(f"  without effect: {', '.join(proven.idle)}")
        if told["one_process_to_diffusers"] is not None:
            typer.echo(f"  one process is {told['one_process_to_diffusers']} dB from the pipeline of diffusers")
        typer.echo(f"  the rules say: {told['rules']['verdict']} {' '.join(told['rules']['codes'])}".rstrip())
        typer.echo(f"  stand-ins: {', '.join(told['standins']) or 'none'}")
    return 0 if proven.shown.judged.outcome in RUNS else 1


#: Of what is generated, what a config says itself.
_REQUEST = ("prompt", "negative_prompt", "num_inference_steps", "cfg_scale", "guidance_scale", "seed")
#: Sizes up to which a small model is run with the config's own: larger ones take minutes on a CPU.
_LARGEST = {"width": 512, "height": 512, "num_frames": 33}
#: What says who runs, and is told above.
_NAMES = ("version", "model", "engine")
#: What says nothing about how it runs, or is the small model's own.
_NOT_RUN = (*_NAMES, "output", "memory", "gpu", "machine", "gpus_per_node", "image", "fps", "dtype",
            "num_images_per_prompt")  # fmt: skip


def _table(proof: Proof) -> Table:
    title = "proven" if proof.passed else f"not proven: {proof.problem}"
    table = Table(title=f"{proof.plan['model']['id']}, {proof.kind}: {title}", title_justify="left")
    for column in ("against the plain pipeline", "largest difference of latents", "PSNR of the image"):
        table.add_column(column)
    limit = proof.bound
    table.add_row(
        "bound",
        f"at most {limit.difference:g}" if math.isfinite(limit.difference) else "any",
        f"at least {limit.psnr:g} dB",
    )
    if proof.distance is not None:
        table.add_row("this config", *_cells(proof.distance))
    for part, distance in proof.controls.items():
        table.add_row(f"with a damaged weight ({part})", *_cells(distance))
    return table


def _cells(distance: Distance) -> tuple[str, str]:
    return f"{distance.difference:.2g}", f"{distance.psnr:.1f} dB" if math.isfinite(distance.psnr) else "equal"
