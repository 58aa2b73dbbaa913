"""Text that knows where it came from: each character with its offset in the file, through quotes and variables."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from omni_config.findings import Source, Span
from omni_config.reading.nodes import YamlNode

MARK = "\ue000"  # a character for private use, which no file has: where an action of a template stands


@dataclass(frozen=True)
class Text:
    """Characters of ``file``, not necessarily neighbours there: ``offsets[i]`` is where ``value[i]`` stands."""

    value: str
    offsets: Sequence[int]
    file: File

    def __getitem__(self, part: slice) -> Text:
        return Text(self.value[part], self.offsets[part], self.file)

    @property
    def span(self) -> Span:
        """From the first character to the last; to the end of its line where it goes on."""
        return self.file.span(self.offsets[0], self.offsets[-1] + 1) if self.offsets else self.file.span(0, 1)


@dataclass(frozen=True)
class File:
    """A source, and where its lines start."""

    source: Source

    @cached_property
    def _starts(self) -> list[int]:
        starts = [0]
        for line in self.source.text.splitlines(keepends=True):
            starts.append(starts[-1] + len(line))
        return starts

    @property
    def text(self) -> Text:
        """All of it."""
        return Text(self.source.text, range(len(self.source.text)), self)

    @property
    def raw(self) -> str:
        """What YAML is read from."""
        return self.source.text

    def offset(self, place: Span) -> int:
        """Where a place begins, in characters from the start."""
        return self._starts[place.line - 1] + place.column - 1

    def span(self, start: int, end: int) -> Span:
        """The place of two offsets; cut at the end of the first line."""
        line = bisect_right(self._starts, start)
        column = start - self._starts[line - 1] + 1
        width = max(1, min(end - start, len(self.source.line(line)) - column + 1))
        return Span(self.source, line, column, column + width)

    def scalar(self, node: YamlNode) -> Text:
        """The value of a YAML string with the place of each character: quotes, escapes and indents are stepped over."""
        value, raw, place = str(node.value), self.raw, node.start
        end = max(node.end, node.start + 1)
        offsets = []
        for character in value:
            at = place
            while at < end and not _reads_as(raw, at, character):
                at += 1
            if at < end:
                place = at + 1
            offsets.append(min(at, end - 1))
        return Text(value, offsets, self)


def joined(parts: Sequence[Text], file: File) -> Text:
    """Parts one after the other."""
    return Text("".join(part.value for part in parts), [at for part in parts for at in part.offsets], file)


def _reads_as(raw: str, at: int, character: str) -> bool:
    here = raw[at : at + 1]  # empty at the end of the file, where a value that is left out stands
    return here == character or (here == "\n" and character == " ") or (raw[at : at + 2] == "\\n" == character)
