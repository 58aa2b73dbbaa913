"""``omni plan``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from math import prod
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

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
    """Show what would run: every setting decided, and which rank holds which part of the mesh."""
    checked = checked_config(document_of(file, overrides), policies)
    result, resolution = checked.plan, checked.resolution
    assert result is not None
    assert resolution is not None
    more = further(resolution.settings)  # with more axes than the mesh has, the engine orders its ranks
    if as_json:
        grid: dict[str, Any] = {"further_axes": more} if more else {"ranks": ranks(result)}
        typer.echo(json.dumps(result.to_dict() | grid, indent=2))
        return
    console = Console(highlight=False)
    console.print(plan_table(result, more))
    if not more:
        console.print(rank_table(result))


def ranks(plan: Plan) -> list[dict[str, int]]:
    """The rank grid: each rank with its machine and its coordinates."""
    share = plan.mesh.ranks_per_node
    return [{"rank": rank, "node": rank // share} | plan.mesh.coordinates(rank) for rank in range(plan.mesh.world_size)]


def made(plan: Plan) -> str:
    """What is made, in a word."""
    return "video" if plan.sampling.video else "image"


def plan_table(plan: Plan, more: Mapping[str, int] | None = None) -> Table:
    """The Plan in two columns; ``more`` are the axes that its engine has beside those of the mesh."""
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
    axes = [f"{plan.mesh}{tensor}", *(f"{name} {size}" for name, size in (more or {}).items())]
    count_of_ranks = prod((plan.mesh.world_size, *(more or {}).values()))
    rows: dict[str, Any] = {
        "engine": plan.engine,
        "pipeline": f"{plan.model.pipeline} ({plan.model.dtype}) from {plan.model.source}",
        "mesh": f"{' x '.join(axes)} = {count_of_ranks} rank{'s' * (count_of_ranks > 1)}"
        + (f" on {plan.mesh.nodes} nodes" if plan.mesh.nodes > 1 else ""),
        "cache": " ".join([backend, *(f"{name}={value}" for name, value in cache.items())]),
        "offload": plan.offload,
        "lora": ", ".join(f"{adapter.path} x {adapter.scale:g}" for adapter in plan.lora) or "none",
        "attention": f"{plan.attention_backend}, blocks {'compiled' if plan.compile else 'not compiled'}",
        "vae": f"tiling {tiling}, slicing {slicing}, patch parallel {vae.patch_parallel_size}",
        made(plan): ", ".join(size),
        "guidance": ", ".join(f"{name} {value:g}" for name, value in sampling.guidance.items()) or "none",
        "prompt": sampling.prompt,
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
