"""``omni plan``."""

from __future__ import annotations

import json
from dataclasses import asdict
from math import prod
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from omni_config.checking.document import CheckResult, judge
from omni_config.cli.explained import show_findings
from omni_config.cli.flags import with_overrides
from omni_config.cli.inputs import checked_config, document_of
from omni_config.mesh import NAMES, further
from omni_config.plan import Plan
from omni_config.rules.rule import Rule
from omni_config.schema.overrides import Override


@with_overrides
def plan(
    file: Annotated[Path | None, typer.Argument(help="The config.", show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the Plan as JSON.")] = False,
    overrides: list[Override] = [],  # noqa: B006 (filled in by the decorator)
    policies: tuple[Rule, ...] = (),
) -> None:
    """Show what would run: every setting decided, and which rank holds which part of the mesh.

    For another engine each setting says whether it is said, a default, or chosen, changed or dropped by the engine.
    """
    document = document_of(file, overrides)
    checked = judge(document, policies)
    if checked.resolution is not None and checked.resolution.engine.id != "native":
        _of_another_engine(checked, as_json)
        return
    checked = checked_config(document, policies)
    result = checked.plan
    assert result is not None
    assert checked.resolution is not None
    replicas = checked.resolution.settings["data_parallel_size"] or 1
    if as_json:
        more = {"data_parallel_size": replicas} if replicas > 1 else {}
        typer.echo(json.dumps(result.to_dict() | {"ranks": ranks(result)} | more, indent=2))
        return
    console = Console(highlight=False)
    console.print(plan_table(result))
    console.print(rank_table(result))
    if replicas > 1:
        console.print(f"\nReplicas: {replicas} of these = {replicas * result.mesh.world_size} ranks")


def _of_another_engine(checked: CheckResult, as_json: bool) -> None:
    """Print the effective configuration, with the findings on stderr; exit code 1 for an error among them."""
    from omni_config.checking.effective import effective
    from omni_config.output.effective import effective_json, effective_table

    rows, plan = effective(checked), checked.plan
    more = further(checked.resolution.settings) if checked.resolution else {}  # the engine itself orders such ranks
    if as_json:
        grid: dict[str, Any] = {"further_axes": more} if more or plan is None else {"ranks": ranks(plan)}
        of_plan = plan.to_dict() | grid if plan else {}
        typer.echo(json.dumps(of_plan | effective_json(checked, rows), indent=2))
    else:
        show_findings(checked.findings)
        console = Console(highlight=False)
        console.print(effective_table(checked, rows))
        if plan is not None:
            axes = [str(plan.mesh), *(f"{name} {size}" for name, size in more.items())]
            count = prod((plan.mesh.world_size, *more.values()))
            console.print(f"\nMesh: {' x '.join(axes)} = {count} rank{'s' * (count > 1)}")
        if plan is not None and plan.mesh.world_size > 1 and not more:
            console.print(rank_table(plan))
    if checked.exit_code:
        raise typer.Exit(checked.exit_code)


def ranks(plan: Plan) -> list[dict[str, int]]:
    """The rank grid: each rank with its machine and its coordinates."""
    share = plan.mesh.ranks_per_node
    return [{"rank": rank, "node": rank // share} | plan.mesh.coordinates(rank) for rank in range(plan.mesh.world_size)]


def made(plan: Plan) -> str:
    """What is made, in a word."""
    return "video" if plan.sampling.video else "image"


def plan_table(plan: Plan) -> Table:
    """The Plan in two columns."""
    table = Table(title=f"Plan for {plan.model.id}", show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column()
    sampling, vae = plan.sampling, plan.vae
    cache = {name: value for name, value in asdict(plan.cache).items() if value is not None} if plan.cache else {}
    backend = cache.pop("backend", "none")
    tiling, slicing = ("on" if on else "off" for on in (vae.use_tiling, vae.use_slicing))
    tensor = " (and the text encoder)" if plan.text_encoder_tensor_parallel and plan.mesh.tensor > 1 else ""
    count = f"{sampling.num_images_per_prompt} of " if sampling.num_images_per_prompt > 1 else ""
    size = [f"{count}{sampling.width}x{sampling.height}"]
    if sampling.video:
        size.append(f"{sampling.video.num_frames} frames at {sampling.video.fps} a second")
    size += [f"{sampling.num_inference_steps} steps", f"seed {sampling.seed}"]
    rows: dict[str, Any] = {
        "engine": plan.engine,
        "pipeline": f"{plan.model.pipeline} ({plan.model.dtype}) from {plan.model.source}",
        "mesh": f"{plan.mesh}{tensor} = {plan.mesh.world_size} rank{'s' if plan.mesh.world_size > 1 else ''}"
        + (f" on {plan.mesh.nodes} nodes" if plan.mesh.nodes > 1 else ""),
        "cache": " ".join([backend, *(f"{name}={value}" for name, value in cache.items())]),
        "offload": plan.offload,
        "lora": ", ".join(f"{adapter.path} x {adapter.scale:g}" for adapter in plan.lora) or "none",
        "attention": f"{plan.attention_backend}, blocks {'compiled' if plan.compile else 'not compiled'}",
        "vae": f"tiling {tiling}, slicing {slicing}, patch parallel {vae.patch_parallel_size}",
        made(plan): ", ".join(size),
        "guidance": ", ".join(f"{name} {value:g}" for name, value in sampling.guidance.items()) or "none",
        "prompt": "\n".join(sampling.prompts),
        "negative prompt": sampling.negative_prompt,
        "input image": sampling.image,
        "output": plan.output,
    }
    for name, value in rows.items():
        if value is not None:
            table.add_row(name, str(value))
    return table


def rank_table(plan: Plan) -> Table:
    """Which rank holds which coordinate."""
    table = Table(title="Ranks", title_justify="left")
    for column in ("rank", "node", *NAMES):
        table.add_column(column, justify="right")
    for row in ranks(plan):
        table.add_row(*(str(value) for value in row.values()))
    return table
