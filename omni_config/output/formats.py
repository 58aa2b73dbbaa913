"""Findings for programs: JSON, SARIF 2.1.0, GitHub annotations and JUnit XML."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from omni_config.catalog.load import catalog
from omni_config.checking.document import CheckResult
from omni_config.checking.fix import edit_after, lines_of, nearest_changes, repair_of
from omni_config.findings import Finding, Span
from omni_config.schema.settings import FIELDS, Settings

RULES_URL = "https://github.com/omni-config/omni-config/blob/main/docs/rules"
_SARIF_LEVELS = {"error": "error", "warning": "warning", "advice": "note"}
_GITHUB_LEVELS = {"error": "error", "warning": "warning", "advice": "notice"}


def to_json(checked: Sequence[CheckResult]) -> str:
    """All findings, each with what would repair it, and the nearest configs that work of each document with errors."""
    findings = [
        finding.to_dict() | {"repair": dotted(repair := repair_of(finding, item)), "edits": _edits(item, repair)}
        for item in checked
        for finding in item.findings
    ]
    nearest = [
        {
            "file": item.source.name,
            "document": item.index,
            "changes": [dotted(changes) for changes in found],
            "edits": [_edits(item, changes) for changes in found],
        }
        for item in checked
        if item.resolution and item.resolution.plan is None and item.exit_code
        for found in [nearest_changes(item)]
    ]
    ignored = [finding.to_dict() for item in checked for finding in item.ignored]
    unselected = [finding.to_dict() for item in checked for finding in item.unselected]
    known = [finding.to_dict() for item in checked for finding in item.known]
    judged_by = [
        {"file": item.source.name, "document": item.index, "judged_by": item.judged_by}
        for item in checked
        if item.judged_by
    ]
    result = {
        "checked": len(checked),
        "findings": findings,
        "ignored": ignored,
        "unselected": unselected,
        "baseline": known,
        "nearest": nearest,
        "judged_by": judged_by,
    }
    return json.dumps(result, indent=2)


def dotted(changes: Settings | None) -> dict[str, Any] | None:
    """Changes by the path of each setting in the document."""
    return None if changes is None else {".".join(FIELDS[name]): value for name, value in changes.items()}


def _edits(item: CheckResult, changes: Settings | None) -> list[str]:
    """Changes as the lines of a diff, in the words of the file."""
    return lines_of(item, changes) if changes else []


def to_sarif(checked: Sequence[CheckResult]) -> str:
    """A SARIF 2.1.0 log with one run; columns count UTF-16 code units, as the format says."""
    from omni_config import __version__

    findings = [finding for item in checked for finding in item.findings]
    policies = {rule.code: rule for item in checked if item.resolution for rule in item.resolution.target.rules}
    known = catalog().by_code | policies
    used = sorted({finding.code for finding in findings})
    rules = [
        {
            "id": code,
            "name": "".join(part.capitalize() for part in known[code].name.split("-")),
            "shortDescription": {"text": known[code].name.replace("-", " ")},
            "fullDescription": {"text": known[code].why},
            "help": {"text": known[code].fix},
            "helpUri": f"{RULES_URL}/{code}.md",
            "defaultConfiguration": {"level": _SARIF_LEVELS[known[code].severity]},
        }
        for code in used
    ]
    results = [
        {
            "ruleId": finding.code,
            "ruleIndex": used.index(finding.code),
            "level": _SARIF_LEVELS[finding.severity],
            "message": {"text": f"{finding.message}. Next: {finding.next_step}"},
            "locations": [_sarif_location(finding.span)] if finding.span else [],
            "relatedLocations": [_sarif_location(span) | {"id": i} for i, span in enumerate(finding.related)],
        }
        | _sarif_fixes(item, finding)
        for item in checked
        for finding in item.findings
    ]
    driver = {
        "name": "omni-config",
        "version": __version__,
        "informationUri": "https://github.com/omni-config/omni-config",
        "rules": rules,
    }
    log = {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "columnKind": "utf16CodeUnits", "results": results}],
    }
    return json.dumps(log, indent=2)


def _sarif_fixes(item: CheckResult, finding: Finding) -> dict[str, Any]:
    """The repair of a finding as one replacement in its file, with the settings that it changes."""
    changes = repair_of(finding, item)
    edit = edit_after(item, changes) if changes else None
    if changes is None or edit is None or finding.span is None:
        return {}
    place = _sarif_location(finding.span)["physicalLocation"]["artifactLocation"]
    before = item.source.text
    region = _sarif_place(before, edit.start, "start") | _sarif_place(before, edit.end, "end")
    replacement = {"deletedRegion": region, "insertedContent": {"text": edit.text}}
    fix = {
        "description": {"text": ", ".join(_edits(item, changes))},
        "artifactChanges": [{"artifactLocation": place, "replacements": [replacement]}],
        "properties": {"settings": dotted(changes)},
    }
    return {"fixes": [fix]}


def _sarif_place(text: str, at: int, edge: str) -> dict[str, int]:
    line = text.rfind("\n", 0, at) + 1
    return {f"{edge}Line": text.count("\n", 0, at) + 1, f"{edge}Column": _utf16(text[line:at], at - line + 1)}


def _sarif_location(span: Span) -> dict[str, Any]:
    line = span.source.line(span.line)
    start, end = (_utf16(line, column) for column in (span.column, span.end))
    path = Path(span.source.name)
    uri = path.as_uri() if path.is_absolute() else path.as_posix().replace("%", "%25").replace(" ", "%20")
    region = {"startLine": span.line, "startColumn": start, "endColumn": max(end, start)}
    return {"physicalLocation": {"artifactLocation": {"uri": uri}, "region": region}}


def _utf16(line: str, column: int) -> int:
    return len(line[: column - 1].encode("utf-16-le", "surrogatepass")) // 2 + 1


def to_github(checked: Sequence[CheckResult]) -> str:
    """Workflow commands, which GitHub shows as annotations of a pull request."""
    return "\n".join(_github(finding) for item in checked for finding in item.findings)


def _github(finding: Finding) -> str:
    place = ""
    if finding.span:
        span = finding.span
        file = _escape(span.source.name).replace(":", "%3A").replace(",", "%2C")
        place = f" file={file},line={span.line},col={span.column},endColumn={span.end},title={finding.code}"
    return f"::{_GITHUB_LEVELS[finding.severity]}{place}::{_escape(f'{finding.message}. Next: {finding.next_step}')}"


def _escape(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def to_junit(checked: Sequence[CheckResult]) -> str:
    """One test case a document; its errors are failures, its warnings and advice go to its output."""
    failed = sum(1 for item in checked if item.exit_code)
    suite = ElementTree.Element("testsuite", name="omni check", tests=str(len(checked)), failures=str(failed))
    for item in checked:
        name = item.source.name + (f" (document {item.index + 1})" if item.index else "")
        case = ElementTree.SubElement(suite, "testcase", classname="omni check", name=_xml(name))
        errors = [_line(finding) for finding in item.findings if finding.severity == "error"]
        others = [_line(finding) for finding in item.findings if finding.severity != "error"]
        if errors:
            failure = ElementTree.SubElement(case, "failure", message=_xml(errors[0]), type="error")
            failure.text = _xml("\n".join(errors))
        if others:
            ElementTree.SubElement(case, "system-out").text = _xml("\n".join(others))
    root = ElementTree.Element("testsuites", tests=str(len(checked)), failures=str(failed))
    root.append(suite)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True)


def _line(finding: Finding) -> str:
    return f"{finding.span}: {finding.code} [{finding.severity}] {finding.message}. Next: {finding.next_step}"


def _xml(text: str) -> str:
    """Without the characters that XML cannot hold."""
    return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in text)
