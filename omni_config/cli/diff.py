"""``omni diff``: for the review of a change of a config, or of the engine's version."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from omni_config.catalog.load import catalog
from omni_config.checking.compare import Difference, compare
from omni_config.checking.document import CheckResult, ParsedDocument, judge
from omni_config.checking.files import read
from omni_config.cli.explained import show_pages
from omni_config.cli.policies import Rules, load_rules
from omni_config.findings import Finding
from omni_config.rules.rule import Rule


def diff(
    files: Annotated[list[Path], typer.Argument(help="Two configs or files of engines; or one, with --engine twice.")],
    engine: Annotated[list[str], typer.Option("--engine", help="An engine, such as vllm-omni==0.30; twice.")] = [],  # noqa: B006
    rules: Rules = [],  # noqa: B006
    as_json: Annotated[bool, typer.Option("--json", help="Print the difference as JSON.")] = False,
) -> None:
    """Say what a change does to the deployment: resolved settings, ranks, quality, memory, findings.

    With two versions of an engine: what the second refuses, drops, works out or spells differently for this file,
    which may be one of that engine.

    Exit code: 0 no guarantee is lost, 1 one is (lossless to lossy, fits to does not fit, runs to does not run, an error
    that appears, a setting that is changed or ignored from now on), 2 a config that cannot be used.
    """
    if (len(files), len(engine)) not in ((2, 0), (1, 2)):
        raise typer.BadParameter("give two configs, or one config and --engine twice")
    unknown = next((name for name in engine if catalog().engine(name) is None), None)
    if unknown:
        raise typer.BadParameter(f"{unknown}: expected one of {', '.join(catalog().engine_ids)}", param_hint="--engine")
    names = [card.id for name in engine if (card := catalog().engine(name))]
    sides = [(files[0], name) for name in names] if engine else [(file, "") for file in files]
    policies = load_rules(rules)
    old, new = [_judged(file, name, policies) for file, name in sides]
    if len(old) != len(new):
        _fail(f"{files[0]} has {len(old)} deployments, {files[-1]} has {len(new)}")
    differences = [compare(before, after) for before, after in zip(old, new, strict=True)]
    if as_json:
        typer.echo(json.dumps([difference.to_dict() for difference in differences], indent=2))
    else:
        for item, difference in zip(new, differences, strict=True):
            if len(new) > 1 and item.node is not None:
                typer.echo(f"{item.node.span.source.name}:{item.node.span.line}")
            Console(highlight=False, soft_wrap=True).print(_shown(difference))
    show_pages([finding for difference in differences for finding in difference.appeared])
    raise typer.Exit(1 if any(difference.lost for difference in differences) else 0)


def _judged(file: Path, engine: str, policies: tuple[Rule, ...]) -> list[CheckResult]:
    documents = read(file, {"engine": engine} if engine else None)
    results = [judge(_by(document, engine) if engine else document, policies) for document in documents]
    for item in results:
        if item.resolution is None:
            first = item.findings[0] if item.findings else None
            _fail(f"{first.span}: {first.code} {first.message}" if first else f"{file}: no deployment is in it")
    return results


def _by(document: ParsedDocument, engine: str) -> ParsedDocument:
    """A document for the engine that judges it. Of a file of another engine only the settings count."""
    if document.foreign and document.node is not None and document.node.value["engine"] != engine:
        document = replace(document, notes=())
    return document.for_engine(engine)


def _shown(difference: Difference) -> Text:
    text = Text()
    for title, changes in (("Settings", difference.settings), ("What follows", difference.facts)):
        if changes:
            text.append(f"{title}\n", "bold")
            width = max(map(len, changes))
            for name, (before, after) in changes.items():
                text.append(f"  {name:<{width}}  {_said(before)} -> {_said(after)}\n")
    if difference.renamed:
        text.append("Renamed\n", "bold")
        for item in difference.renamed:
            text.append(f"  {item.old} -> {item.new} (since {item.since})\n")
    if difference.defaults:
        text.append("Defaults that the file leaves unsaid\n", "bold")
        for default in difference.defaults:
            change = f"{default.setting} {_said(default.before)} -> {_said(default.after)}"
            text.append(f"  {change}: {default.says}\n")
    for title, mark, style, findings in (
        ("Findings that appear", "+", "red", difference.appeared),
        ("Findings that disappear", "-", "green", difference.disappeared),
    ):
        if findings:
            text.append(f"{title}\n", "bold")
            for finding in findings:
                said = f"{finding.code} [{finding.severity}] {finding.message}{_since(finding)}"
                next_step = f"; next: {finding.next_step}" if mark == "+" and finding.next_step else ""
                text.append(f"  {mark} {said}{next_step}\n", style)
    if difference.lost:
        text.append(f"Lost: {'; '.join(difference.lost)}", "bold red")
    else:
        text.append("No guarantee is lost." if text.plain else "Nothing changes.", "bold green")
    return text


def _since(finding: Finding) -> str:
    rule = catalog().by_code.get(finding.code)
    return f" (changed: {rule.since})" if rule and rule.since else ""


def _said(value: Any) -> str:
    if isinstance(value, str) and not value.strip():
        return repr(value)
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _fail(message: str) -> None:
    typer.echo(f"omni diff: {message}", err=True)
    raise typer.Exit(2)
