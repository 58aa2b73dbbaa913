"""The effective configuration for people and for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from omni_config.checking.document import CheckResult
from omni_config.findings import Decision, spoken
from omni_config.rules.quantities import UNKNOWN
from omni_config.schema.settings import FIELDS

_STYLES = {
    "said": "",
    "default": "dim",
    "inferred": "cyan",
    "switched on": "cyan",
    "lowered": "yellow",
    "dropped": "bold red",
    "refused": "bold red",
}


def effective_table(checked: CheckResult, rows: Sequence[Decision]) -> Table:
    """Setting, value, how it came about, and the place that says so: the end of its path."""
    title = f"Runs as ({checked.judged_by or _engine(checked)})"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in ("setting", "value", "how", "by"):
        table.add_column(column, overflow="fold")
    words = checked.document.words if checked.document else None
    for row in rows:
        style = _STYLES[row.mark]
        by = "/".join(row.source.split("/")[-2:]) if row.source else f"{row.span}" if row.span else ""
        why = words.translated(row.why) if words else row.why
        note = f"{by}: {why}" if why and row.mark not in ("said", "refused", "dropped") else by
        way = words.way(row.setting, row.value) if words and row.setting in FIELDS else None
        own = words is not None and way is not None and (words.said(row.setting) or way == words.ways[row.setting][0])
        name = words.name(row.setting) if words and own else named(row)
        dim = "dim" if row.mark == "default" else ""
        table.add_row(name, _shown(row.value), Text(row.mark, style), Text(note, dim))
    return table


def effective_json(checked: CheckResult, rows: Sequence[Decision]) -> dict[str, Any]:
    """The same as JSON-ready values."""
    return {
        "engine": _engine(checked),
        "judged_by": checked.judged_by,
        "effective": [
            {
                "setting": named(row),
                "value": _plain(row.value),
                "how": row.mark,
                "source": row.source,
                "why": row.why,
                "location": {"file": row.span.source.name, "line": row.span.line, "column": row.span.column}
                if row.span
                else None,
            }
            for row in rows
        ],
        "findings": [finding.to_dict() for finding in checked.findings],
    }


def named(row: Decision) -> str:
    """A setting of ours by its path, one of the engine's by its own name."""
    return ".".join(FIELDS[row.setting]) if row.setting in FIELDS else row.setting


def _engine(checked: CheckResult) -> str:
    return checked.resolution.engine.id if checked.resolution else ""


def _plain(value: Any) -> Any:
    if value is UNKNOWN:
        return None
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(spoken, value))
    return "''" if value == "" else spoken(value)
