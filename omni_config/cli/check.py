"""``omni check``."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from omni_config.checking.choices import Choices
from omni_config.cli.completion import codes, engines, models
from omni_config.cli.completion import gpus as known_gpus
from omni_config.cli.explained import Explain
from omni_config.cli.policies import Rules, load_rules
from omni_config.output.run_check import Options, run
from omni_config.reading.discover import STDIN
from omni_config.rules.rule import Rule


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
        str | None,
        typer.Option(
            "--model",
            help="Model of another engine's files that name none.",
            autocompletion=models,
        ),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            "--engine",
            help="Its version, such as vllm-omni==0.30.",
            autocompletion=engines,
        ),
    ] = None,
    gpu: Annotated[
        str | None,
        typer.Option(
            "--gpu",
            help="GPU of another engine's files, which cannot say it.",
            autocompletion=known_gpus,
        ),
    ] = None,
    gpus: Annotated[int | None, typer.Option("--gpus", min=1, help="How many, where a file does not say it.")] = None,
    aside: Annotated[
        bool, typer.Option("--set-aside", help="Set files of other forms aside, also those that are named; for hooks.")
    ] = False,
    render: Annotated[
        list[str], typer.Option("--render", help="Charts and overlays, rendered first by helm or kustomize.")
    ] = [],  # noqa: B006
    select: Annotated[
        list[str],
        typer.Option(
            "--select", help="Only these codes, or areas by their beginning: OMNI1,OMNI503.", autocompletion=codes
        ),
    ] = [],  # noqa: B006
    ignore: Annotated[
        list[str],
        typer.Option(
            "--ignore",
            help="Not these codes or areas.",
            autocompletion=codes,
        ),
    ] = [],  # noqa: B006
    advice: Annotated[bool, typer.Option("--advice", help="Show advice, which is one line else.")] = False,
    explain: Explain = False,
    exit_zero: Annotated[bool, typer.Option("--exit-zero", help="Exit code 0, whatever is found.")] = False,
    baseline: Annotated[
        str, typer.Option("--baseline", metavar="FILE", help="Findings accepted so far; only others fail.")
    ] = "",
    write_baseline: Annotated[
        bool, typer.Option("--write-baseline", help="Write what is found to the baseline.")
    ] = False,
    changed: Annotated[bool, typer.Option("--changed", help="Only files that differ from git's HEAD.")] = False,
    since: Annotated[
        str, typer.Option("--since", metavar="REV", help="Only files changed since the branch left REV, as main.")
    ] = "",
    watching: Annotated[bool, typer.Option("--watch", help="Check again what changes, until interrupted.")] = False,
) -> None:
    """Say whether configs will run; if not, which line breaks which rule, why, and what would work.

    Files of other engines are understood as they are: Python, commands in shell and Slurm scripts, Dockerfiles, compose
    files, Kubernetes manifests, Helm templates, tasks and steps of CI, vLLM-Omni's stages, cache-dit's YAML, SGLang's
    config files, the YAML of TensorRT-LLM's --visual_gen_args.

    A [tool.omni] table in pyproject.toml, or omni.toml, says what a repository wants: select, ignore, exclude,
    per-file-ignores, engines, gpu. Flags stand over it.

    Exit code: 0 clean (warnings and advice allowed), 1 findings, 2 a file that cannot be used.
    """
    if not files and (changed or since):
        files = ["."]
    if not files and not render:
        raise typer.BadParameter("give files or folders, or --render with a chart")
    if write_baseline and not baseline:
        raise typer.BadParameter("--write-baseline needs --baseline FILE")
    if watching and (render or STDIN in files or write_baseline):
        raise typer.BadParameter("--watch takes files and folders, and writes no baseline")
    chosen = Format.json if as_json else output_format
    said = {"model": model, "engine": engine, "gpu": gpu, "gpus": gpus}
    assume = {name: str(value) for name, value in said.items() if value is not None}
    policies = load_rules(rules)
    options = Options(
        chosen.value,
        strict,
        tuple(render),
        aside,
        advice,
        exit_zero,
        baseline,
        write_baseline,
        since or "HEAD" * changed,
        explain,
    )
    choices = Choices(_codes(select, policies), _codes(ignore, policies), assume, policies)
    if watching:
        from omni_config.output.watch import watch

        raise typer.Exit(watch(files, options, choices))
    raise typer.Exit(run(files, options, choices))


def _codes(texts: list[str], policies: tuple[Rule, ...]) -> tuple[str, ...]:
    if not texts:
        return ()
    from omni_config.checking.selection import codes_of

    try:
        return codes_of(texts, (rule.code for rule in policies))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
