"""An open file: its text, what a check makes of it, and what stands at a place of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from omni_config.checking.choices import Choices
from omni_config.checking.document import CheckResult
from omni_config.engines.formats.draft import Key
from omni_config.findings import Finding
from omni_config.output.described import described
from omni_config.output.run_check import is_config
from omni_config.reading.discover import CannotCheck
from omni_config.reading.project import project_of
from omni_config.schema.settings import FIELDS

#: What stands in front of a value: its key.
_KEY = re.compile(r"[\w.-]+[\"']?\s*[:=]\s*$")
_ARGUMENT = re.compile(r"\w+\s*=\s*[^\s,)]*")
_SETTINGS = {path: name for name, path in FIELDS.items()}


@dataclass(frozen=True)
class Spot:
    """A setting of ours, or a flag or key of the engine, with its columns ``[start, end)`` of a line, from 0."""

    checked: CheckResult
    start: int
    end: int
    setting: str = ""
    flag: str = ""
    key: Key | None = None


class Opened:
    """A file as it is in the editor. ``problem`` is why it cannot be checked, where the repository's table is at fault.

    ``results`` are of this text; ``last`` are the last ones that could be resolved, for a line that is half typed.
    """

    def __init__(self, name: str, text: str, choices: Choices, before: Opened | None = None) -> None:
        self.name, self.text, self.choices = name, text, choices
        self.lines = text.split("\n")
        self.problem = ""
        self.results: list[CheckResult] = []
        try:
            if not project_of(name).excludes(name):
                self.results = choices.check(name, text.encode())
        except CannotCheck as error:
            self.problem = str(error)
        resolved = any(one.resolution for one in self.results)
        self.last: list[CheckResult] = self.results if resolved or before is None else before.last

    @property
    def ours(self) -> bool:
        """Whether it is of our format, or may become it."""
        if any(one.foreign for one in self.results) or not self.name.endswith((".yaml", ".yml")):
            return False
        begun = not self.text.strip() or re.search(r"^(version|model)\s*:", self.text, re.MULTILINE)
        return bool(begun) or any(map(is_config, self.results))

    @property
    def findings(self) -> list[tuple[CheckResult, Finding]]:
        """What there is to say of it; nothing of a file of another purpose."""
        if not any(map(is_config, self.results)):
            return []
        return [(one, finding) for one in self.results for finding in one.findings]

    def spot(self, line: int, column: int) -> Spot | None:
        """The narrowest setting or flag at a place, counted from 0."""
        found = [spot for spot in self._spots(line) if spot.start <= column <= spot.end]
        return min(found, key=lambda spot: (spot.end - spot.start, not spot.setting), default=None)

    def _spots(self, line: int) -> Iterator[Spot]:
        for checked in self.results:
            document = checked.document
            if document is None or document.node is None:
                continue
            for path, name in _SETTINGS.items():
                node = document.node.find(path)
                if node is None or node.span.source is not checked.source:
                    continue
                if document.draft is not None and node.span == document.draft.place:
                    continue
                span, key = node.span, node.key_span
                if key is not None and key.line == line + 1:
                    end = span.end if span.line == key.line and not node.children else key.end
                    yield Spot(checked, key.column - 1, end - 1, name)
                elif span.line == line + 1:
                    before = _KEY.search(self.lines[line][: span.column - 1])
                    start = before.start() if before else span.column - 1
                    argument = _ARGUMENT.match(self.lines[line], start)  # of Python, whose place is where it begins
                    yield Spot(checked, start, max(span.end - 1, argument.end() if argument else 0), name)
            for typed in document.draft.typed if document.draft and document.draft.form == "command" else ():
                if typed.span.line == line + 1:
                    yield Spot(checked, typed.span.column - 1, typed.span.end - 1, flag=typed.name)
            for theirs in document.draft.keys if document.draft else ():
                place, value = theirs.node.key_span, theirs.node.span
                if place is not None and place.line == line + 1:
                    last = value.end if value.line == place.line and not theirs.node.children else place.end
                    yield Spot(checked, place.column - 1, last - 1, key=theirs)

    def deployment(self, line: int) -> CheckResult | None:
        """The deployment of another engine that a line, from 0, is about: the last one that begins at it or above."""
        known = [one for one in self.results if _foreign(one)] or [one for one in self.last if _foreign(one)]
        above = [one for one in known if _begins(one) <= line + 1]
        return max(above, key=_begins, default=next(iter(known), None))


def _foreign(one: CheckResult) -> bool:
    """Whether it is a deployment of another engine of which something is known."""
    return one.foreign and one.node is not None and one.document is not None and one.document.draft is not None


def _begins(one: CheckResult) -> int:
    assert one.document is not None
    assert one.document.draft is not None
    return one.document.draft.place.line


def setting_at(path: tuple[str, ...]) -> str:
    """The setting at a path; empty for a section."""
    return _SETTINGS.get(path, "")


def is_section(path: tuple[str, ...]) -> bool:
    """Whether keys stand below a key."""
    return "keys" in described().get(path, {})
