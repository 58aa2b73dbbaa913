"""``# omni: ignore[OMNI104]`` accepts findings of its line; one that accepts none is itself a finding."""

from __future__ import annotations

import re
from collections.abc import Sequence

from omni_config.findings import Finding, Source, Span

_COMMENT = re.compile(r"(?:^|\s)#\s*omni:\s*ignore(?:\[(?P<codes>[^\]\n]*)\])?")


def apply_ignores(source: Source, findings: Sequence[Finding], lines: range) -> tuple[list[Finding], list[Finding]]:
    """Findings that remain, and those that a comment accepts; ``lines`` bounds the document that they are about.

    A file that cannot be read or does not fit the schema (OMNI9xx) cannot be accepted. What stands elsewhere, as a
    setting from a flag does, is on no line of ``source``.
    """
    if "omni:" not in source.text:
        return list(findings), []
    accepted: list[Finding] = []
    remaining = list(findings)
    unused: list[Finding] = []
    for number, text in enumerate(source.text.splitlines(), start=1):
        found = _COMMENT.search(text) if number in lines else None
        if found is None:
            continue
        codes = [code.strip() for code in (found["codes"] or "").split(",") if code.strip()]
        span = Span(source, number, text.index("#", found.start()) + 1, found.end() + 1)
        if not codes:
            unused.append(_finding("names no code", "write # omni: ignore[CODE]", span))
        for code in codes:
            here = [
                finding
                for finding in remaining
                if finding.code == code and _stands_on(finding, source, number) and not code.startswith("OMNI9")
            ]
            accepted += here
            remaining = [finding for finding in remaining if finding not in here]
            if not here:
                unused.append(_finding(f"ignore[{code}] accepts nothing on this line", "remove it", span))
    return remaining + unused, accepted


def _stands_on(finding: Finding, source: Source, line: int) -> bool:
    return any(span.source is source and span.line == line for span in (finding.span, *finding.related) if span)


def _finding(message: str, next_step: str, span: Span) -> Finding:
    return Finding("OMNI907", message, "warning", next_step=next_step, span=span)
