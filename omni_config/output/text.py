"""Findings for people: the place, the line with a caret, the reason and the next step."""

from __future__ import annotations

from collections.abc import Iterator

from rich.text import Text

from omni_config.findings import Finding, Span

STYLES = {"error": "bold red", "warning": "bold yellow", "advice": "bold cyan"}
MAX_WIDTH = 200


def render(finding: Finding) -> Text:
    """One finding as a block of lines."""
    style = STYLES[finding.severity]
    text = Text()
    if finding.span:
        text.append(str(finding.span), "bold").append(": ")
    text.append(f"{finding.code} ", style).append(f"[{finding.severity}] ", style).append(finding.message)
    width = len(str(max((span.line for span in (finding.span, *finding.related) if span), default=0)))
    for index, span in enumerate(_shown(finding)):
        _append_line(text, span, width, style if index == 0 else "blue", "^" if index == 0 else "-")
    pad = " " * width
    if finding.why:
        text.append(f"\n{pad} = ", "blue").append("why: ", "bold").append(finding.why)
    if finding.next_step:
        text.append(f"\n{pad} = ", "blue").append("next: ", "bold").append(finding.next_step)
    return text


def _shown(finding: Finding) -> Iterator[Span]:
    """The finding's line first, then related lines, each line once and only those with text."""
    seen = set()
    for span in (finding.span, *finding.related):
        if span is not None and span.source.line(span.line) and (span.source.name, span.line) not in seen:
            seen.add((span.source.name, span.line))
            yield span


def _append_line(text: Text, span: Span, width: int, style: str, mark: str) -> None:
    line = span.source.line(span.line)
    shift = max(0, span.column - MAX_WIDTH // 2) if len(line) > MAX_WIDTH else 0
    shown = line[shift : shift + MAX_WIDTH].replace("\t", " ")
    text.append(f"\n{span.line:>{width}} | ", "blue").append("".join(c if c.isprintable() else "?" for c in shown))
    text.append(f"\n{' ' * width} | ", "blue").append(" " * (span.column - 1 - shift))
    text.append(mark * max(1, min(span.end - span.column, MAX_WIDTH)), style)
