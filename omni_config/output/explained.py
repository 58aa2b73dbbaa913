"""``--explain``: the pages of the rules that findings are about, each once, with only the cases that were found."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from omni_config.catalog.load import catalog
from omni_config.findings import Finding
from omni_config.rules.kinds import Refuses
from omni_config.rules.rule import Rule

if TYPE_CHECKING:
    from rich.console import Console


def print_pages(console: Console, findings: Iterable[Finding]) -> None:
    """Print the pages of what was found."""
    from rich.markdown import Markdown

    from omni_config.output.pages import rule_page

    for rule in rules_of(findings):
        console.print(Markdown(rule_page(rule)), end="\n\n")


def rules_of(findings: Iterable[Finding]) -> list[Rule]:
    """The rules of findings, in their order; a policy's own rule has no page."""
    by_code: dict[str, list[Finding]] = {}
    for finding in findings:
        by_code.setdefault(finding.code, []).append(finding)
    known = catalog().by_code
    return [_found(known[code], about) for code, about in by_code.items() if code in known]


def _found(rule: Rule, findings: list[Finding]) -> Rule:
    """The rule; of one with many cases, those whose place in the engine's source a finding names."""
    if not isinstance(rule, Refuses):
        return rule
    sources = {finding.source for finding in findings}
    cases = [case for case in rule.stated if any(case.source(engine) in sources for engine in case.places)]
    return rule.only(cases) if cases else rule
