"""Repairs as an editor offers them: of one finding, the nearest configurations that work, and of all at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from omni_config.checking.document import CheckResult
from omni_config.checking.edit import Edit, changed_part
from omni_config.checking.fix import edit_after, fix, lines_of, nearest_changes, repair_of
from omni_config.findings import Finding
from omni_config.lsp.opened import Opened
from omni_config.schema.settings import Settings


@dataclass(frozen=True)
class Repair:
    """An edit of the text, the finding that it is for, and whether it leaves what runs as it is."""

    title: str
    edit: Edit
    finding: Finding | None = None
    safe: bool = False


def repairs(opened: Opened, first: int, last: int) -> list[Repair]:
    """Repairs of the findings on lines ``first`` to ``last``, from 0; of documents with errors there, the nearest
    configurations that work.
    """
    found: list[Repair] = []
    edits: set[Edit] = set()

    def add(repair: Repair | None) -> None:
        if repair is not None and repair.edit not in edits:
            edits.add(repair.edit)
            found.append(repair)

    for checked in opened.results:
        here = [one for one in checked.findings if _lines(one) & set(range(first + 1, last + 2))]
        for finding in here:
            changes = repair_of(finding, checked)
            add(_repair(f"{finding.code}: ", checked, changes, finding) if changes else None)
        broken = next((one for one in here if one.severity == "error"), None)
        if broken is None:
            continue
        if checked.resolution is None or checked.resolution.plan is None:
            for changes in nearest_changes(checked) if checked.resolution else ():
                add(_repair("Nearest that works: ", checked, changes, broken))
            add(_whole(opened, broken))
    return found


def fix_all(opened: Opened) -> Repair | None:
    """All safe repairs of the file, as ``omni fix``."""
    repaired = fix(opened.name, opened.text, choices=opened.choices)
    if repaired.after == repaired.before:
        return None
    return Repair("Repair all that is safe", changed_part(repaired.before, repaired.after), None, True)


def _whole(opened: Opened, finding: Finding) -> Repair | None:
    """``omni fix --unsafe``, which also rights names that are misspelt."""
    repaired = fix(opened.name, opened.text, unsafe=True, choices=opened.choices)
    if repaired.after == repaired.before:
        return None
    codes = ", ".join(dict.fromkeys(one.code for one in repaired.applied))
    return Repair(f"Repair the file ({codes})", changed_part(repaired.before, repaired.after), finding)


def _repair(head: str, checked: CheckResult, changes: Settings, finding: Finding) -> Repair | None:
    edit = edit_after(checked, changes)
    return Repair(head + ", ".join(_titles(checked, changes)), edit, finding) if edit else None


def _titles(checked: CheckResult, changes: Settings) -> Iterator[str]:
    lines = lines_of(checked, changes)
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        sign, _, text = line.partition(" ")
        if sign == "+":
            yield text
        elif after.partition("=")[0].split()[1:2] != text.partition("=")[0].split()[:1]:  # it is not said anew
            yield f"without {text}"


def _lines(finding: Finding) -> set[int]:
    return {span.line for span in (finding.span, *finding.related) if span}
