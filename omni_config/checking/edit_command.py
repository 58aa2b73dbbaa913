"""Changes of settings, written into commands: of shells, containers and manifests, as text or as lists of words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from omni_config.checking.edit import CannotEdit, Edit, removal
from omni_config.engines.formats.draft import Draft, Typed
from omni_config.engines.formats.shell import Word
from omni_config.engines.formats.text import Text
from omni_config.engines.words import Said, Words
from omni_config.findings import Source
from omni_config.reading.nodes import Unreadable, YamlNode, parse
from omni_config.schema.settings import PARAMETERS

#: What may stand between two words that follow each other.
_BETWEEN = re.compile(r"(?:\s|\\\r?\n)*")
_BETWEEN_ITEMS = re.compile(r"(?:\s|\\\r?\n|,|-|#.*)*")


def edits(words: Words, setting: str, value: Any) -> Iterator[Edit]:
    """The edits after which a command says a setting.

    Raises:
        CannotEdit: it says the setting where no edit reaches, or the engine has no flag for it.
    """
    draft, text = words.draft, words.draft.file.source.text
    said, way, off = words.said(setting), words.way(setting, value), words.off(setting, value)
    if said is None:
        if off or way is None:
            raise CannotEdit(f"no flag of this command says {words.name(setting)}")
        yield _insertion(draft, _flag(words, setting, value))
    elif said.typed is None:
        yield _beside(words, said, setting, value)
    elif off:
        yield without(text, said.typed)
        for typed in _of_parameters(words, setting, said.typed):
            yield without(text, typed)
    elif said.way == way and said.way.value is None and (said.typed.used or not isinstance(value, bool)):
        yield _replaced(said.typed.words[0] if said.typed.used else None, _written(value), said.name)
    elif way is not None:
        yield _instead(text, said.typed, _flag(words, setting, value))
    else:
        raise CannotEdit(f"{words.name(setting)} cannot say {value}")


def _flag(words: Words, setting: str, value: Any) -> list[str]:
    """A flag with its value, as words."""
    phrase = words.phrase(setting, value)
    assert phrase is not None
    return phrase.split(" ", 1)


def _written(value: Any) -> str:
    if not re.fullmatch(r"[\w.+-]+", str(value)):
        raise CannotEdit(f"{value} would have to be quoted")
    return str(value).lower() if isinstance(value, bool) else str(value)


def _of_parameters(words: Words, switch: str, own: Typed) -> Iterator[Typed]:
    """The other flags that say nothing but the parameters of a switch."""
    parameters = PARAMETERS.get(switch, ())
    said = [found.typed for name in parameters if (found := words.said(name)) and found.typed]
    for typed in words.draft.typed:
        if typed is own:
            continue
        inner = _json(typed)
        if any(typed is each for each in said) or (inner and set(inner.value) & set(parameters)):
            yield typed


def _json(typed: Typed) -> YamlNode | None:
    """The JSON object behind a flag."""
    if not typed.words or not typed.words[0].value.lstrip().startswith("{"):
        return None
    try:
        nodes = parse(Source("", typed.words[0].value))
    except Unreadable:
        return None
    return nodes[0] if nodes and isinstance(nodes[0].value, dict) else None


# Places


def _plain_place(part: Text, name: str) -> tuple[int, int]:
    """Where a text stands in the file, where it stands there as it is."""
    if not part.offsets:
        raise CannotEdit(f"the value of {name} is empty")
    start, end = part.offsets[0], part.offsets[-1] + 1
    if part.file.source.text[start:end] != part.value:
        raise CannotEdit(f"the value of {name} is put together from several places")
    return start, end


def _place(word: Word) -> tuple[int, int]:
    """Where a word stands in the file, with its quotes."""
    if word.item:
        return word.item
    offsets, text = word.text.offsets, word.text.file.source.text
    if not offsets:
        raise CannotEdit("an empty word")
    start, end = offsets[0], offsets[-1] + 1
    if any(after <= before for before, after in pairwise(offsets)):
        raise CannotEdit(f"{word.value} is put together from several places")
    quote = text[end : end + 1]
    if quote and quote in "'\"":
        odd = text[start:end].count(quote) % 2
        if odd or text[start - 1 : start] == quote:
            start, end = start - (not odd), end + 1
    return start, end


def _places(typed: Typed) -> list[tuple[int, int]]:
    """Where a flag and its own values stand, one after the other."""
    attached = typed.word.value.partition("=")[0] != typed.word.value
    found = [_place(word) for word in (typed.word, *(() if attached else typed.words[: typed.used]))]
    text = typed.word.text.file.source.text
    between = _BETWEEN_ITEMS if typed.word.item else _BETWEEN
    for (_, end), (start, _) in pairwise(found):
        if start < end or not between.fullmatch(text, end, start):
            raise CannotEdit(f"the value of {typed.name} does not stand behind it")
    return found


# Edits


def _replaced(word: Word | None, written: str, name: str) -> Edit:
    if word is None or word.unknown:
        raise CannotEdit(f"the value of {name} is known only to a run")
    return Edit(*_plain_place(word.text, name), written)


def _beside(words: Words, said: Said, setting: str, value: Any) -> Edit:
    """A variable of the environment, a key of a flag's JSON, or the launcher's flag."""
    draft, command = words.draft, words.draft.command
    if said.way.kind == "variable":
        assert command is not None
        word = command.environment[said.name]
        on = word.value.isdigit() and isinstance(value, bool)
        return _replaced(word, str(int(value)) if on else _written(value), said.name)
    if len(said.way.path) > 1:
        return _in_json(draft, setting, value)
    for at, word in enumerate(command.words if command else ()):
        name, equals, _ = word.value.partition("=")
        if name == said.name:
            assert command is not None
            given = word.text[len(name) + 1 :] if equals else command.words[at + 1].text
            return Edit(*_plain_place(given, name), _written(value))
    raise CannotEdit(f"{said.name} stands where no edit reaches")


def _in_json(draft: Draft, setting: str, value: Any) -> Edit:
    for typed in draft.typed:
        root = _json(typed)
        found = root.children.get(setting) if root else None
        if root is not None and found is not None:
            text = typed.words[0].text
            gone = value is None or value is False
            edit = removal(text.value, root, (setting,)) if gone else Edit(found.start, found.end, json.dumps(value))
            start, end = _plain_place(text[edit.start : edit.end], setting)
            return Edit(start, end, edit.text)
    raise CannotEdit(f"{setting} stands where no edit reaches")


def without(text: str, typed: Typed) -> Edit:
    """The edit that takes a flag with its values away."""
    places = _places(typed)
    start, end = places[0][0], places[-1][1]
    if not typed.word.item:
        return _without_words(text, start, end)
    if _is_block(text, start):
        return Edit(_line_start(text, start), min(_line_end(text, end) + 1, len(text)), "")
    after = re.compile(r"(?:\s|\\\r?\n)*,(?:\s|\\\r?\n)*").match(text, end)
    if after:
        return Edit(start, after.end(), "")
    before = re.search(r",(?:\s|\\\r?\n)*\Z", text[:start])
    return Edit(before.start() if before else start, end, "")


def _without_words(text: str, start: int, end: int) -> Edit:
    """Words go with the space in front of them, or with their line, where it has no others."""
    first, last = _line_start(text, start), _line_end(text, end)
    before, after = text[first:start], text[end:last].strip()
    if before.strip():
        return Edit(start - (len(before) - len(before.rstrip())), end, "")
    above = text[:first].rstrip()
    if after == "\\" or (not after and not above.endswith("\\")):
        return Edit(first, min(last + 1, len(text)), "")
    if not after:  # the last line of a continued command: what continues it goes, too
        return Edit(len(above[:-1].rstrip()), end, "")
    return Edit(start, end + len(text[end:last]) - len(text[end:last].lstrip()), "")


def _instead(text: str, typed: Typed, flag: Sequence[str]) -> Edit:
    places = _places(typed)
    start, end = places[0][0], places[-1][1]
    if not typed.word.item:
        return Edit(start, end, " ".join(flag))
    return Edit(start, end, _listed(text, typed.word, flag)[1])


def _insertion(draft: Draft, flag: list[str]) -> Edit:
    """A flag behind the last one of the command, in the same style."""
    text = draft.file.source.text
    first, start, end, attached = _anchor(draft)
    if attached and len(flag) > 1:
        flag = ["=".join(flag)]
    if first.item:
        separator, items = _listed(text, first, flag)
        at = _line_end(text, end) if _is_block(text, start) else end
        return Edit(at, at, separator + items)
    line = _line_start(text, start)
    indent = text[line:start]
    newline = "\r\n" if text[:line].endswith("\r\n") else "\n"
    separator = " "
    if not indent.strip() and line:
        above = text[:line].rstrip()
        separator = f"{' ' + chr(92) if above.endswith(chr(92)) else ''}{newline}{indent}"
    return Edit(end, end, separator + " ".join(flag))


def _anchor(draft: Draft) -> tuple[Word, int, int, bool]:
    """What a further flag comes behind: its first word, where it begins and ends, and whether its value is attached."""
    program = draft.file.offset(draft.place)
    found = []
    for typed in reversed(draft.typed):
        try:
            places = _places(typed)
        except CannotEdit:
            continue
        attached = "=" in typed.word.value
        found.append((places[0][0] < program, (typed.word, places[0][0], places[-1][1], attached)))
    if found:  # those of an array or variable stand above the command
        return min(found, key=lambda each: each[0])[1]
    for word in reversed(draft.command.words if draft.command else ()):
        if not word.unknown and word.text.offsets and word.text.offsets[0] >= program:
            start, end = _place(word)
            return word, start, end, False
    raise CannotEdit("the command has no place for a further flag")


def _listed(text: str, word: Word, flag: Sequence[str]) -> tuple[str, str]:
    """What separates the items of a list, and words as items in the style of one of them."""
    assert word.item
    start = word.item[0]
    quote = text[start] if text[start] in "'\"" else ""
    items = [f"{quote}{part}{quote}" if quote or not _reads_as_number(part) else f'"{part}"' for part in flag]
    line = _line_start(text, start)
    newline = "\r\n" if text[:line].endswith("\r\n") else "\n"
    lead = text[line:start]
    if _is_block(text, start):
        return newline + lead, (newline + lead).join(items)
    own = line > 0 and not lead.strip()
    continued = " \\" if own and text[:line].rstrip().endswith("\\") else ""
    return f",{continued}{newline}{lead}" if own else ", ", ", ".join(items)


def _reads_as_number(text: str) -> bool:
    return not isinstance(parse(Source("", text))[0].value, str)


def _is_block(text: str, start: int) -> bool:
    """Whether an item has a line of its own behind a dash."""
    return re.fullmatch(r"[ \t]*-[ \t]+", text[_line_start(text, start) : start]) is not None


def _line_start(text: str, at: int) -> int:
    return text.rfind("\n", 0, at) + 1


def _line_end(text: str, at: int) -> int:
    end = text.find("\n", at)
    end = len(text) if end < 0 else end
    return end - text[:end].endswith("\r")
