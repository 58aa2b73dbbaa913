"""Repairs of a file: the safe ones leave what runs as it is, the others take the nearest configuration that works."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from omni_config.checking.document import CheckResult
from omni_config.checking.edit import CannotEdit, apply, rename_key
from omni_config.checking.files import check_bytes
from omni_config.checking.schema_findings import key_suggestion
from omni_config.findings import Finding
from omni_config.resolving.resolver import Resolution
from omni_config.resolving.search import conflict, nearest
from omni_config.rules.quantities import THEIRS
from omni_config.rules.rule import Rule
from omni_config.schema.settings import FIELDS, Settings, validate

MOST_ROUNDS = 20  # each round repairs at least one finding; more rounds than findings would be a loop


@dataclass(frozen=True)
class Repaired:
    """A text after its repairs: the findings that were repaired, and those that could not be edited in place."""

    before: str
    after: str
    applied: tuple[Finding, ...]
    failed: tuple[str, ...] = ()

    def diff(self, name: str) -> str:
        """The repairs as a unified diff."""
        lines = difflib.unified_diff(
            self.before.splitlines(keepends=True), self.after.splitlines(keepends=True), name, name
        )
        return "".join(line if line.endswith("\n") else line + "\n" for line in lines)


def fix(name: str, text: str, *, unsafe: bool = False, policies: tuple[Rule, ...] = ()) -> Repaired:
    """Repair a text until nothing more can be repaired."""
    current = text
    applied: list[Finding] = []
    failed: dict[str, None] = {}
    for _ in range(MOST_ROUNDS):
        for checked in check_bytes(name, current.encode(), policies):
            try:
                step = _step(checked, unsafe)
            except CannotEdit as error:
                failed[str(error)] = None
                continue
            if step is not None:
                current, repaired = step
                applied += repaired
                break
        else:
            break
    return Repaired(text, current, tuple(applied), tuple(failed))


def settings_written(checked: CheckResult) -> Settings:
    """The settings of a checked document as its author wrote them, before any adjustment; with the engine's own."""
    assert checked.node is not None
    assert checked.document is not None
    own = {THEIRS + name: option.value for name, option in checked.document.options.items()}
    return validate(checked.node.value) | own


def nearest_changes(checked: CheckResult, most: int = 3) -> list[Settings]:
    """The smallest changes after which a document has no errors."""
    target = checked.unaccepted
    if not target.card.pipeline:  # of a file that names no model
        return []
    return nearest(settings_written(checked), target, most=most)


def repair_of(finding: Finding, checked: CheckResult) -> Settings | None:
    """The first repair of a finding's own rule, as changes of settings."""
    if checked.resolution is None:
        return None
    if finding.changes:
        return dict(finding.changes)
    rule = _rule(finding, checked.resolution)
    repairs = rule.repairs_for(checked.resolution.target.quantities(checked.resolution.settings)) if rule else []
    return repairs[0] if repairs else None


def _rule(finding: Finding, resolution: Resolution) -> Rule | None:
    """The rule that has found it; None where that was the reader of the file."""
    return next((rule for rule in resolution.target.rules if rule.code == finding.code), None)


def _step(checked: CheckResult, unsafe: bool) -> tuple[str, list[Finding]] | None:
    if checked.resolution is None:
        return _rename(checked) if unsafe else None
    for finding in checked.findings:
        rule = _rule(finding, checked.resolution)
        changes = repair_of(finding, checked) if rule and rule.safe else None
        if changes and (text := _applied(checked, changes)) is not None:
            return text, [finding]
    broken = [finding for finding in checked.findings if finding.severity == "error"]
    if unsafe and broken:
        for changes in nearest_changes(checked, most=1):
            if (text := _applied(checked, changes)) is not None:
                return text, broken
    return None


def _applied(checked: CheckResult, changes: Settings) -> str | None:
    text = _edited(checked, changes)
    return None if text == checked.source.text else text


def _edited(checked: CheckResult, changes: Settings) -> str:
    if checked.foreign:
        raise CannotEdit("a file of another engine is not edited; do it by hand, or start from omni import")
    return apply(checked.source, checked.index, changes)


def _rename(checked: CheckResult) -> tuple[str, list[Finding]] | None:
    for finding in checked.findings:
        path = tuple(finding.fields[0].split(".")) if finding.code == "OMNI904" else ()
        name = key_suggestion(path) if path else None
        if name and checked.node is not None and checked.node.find((*path[:-1], name)) is None:
            return rename_key(checked.source, checked.node, path, name), [finding]
    return None


def diff_of(checked: CheckResult, changes: Settings) -> list[str]:
    """The lines that changes remove from a file (``- ...``) and add to it (``+ ...``)."""
    try:
        after = _edited(checked, changes)
    except CannotEdit:
        return [f"+ {'.'.join(FIELDS[name])}: {value}" for name, value in changes.items()]
    before = checked.source.text.splitlines()
    lines = list(difflib.unified_diff(before, after.splitlines(), n=0, lineterm=""))[2:]
    return [f"{line[0]} {line[1:]}" for line in lines if line[0] in "+-"]


def conflict_of(checked: CheckResult) -> list[str]:
    """The smallest set of written settings that cannot hold together, as ``path: value``; empty where there is none."""
    assert checked.resolution is not None
    assert checked.node is not None
    if not checked.resolution.card.pipeline:  # of a file that names no model
        return []
    settings = settings_written(checked)
    concerned = {name for finding in checked.findings if finding.severity == "error" for name in finding.fields}
    written = [name for name in FIELDS if name in concerned and checked.node.find(FIELDS[name]) is not None]
    core = conflict(settings, checked.unaccepted, written)
    return [f"{'.'.join(FIELDS[name])}: {_shown(settings[name])}" for name in core]


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
