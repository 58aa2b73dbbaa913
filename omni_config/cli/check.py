"""``omni check``."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from omni_config.cli.policies import Rules, load_rules
from omni_config.output.run_check import run


class Format(StrEnum):
    """How findings are printed."""

    text = "text"
    json = "json"
    sarif = "sarif"
    github = "github"
    junit = "junit"


def check(
    files: Annotated[list[str], typer.Argument(help="Files, folders, globs, or - for standard input.")] = [],  # noqa: B006
    output_format: Annotated[Format, typer.Option("--output-format", help="How to print findings.")] = Format.text,
    as_json: Annotated[bool, typer.Option("--json", help="Short for --output-format json.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings fail too.")] = False,
    rules: Rules = [],  # noqa: B006
    model: Annotated[
        str | None, typer.Option("--model", help="Model of another engine's files that name none.")
    ] = None,
    engine: Annotated[str | None, typer.Option("--engine", help="Its version, such as vllm-omni==0.30.")] = None,
    gpu: Annotated[
        str | None, typer.Option("--gpu", help="GPU of another engine's files, which cannot say it.")
    ] = None,
    gpus: Annotated[int | None, typer.Option("--gpus", min=1, help="How many, where a file does not say it.")] = None,
    aside: Annotated[
        bool, typer.Option("--set-aside", help="Set files of other forms aside, also those that are named; for hooks.")
    ] = False,
    render: Annotated[
        list[str], typer.Option("--render", help="Charts and overlays, rendered first by helm or kustomize.")
    ] = [],  # noqa: B006
) -> None:
    """Say whether configs will run; if not, which line breaks which rule, why, and what would work.

    Files of other engines are understood as they are: Python, commands in shell and Slurm scripts, Dockerfiles, compose
    files, Kubernetes manifests, Helm templates, tasks and steps of CI, vLLM-Omni's stages, cache-dit's YAML, SGLang's
    config files, the YAML of TensorRT-LLM's --visual_gen_args.

    Exit code: 0 clean (warnings and advice allowed), 1 findings, 2 a file that cannot be used.
    """
    if not files and not render:
        raise typer.BadParameter("give files or folders, or --render with a chart")
    chosen = Format.json if as_json else output_format
    said = {"model": model, "engine": engine, "gpu": gpu, "gpus": gpus}
    assume = {name: str(value) for name, value in said.items() if value is not None}
    policies = load_rules(rules)
    raise typer.Exit(
        run(files, chosen.value, strict=strict, policies=policies, assume=assume, charts=render, aside=aside)
    )
