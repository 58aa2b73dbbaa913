"""``omni diff``: for the review of a change of a config, or of the engine's version."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from omni_config.catalog.load import catalog
from omni_config.checking.compare import Difference, compare
from omni_config.checking.document import CheckResult, judge
from omni_config.checking.files import read
from omni_config.cli.policies import Rules, load_rules
from omni_config.findings import Finding
from omni_config.rules.rule import Rule


def diff(
    files: Annotated[list[Path], typer.Argument(help="Two configs; or one, with --engine twice.")],
    engine: Annotated[list[str], typer.Option("--engine", help="An engine, such as vllm-omni==0.30; twice.")] = [],  # noqa: B006
    rules: Rules = [],  # noqa: B006
    as_json: Annotated[bool, typer.Option("--json", help="Print the difference as JSON.")] = False,
) -> None:
    """Say what a change does to the deployment: resolved settings, ranks, quality, memory, findings.

    Exit code: 0 no guarantee is lost, 1 one is (lossless to lossy, fits to does not fit, runs to does not run, an error
    that appears, a setting that is changed or ignored from now on), 2 a config that cannot be used.
    """
    if (len(files), len(engine)) not in ((2, 0), (1, 2)):
        raise typer.BadParameter("give two configs, or one config and --engine twice")
    unknown = next((name for name in engine if catalog().engine(name) is None), None)
    if unknown:
        raise typer.BadParameter(f"{unknown}: expected one of {', '.join(catalog().engine_ids)}", param_hint="--engine")
    sides = [(files[0], name) for name in engine] if engine else [(file, "") for file in files]
    policies = load_rules(rules)
    old, new = [_judged(file, name, policies) for file, name in sides]
    if len(old) != len(new):
        _fail(f"{files[0]} has {len(old)} deployments, {files[-1]} has {len(new)}")
    differences = [compare(before, after) for before, after in zip(old, new, strict=True)]
    if as_json:
        typer.echo(json.dumps([difference.to_dict() for difference in differences], indent=2))
    else:
        for difference in differences:
            Console(highlight=False, soft_wrap=True).print(_shown(difference))
    raise typer.Exit(1 if any(difference.lost for difference in differences) else 0)


def _judged(file: Path, engine: str, policies: tuple[Rule, ...]) -> list[CheckResult]:
    documents = read(file)
    results = [judge(document.for_engine(engine) if engine else document, policies) for document in documents]
    for item in results:
        if item.resolution is None:
            first = item.findings[0] if item.findings else None
            _fail(f"{first.span}: {first.code} {first.message}" if first else f"{file}: no deployment is in it")
    return results


def _shown(difference: Difference) -> Text:
    text = Text()
    for title, changes in (("Settings", difference.settings), ("What follows", difference.facts)):
        if changes:
            text.append(f"{title}\n", "bold")
            width = max(map(len, changes))
            for name, (before, after) in changes.items():
                text.append(f"  {name:<{width}}  {_said(before)} -> {_said(after)}\n")
    for title, mark, style, findings in (
        ("Findings that appear", "+", "red", difference.appeared),
        ("Findings that disappear", "-", "green", difference.disappeared),
    ):
        if findings:
            text.append(f"{title}\n", "bold")
            for finding in findings:
                text.append(f"  {mark} {finding.code} [{finding.severity}] {finding.message}{_since(finding)}\n", style)
    if difference.lost:
        text.append(f"Lost: {'; '.join(difference.lost)}", "bold red")
    else:
        text.append("No guarantee is lost." if text.plain else "Nothing changes.", "bold green")
    return text


def _since(finding: Finding) -> str:
    rule = catalog().by_code.get(finding.code)
    return f" (changed: {rule.since})" if rule and rule.since else ""


def _said(value: Any) -> str:
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _fail(message: str) -> None:
    typer.echo(f"omni diff: {message}", err=True)
    raise typer.Exit(2)
