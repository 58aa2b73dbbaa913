"""What commands that take one config share: a file and flags in, one judged document out, or an exit code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from omni_config.checking.choices import usual
from omni_config.checking.document import CheckResult, ParsedDocument, from_flags, judge
from omni_config.checking.files import read
from omni_config.cli.explained import show_findings
from omni_config.engines import ENGINES
from omni_config.plan import Plan
from omni_config.reading.discover import CannotCheck
from omni_config.reading.project import project_of
from omni_config.rules.rule import Rule
from omni_config.schema.overrides import Override


def checked_plan(file: Path | None, overrides: Sequence[Override], policies: tuple[Rule, ...]) -> Plan:
    """The Plan of a file with overrides; see ``checked_config``."""
    plan = checked_config(document_of(file, overrides), policies).plan
    assert plan is not None
    return plan


def with_server(document: ParsedDocument) -> ParsedDocument:
    """A document with a section ``server``, where its engine has one, so that the rules know what it is for."""
    engine = ENGINES.get(engine_of(document))
    if engine is not None and not engine.server:
        return document
    if document.node is not None and not (isinstance(document.node.value, dict) and document.node.value.get("server")):
        return document.overridden([Override(("server",), {}, ())])
    return document


def engine_of(document: ParsedDocument) -> str:
    """The engine that a document names, without a version."""
    value = document.node.value if document.node is not None else None
    return str(value.get("engine", "native") if isinstance(value, dict) else "native").partition("==")[0].strip()


def checked_config(document: ParsedDocument, policies: tuple[Rule, ...]) -> CheckResult:
    """A document, after a check that left it a Plan.

    Findings go to stderr. With an error among them this ends the command: exit code 1, or 2 for unusable input.
    """
    checked = judge(document, policies)
    show_findings(checked.findings)
    if checked.plan is None:
        raise typer.Exit(checked.exit_code)
    return checked


def usually(file: Path) -> dict[str, str]:
    """What the table of the repository says of a file of another engine that does not say it."""
    try:
        return usual(project_of(str(file)))
    except CannotCheck as error:
        raise typer.BadParameter(str(error)) from None


def document_of(file: Path | None, overrides: Sequence[Override]) -> ParsedDocument:
    """A file's one document with overrides in it, not judged yet; without a file, the document that they make."""
    if file is None and not overrides:
        raise typer.BadParameter("give a config, or at least --model")
    if file is None:
        return from_flags(overrides)
    names = {("engine",): "engine", ("model",): "model"}
    assume = {names[item.path]: str(item.value) for item in overrides if item.path in names}
    documents = read(file, usually(file) | assume)
    if len(documents) > 1:
        raise typer.BadParameter(f"{file} holds {len(documents)} documents; this command takes one")
    return documents[0].overridden(overrides)
