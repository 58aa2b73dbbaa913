"""Helm templates, as far as they are plain: actions that name a value of their chart are filled in, branches on such a
value are taken or left, and whatever else only a render knows is unknown.

An action is masked by marks of the same length, so that the YAML around it can be parsed and every place stays.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omni_config.engines.formats.shell import Word
from omni_config.engines.formats.text import MARK, File, Text, joined
from omni_config.findings import Source
from omni_config.reading.nodes import Unreadable, YamlNode, parse
from omni_config.rules.quantities import UNKNOWN

_ACTION = re.compile(r"\{\{-?\s*(/\*.*?\*/|.*?)\s*-?\}\}", re.DOTALL)
_QUIET = r"quote|squote|toString|int|int64|float64|trim|toYaml|nindent \d+|indent \d+"
_PIPE = re.compile(
    rf"(?:default (?P<before>\S+) )?\.Values(?P<path>(?:\.\w+)+)(?P<pipes>(?: *\| *(?:{_QUIET}|default \S+))*)"
)
_OPENS = re.compile(r"^(\s*)(?:- )?(\w+):\s*$")
_LISTS = ("args", "command", "entrypoint")


@dataclass(frozen=True)
class Template(File):
    """A template with its masked text, its actions by their place, and the values of its chart."""

    masked: str = ""
    actions: tuple[tuple[int, str], ...] = ()
    values: YamlNode | None = None
    open: bool = False  # whether a command may have further words

    @property
    def raw(self) -> str:
        """What YAML is read from."""
        return self.masked

    def filled(self, text: Text) -> Word:
        """A text with its actions filled in; unknown where one is not plain."""
        actions, parts, unknown, at = dict(self.actions), [], False, 0
        while at < len(text.value):
            start = at
            while at < len(text.value) and text.value[at] != MARK:
                at += 1
            parts.append(text[start:at])
            if at < len(text.value):
                place = text.offsets[at]
                action = actions.get(place, "")
                value = _value(action, self.values)
                known = isinstance(value, str | int | float)
                unknown |= not known
                said = (str(value).lower() if isinstance(value, bool) else str(value)) if known else ""
                parts.append(Text(said, [place] * len(said), self))
                written = _ACTION.match(self.source.text, place)
                end = written.end() if written else place + 1
                at += 1
                while at < len(text.value) and text.value[at] == MARK and text.offsets[at] < end:
                    at += 1
        return Word(joined(parts, self), unknown)


def template(source: Source) -> tuple[Template, list[YamlNode]] | None:
    """A text as a template, with its documents; None where it is none, or not even that makes it YAML."""
    if not _ACTION.search(source.text):
        return None
    values = _values_beside(source.name)
    masked, actions, is_open = _mask(source.text, values)
    try:
        nodes = parse(source, masked)
    except Unreadable:
        return None
    return Template(source, masked, actions, values, is_open), nodes


def _values_beside(name: str) -> YamlNode | None:
    """The values.yaml of the chart that a template is of."""
    path = Path(name)
    chart = next((folder.parent for folder in path.parents if folder.name == "templates"), None)
    try:
        nodes = parse(Source("", (chart / "values.yaml").read_text("utf-8"))) if chart is not None else []
    except (OSError, ValueError, Unreadable):
        return None
    return nodes[0] if nodes else None


def _value(action: str, values: YamlNode | None) -> Any:
    """What an action writes; UNKNOWN where it is not plain."""
    match = _PIPE.fullmatch(action)
    if match is None or values is None:
        return UNKNOWN
    node = values.find(tuple(match["path"].split(".")[1:]))
    value = node.value if node is not None else None
    if value in (None, "", 0, False):
        said = match["before"] or next(iter(re.findall(r"default (\S+)", match["pipes"])), None)
        if said is not None:
            return said.strip("\"'") if not said.startswith((".", "(")) else UNKNOWN
    return UNKNOWN if value is None else value


def _holds(condition: str, values: YamlNode | None) -> bool | None:
    """Whether a condition holds; None where it is not plain."""
    match = re.fullmatch(r"(not )?\.Values((?:\.\w+)+)", condition)
    if match is None or values is None:
        return None
    node = values.find(tuple(match[2].split(".")[1:]))
    return bool(node is not None and node.value) != bool(match[1])


def _mask(text: str, values: YamlNode | None) -> tuple[str, tuple[tuple[int, str], ...], bool]:
    """The text with its actions masked and the branches that are not taken blanked, the actions, and whether lists of
    words may have more.
    """
    characters, actions = list(text), []
    blank: list[tuple[int, int]] = []  # what is dropped without being known
    stack: list[list[Any]] = []  # of blocks: whether it is taken (None: not known), and where it began to be left
    for match in _ACTION.finditer(text):
        word, _, rest = match[1].partition(" ")
        if word in ("if", "with", "range", "define", "block"):
            taken = _holds(rest.strip(), values) if word == "if" else None
            stack.append([taken, match.end() if not taken else None])
        elif word in ("else", "end") and stack:
            taken, since = stack[-1]
            if since is not None and (taken is False or not _whole(text[since : match.start()])):
                _erase(characters, since, match.start())
                blank += [(since, match.start())] if taken is None else []
            if word == "end":
                stack.pop()
            else:
                now = None if taken is None or rest else not taken
                stack[-1] = [now, match.end() if not now else None]
        elif not word.startswith(("/*", "$")):
            actions.append((match.start(), " ".join(match[1].split())))
        alone = not text[text.rfind("\n", 0, match.start()) + 1 : match.start()].strip() and (
            not text[match.end() : (text + "\n").find("\n", match.end())].strip()
        )
        if alone or word in ("if", "with", "range", "define", "block", "else", "end"):
            if characters[match.start()] == "{":
                _erase(characters, match.start(), match.end())
                blank += [(match.start(), match.end())] if actions and actions[-1][0] == match.start() else []
        elif characters[match.start()] == "{":
            for at in range(match.start(), match.end()):
                characters[at] = MARK if text[at] != "\n" else "\n"
    return "".join(characters), tuple(actions), any(_in_list(text, start) for start, _ in blank)


def _whole(block: str) -> bool:
    """Whether a block is a whole manifest, which is read although a condition stands around it."""
    return re.search(r"^kind:", block, re.MULTILINE) is not None


def _erase(characters: list[str], start: int, end: int) -> None:
    for at in range(start, end):
        if characters[at] != "\n":
            characters[at] = " "


def _in_list(text: str, start: int) -> bool:
    """Whether a place is among the words of a command."""
    return any(key in _LISTS for key in list(_keys_before(text, start))[-1:])


def _keys_before(text: str, start: int) -> Iterator[str]:
    for line in text[:start].splitlines():
        if match := _OPENS.match(line):
            yield match[2]
