"""What a check reports: a coded finding with the place in a text that it is about, and what an engine decides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Severity = Literal["error", "warning", "advice"]
#: ``said`` by the deployment, the engine's or the model's ``default``, ``inferred`` from other settings, ``switched
#: on`` by the engine, ``lowered`` or ``dropped`` though it was said, or ``refused``.
Mark = Literal["said", "default", "inferred", "switched on", "lowered", "dropped", "refused"]
#: Marks of what is not as the deployment says, in words or by silence.
CHOSEN: tuple[Mark, ...] = ("inferred", "switched on")


@dataclass(slots=True)
class Source:
    """A named text, split into lines for display."""

    name: str
    text: str
    _lines: list[str] | None = None

    def line(self, number: int) -> str:
        """Line ``number``, from 1; empty past the end."""
        if self._lines is None:
            self._lines = self.text.splitlines()
        return self._lines[number - 1] if number <= len(self._lines) else ""


@dataclass(frozen=True, slots=True)
class Span:
    """Columns ``[column, end)`` of one line of a text, both counted from 1."""

    source: Source
    line: int
    column: int
    end: int

    def __str__(self) -> str:
        return f"{self.source.name}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with a config, was changed in it, or could be better.

    ``fields`` names the settings concerned, the one to look at first in front; ``span`` and ``related`` say where they
    stand, once the finding has been located in a file. ``changes`` are the settings that the resolver itself changed.
    ``source`` is the place in an engine's source that says so, where a rule has many: file, line, and engine.
    """

    code: str
    message: str
    severity: Severity = "error"
    name: str = ""
    why: str = ""
    next_step: str = ""
    fields: tuple[str, ...] = ()
    changes: tuple[tuple[str, Any], ...] = ()
    span: Span | None = None
    related: tuple[Span, ...] = ()
    source: str = ""

    def __post_init__(self) -> None:
        """Keep the message on one line, whatever a file made it quote."""
        if not self.message.isprintable():
            object.__setattr__(self, "message", printable(self.message))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; positions are counted from 1."""
        return {
            "code": self.code,
            "name": self.name,
            "severity": self.severity,
            "message": self.message,
            "why": self.why,
            "fix": self.next_step,
            "fields": list(self.fields),
            "changes": dict(self.changes),
            "location": _place(self.span),
            "related": [_place(span) for span in self.related],
        }


@dataclass(frozen=True, slots=True)
class Decision:
    """One setting of a deployment as the engine runs it.

    ``setting`` is one of ours, or the engine's own name. ``source`` is the place in the engine's source (file and line)
    or the code of the rule that says so, ``why`` a few words, and ``span`` where the deployment says it.
    """

    setting: str
    value: Any
    mark: Mark
    source: str = ""
    why: str = ""
    span: Span | None = None


def _place(span: Span | None) -> dict[str, Any] | None:
    if span is None:
        return None
    return {"file": span.source.name, "line": span.line, "column": span.column, "end_column": span.end}


def printable(text: str) -> str:
    """The text with its line ends and control characters escaped."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def spoken(value: Any) -> str:
    """A value as a message shows it: short, and true and false as YAML writes them."""
    if value is None:
        return "nothing"
    text = printable(str(value).lower() if isinstance(value, bool) else str(value)[:41])
    return text if len(text) <= 40 else text[:37] + "..."
