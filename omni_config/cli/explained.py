"""``--explain``, behind every command that judges a config."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Annotated, Any

import typer

from omni_config.findings import Finding

_asked: ContextVar[bool] = ContextVar("explain", default=False)
Explain = Annotated[bool, typer.Option("--explain", help="Behind the findings, print the page of each rule.")]


def explainable(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the option; ``show_pages`` looks whether it was given."""

    @functools.wraps(command)
    def wrapper(explain: bool, **given: Any) -> None:
        before = _asked.set(explain)
        try:
            command(**given)
        finally:
            _asked.reset(before)

    option = inspect.Parameter("explain", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Explain)
    own = [
        each.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for each in inspect.signature(command, eval_str=True).parameters.values()
    ]
    wrapper.__signature__ = inspect.Signature([*own, option])  # type: ignore[attr-defined]
    wrapper.__annotations__ = {each.name: each.annotation for each in (*own, option)}
    return wrapper


def show_findings(findings: Sequence[Finding]) -> None:
    """Print findings on stderr, and their rules' pages where the command was asked for them."""
    from rich.console import Console

    from omni_config.output.text import render

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    for finding in findings:
        console.print(render(finding), end="\n\n")
    show_pages(findings)


def show_pages(findings: Sequence[Finding]) -> None:
    """Print the pages of findings on stderr, where the command was asked for them."""
    if findings and _asked.get():
        from rich.console import Console

        from omni_config.output.explained import print_pages

        print_pages(Console(stderr=True), findings)


def show_where_asked(findings: Sequence[Finding]) -> None:
    """Print findings and their rules' pages on stderr, of a command that says nothing of them unless asked."""
    if _asked.get():
        show_findings(findings)
