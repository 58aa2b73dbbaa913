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
    files: Annotated[list[str], typer.Argument(help="Files, folders, globs, or - for standard input.")],
    output_format: Annotated[Format, typer.Option("--output-format", help="How to print findings.")] = Format.text,
    as_json: Annotated[bool, typer.Option("--json", help="Short for --output-format json.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings fail too.")] = False,
    rules: Rules = [],  # noqa: B006
    model: Annotated[
        str | None, typer.Option("--model", help="Model of another engine's files that name none.")
    ] = None,
    engine: Annotated[str | None, typer.Option("--engine", help="Its version, such as vllm-omni==0.30.")] = None,
) -> None:
    """Say whether configs will run; if not, which line breaks which rule, why, and what would work.

    Files of other engines are understood as they are: commands in shell scripts, Dockerfiles, compose files and
    Kubernetes manifests, vLLM-Omni's stages, cache-dit's YAML, SGLang's config files, the YAML of TensorRT-LLM's
    --visual_gen_args.

    Exit code: 0 clean (warnings and advice allowed), 1 findings, 2 a file that cannot be used.
    """
    chosen = Format.json if as_json else output_format
    assume = {name: value for name, value in (("model", model), ("engine", engine)) if value is not None}
    raise typer.Exit(run(files, chosen.value, strict=strict, policies=load_rules(rules), assume=assume))
