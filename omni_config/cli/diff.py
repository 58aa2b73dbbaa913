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
from omni_config.checking.files import Checked, check, check_node
from omni_config.findings import Finding
from omni_config.schema.overrides import with_engine


def diff(
    files: Annotated[list[Path], typer.Argument(help="Two configs; or one, with --engine twice.")],
    engine: Annotated[list[str], typer.Option("--engine", help="An engine, such as vllm-omni==0.30; twice.")] = [],  # noqa: B006
    as_json: Annotated[bool, typer.Option("--json", help="Print the difference as JSON.")] = False,
) -> None:
    """Say what a change does to the deployment: resolved settings, ranks, quality, memory, findings.

    Exit code: 0 no guarantee is lost, 1 one is (lossless to lossy, fits to does not fit, runs to does not run), 2 a
    config that cannot be used.
    """
    if (len(files), len(engine)) not in ((2, 0), (1, 2)):
        raise typer.BadParameter("give two configs, or one config and --engine twice")
    unknown = next((name for name in engine if catalog().engine(name) is None), None)
    if unknown:
        raise typer.BadParameter(f"{unknown}: expected one of {', '.join(catalog().engine_ids)}", param_hint="--engine")
    old, new = [_documents(files[0], name) for name in engine] if engine else [_documents(file) for file in files]
    if len(old) != len(new):
        _fail(f"{files[0]} has {len(old)} deployments, {files[-1]} has {len(new)}")
    differences = [compare(before, after) for before, after in zip(old, new, strict=True)]
    if as_json:
        typer.echo(json.dumps([difference.to_dict() for difference in differences], indent=2))
    else:
        for difference in differences:
            Console(highlight=False, soft_wrap=True).print(_shown(difference))
    raise typer.Exit(1 if any(difference.lost for difference in differences) else 0)


def _documents(file: Path, engine: str = "") -> list[Checked]:
    documents = []
    for item in check(file):
        if item.resolution is None or item.node is None:
            first = item.findings[0] if item.findings else None
            _fail(f"{first.span}: {first.code} {first.message}" if first else f"{file}: no deployment is in it")
        documents.append(_moved(item, engine) if engine else item)
    return documents


def _moved(item: Checked, engine: str) -> Checked:
    from omni_config.checking.other_engines import UNNAMED

    assert item.node is not None
    stand_in = UNNAMED if item.foreign else None
    return check_node(item.source, with_engine(item.node, engine), stand_in=stand_in)


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
