"""``omni model``: a model card from a checkpoint's own files."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from omni_config.cards import ModelCard
from omni_config.catalog.checkpoint import describe
from omni_config.catalog.load import catalog
from omni_config.engines.facts import facts_of

#: Whose facts say in which file a pipeline is; of one that another version has elsewhere, no defaults are read.
DIFFUSERS = "diffusers==0.42.1"


def model(
    folder: Annotated[Path, typer.Argument(help="A diffusers folder: model_index.json and a folder a component.")],
) -> None:
    """Write the model card of a checkpoint: its dimensions, precision, parameters, guidance and defaults.

    Read are its configurations and the headers of its safetensors files, never the weights. What they cannot say is
    named in comments below the card.
    """
    facts = facts_of(DIFFUSERS)
    try:
        described = describe(folder, catalog(), facts.pipelines if facts else {})
    except ValueError as error:
        typer.echo(f"omni: {folder}: {error}", err=True)
        raise typer.Exit(2) from None
    typer.echo(as_yaml(described.card), nl=False)
    typer.echo(f"# Taken over from the card of a like pipeline: {', '.join(described.taken_over)}.")
    if described.unknown:
        typer.echo(f"# Not known from these files: {', '.join(described.unknown)}.")


def as_yaml(card: ModelCard) -> str:
    """A card in the form of a file of the catalog."""
    import yaml

    stated = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(card).items()}
    if card.guidance:
        stated["guidance"] = {name: value for name, value in asdict(card.guidance).items() if value is not None}
    order = ["family", "task", "pipeline", "dtype", "defaults", "guidance", "dims", "tensor_parallel_splits"]
    order += ["vae"] if card.vae else []
    content = {name: stated[name] for name in (*order, "claims", "sources")} | {"models": [{"id": card.id}]}
    return str(yaml.safe_dump(content, sort_keys=False, width=120))
