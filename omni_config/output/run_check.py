"""What ``omni check`` does, apart from its options: files in, findings out, an exit code back."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from omni_config.checking.document import CheckResult
from omni_config.checking.files import check, check_bytes
from omni_config.reading.discover import STDIN, discover

if TYPE_CHECKING:
    from rich.text import Text

    from omni_config.findings import Finding
    from omni_config.rules.rule import Rule

MOST_REPAIRS_SHOWN = 20  # documents; the search takes longer than the check


def run(
    names: Sequence[str],
    output_format: str = "text",
    *,
    strict: bool = False,
    policies: tuple[Rule, ...] = (),
    assume: Mapping[str, str] | None = None,
    charts: Sequence[str] = (),
    aside: bool = False,
) -> int:
    """Check files, folders, globs, standard input and ``charts``, which are rendered first; print the findings, and
    return the exit code. ``aside``: files of other forms are set aside, also where they are named.
    """
    skipped: list[str] = []
    checked: list[CheckResult] = []
    if charts:
        from omni_config.reading.render import NotRendered, render

        try:
            for chart in charts:
                checked += check_bytes(*render(chart), policies, assume)
        except NotRendered as error:
            print(f"omni check: {error}", file=sys.stderr)
            return 2
    checked += _checked(names, policies, skipped, assume, aside)
    if output_format != "text":
        from omni_config.output import formats

        print(getattr(formats, f"to_{output_format}")(checked))
    elif checked:
        _print(checked, skipped)
    if not checked:
        others = f"; {len(skipped)} files are of other forms" if skipped else ""
        print(f"omni check: no file that is read here{others}", file=sys.stderr)
        return 0 if aside else 2
    code = max(item.exit_code for item in checked)
    warned = any(finding.severity == "warning" for item in checked for finding in item.findings)
    return max(code, 1) if strict and warned else code


def _checked(
    names: Sequence[str], policies: tuple[Rule, ...], skipped: list[str], assume: Mapping[str, str] | None, aside: bool
) -> Iterator[CheckResult]:
    """Documents of all files; a file of a folder or glob that is no config is set aside, and counted."""
    for name, named in discover(names):
        named = named and not (aside and Path(name).is_file())
        if name == STDIN:
            documents = check_bytes("-", sys.stdin.buffer.read(), policies, assume)
        else:
            documents = check(name, policies, assume)
        if named or any(is_config(document) for document in documents):
            # What was made of a clean document is needed no more, and a folder may have thousands.
            yield from (one if one.findings else replace(one, resolution=None, document=None) for one in documents)
        else:
            skipped.append(name)


def is_config(checked: CheckResult) -> bool:
    """Whether a document means to be a config: one of another engine, or it names a model, readable or not."""
    if checked.foreign:
        return True
    if any(finding.code == "OMNI908" for finding in checked.findings):
        return False
    if checked.node is None:
        return all(re.search(rf"^{key}\s*:", checked.source.text, re.MULTILINE) for key in ("version", "model"))
    return isinstance(checked.node.value, dict) and "model" in checked.node.value


def _print(checked: list[CheckResult], skipped: list[str]) -> None:
    findings = [finding for item in checked for finding in item.findings]
    line, style = _summary(findings, len(checked))
    after = _after(checked, skipped)
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
            console.print(render(finding), end="\n\n")
        if item.resolution and item.resolution.plan is None and item.exit_code and repairs < MOST_REPAIRS_SHOWN:
            repairs += 1
            console.print(_repairs(item), end="\n\n")
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


def _after(checked: Sequence[CheckResult], skipped: Sequence[str]) -> str:
    """What follows the summary: what was accepted or set aside, and which versions of other engines judged."""
    parts = []
    if ignored := sum(len(item.ignored) for item in checked):
        parts.append(f" {ignored} accepted by a comment.")
    if skipped:
        parts.append(f" {len(skipped)} other file{'s' if len(skipped) > 1 else ''} set aside.")
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
