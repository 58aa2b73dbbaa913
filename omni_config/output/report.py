"""What a check prints: findings and a line that sums up, for people; for programs, ``formats``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from omni_config.checking.document import CheckResult

if TYPE_CHECKING:
    from rich.text import Text

    from omni_config.findings import Finding

MOST_REPAIRS_SHOWN = 20  # documents; the search takes longer than the check


@dataclass(eq=False, repr=False)
class Report:
    """Documents that were checked, and files that were not: of other forms, or excluded by the repository.

    ``gone`` is how much of the baseline is no longer found, and ``since`` the revision that files were held against.
    """

    checked: list[CheckResult] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    excluded: list[str] = field(default_factory=list)
    gone: int = 0
    since: str = ""


def print_report(report: Report, output_format: str, advice: bool, explain: bool = False) -> None:
    """Print it; ``advice`` is summed up where it was not asked for, but for formats that keep all there is.

    ``explain``: for people, the pages of the rules follow the findings.
    """
    if output_format == "text":
        if report.checked:
            _print(report, advice, explain)
    else:
        from omni_config.output import formats

        shown = report.checked
        if output_format == "github" and not advice:  # which shows ten of a kind, and then no more
            shown = [_without_advice(item) for item in shown]
        if text := getattr(formats, f"to_{output_format}")(shown):
            print(text)
        if output_format == "github" and not advice and (summed := advice_of(report.checked)):
            print(f"::notice::{summed}")
    if not report.checked:
        others = f"; {len(report.skipped)} files are of other forms" if report.skipped else ""
        others += f"; {len(report.excluded)} are excluded" if report.excluded else ""
        since = f" and differs from {report.since}" if report.since else ""
        print(f"omni check: no file that is read here{since}{others}", file=sys.stderr)


def _without_advice(item: CheckResult) -> CheckResult:
    return replace(item, findings=tuple(one for one in item.findings if one.severity != "advice"))


def advice_of(checked: Sequence[CheckResult]) -> str:
    """One line for all advice; empty where there is none."""
    codes = [one.code for item in checked for one in item.findings if one.severity == "advice"]
    if not codes:
        return ""
    pieces = f"{len(codes)} piece{'s' if len(codes) > 1 else ''} of advice"
    return f"{pieces} ({', '.join(sorted(set(codes)))}): --advice shows {'them' if len(codes) > 1 else 'it'}."


def _print(report: Report, advice: bool, explain: bool) -> None:
    checked = report.checked
    findings = [one for item in checked for one in item.findings if advice or one.severity != "advice"]
    line, style = _summary(findings, len(checked))
    after = _after(report) if advice or not (summed := advice_of(checked)) else f"{_after(report)} {summed}"
    if not findings and not sys.stdout.isatty():  # the usual case in CI; importing rich takes a sixth of a check
        print(line + after)
        return
    from rich.console import Console
    from rich.text import Text

    from omni_config.output.text import render

    console = Console(highlight=False, soft_wrap=True)
    repairs = 0
    for item in checked:
        for finding in item.findings:
            if advice or finding.severity != "advice":
                console.print(render(finding), end="\n\n")
        if item.resolution and item.resolution.plan is None and item.exit_code and repairs < MOST_REPAIRS_SHOWN:
            repairs += 1
            console.print(_repairs(item), end="\n\n")
    if explain:
        from omni_config.output.explained import print_pages

        print_pages(Console(), findings)
    console.print(Text(line, style).append(after))


def _summary(findings: Sequence[Finding], documents: int) -> tuple[str, str]:
    """The last line of a check, and its style."""
    counts = {"error": 0, "warning": 0, "advice": 0}
    for finding in findings:
        counts[finding.severity] += 1
    checked = f"{documents} config{'s' if documents != 1 else ''} checked"
    if not findings:
        return f"All good: {checked}.", "bold green"
    parts = [f"{n} {kind}{'s' if n > 1 and kind != 'advice' else ''}" for kind, n in counts.items() if n]
    return f"{', '.join(parts)}; {checked}.", "bold red" if counts["error"] else "bold yellow"


def _after(report: Report) -> str:
    """What follows the summary: what was accepted, left out or set aside, and which versions of engines judged."""
    checked, parts = report.checked, []
    if ignored := sum(len(item.ignored) for item in checked):
        parts.append(f" {ignored} accepted by a comment.")
    if known := sum(len(item.known) for item in checked):
        parts.append(f" {known} accepted by the baseline.")
    if report.gone:
        parts.append(f" {report.gone} of the baseline {'are' if report.gone > 1 else 'is'} gone: write it again.")
    if left := [finding.code for item in checked for finding in item.unselected]:
        parts.append(f" {len(left)} not selected ({', '.join(sorted(set(left)))}).")
    if report.skipped:
        parts.append(f" {len(report.skipped)} other file{'s' if len(report.skipped) > 1 else ''} set aside.")
    if report.excluded:
        parts.append(f" {len(report.excluded)} file{'s' if len(report.excluded) > 1 else ''} excluded.")
    parts += [f" Judged by {name}." for name in dict.fromkeys(item.judged_by for item in checked if item.judged_by)]
    return "".join(parts)


def _repairs(item: CheckResult) -> Text:
    """The smallest set of settings that cannot hold together, and the nearest configurations that work."""
    from rich.text import Text

    from omni_config.checking.fix import conflict_of, diff_of, nearest_changes

    text = Text()
    assert item.resolution is not None
    together = conflict_of(item)
    if len(together) > 1:
        text.append("These cannot hold together, whatever the rest is: ", "bold").append(f"{', '.join(together)}\n")
    found = nearest_changes(item)
    if not found and not item.resolution.card.pipeline:
        return text.append("With --model MODEL, the nearest configurations that work would be shown.", "bold")
    if not found:
        return text.append("No configuration that works was found by changing these settings.", "bold")
    text.append("Nearest configurations that work:", "bold")
    for number, changes in enumerate(found, start=1):
        text.append(f"\n  {number}. ", "bold")
        for index, line in enumerate(diff_of(item, changes)):
            text.append("\n     " if index else "").append(line, "red" if line.startswith("-") else "green")
    return text
