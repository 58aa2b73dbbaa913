"""Repairs of files of other engines, where they stand: each edit is read again, and must say what was meant."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from omni_config.checking import edit_command, edit_keys, edit_python
from omni_config.checking.document import CheckResult, ParsedDocument, judge
from omni_config.checking.edit import CannotEdit, Edit
from omni_config.checking.files import read_bytes
from omni_config.engines.formats.text import File
from omni_config.engines.formats.way import ALL
from omni_config.findings import Span
from omni_config.rules.rule import Rule
from omni_config.schema.settings import FIELDS, PARAMETERS, SWITCHES, Settings, validate

#: Findings of readers about flags and keys that an engine does not have.
_MISSPELT = ("OMNI608", "OMNI611", "OMNI615")
_EDITORS = {"command": edit_command.edits, "yaml": edit_keys.edits, "python": edit_python.edits}


def edited(checked: CheckResult, changes: Settings, policies: tuple[Rule, ...] = (), *, clean: bool) -> str:
    """The text of a file with settings of one of its deployments changed.

    ``clean``: it must have no error then; otherwise it must have no new one.

    Raises:
        CannotEdit: the text cannot be made to say exactly these changes, or that is not enough.
    """
    document = checked.document
    assert document is not None
    if document.words is None:
        raise CannotEdit("a file of this kind is not edited; do it by hand")
    current, touched = document, set[str]()
    waiting: dict[str, CannotEdit] = {}
    for name, value in sorted(changes.items(), key=lambda change: change[0] not in SWITCHES):
        if _value(current, name) == value:
            continue
        assert current.words is not None
        assert current.draft is not None
        touched |= current.words.options(name)
        if name in SWITCHES and not value:  # what says its parameters goes with it
            inner = (way for parameter in PARAMETERS[name] for way in current.words.ways.get(parameter, ()))
            touched.update(way.path[0].replace("-", "_") for way in inner)
        try:
            found = list(_EDITORS[current.draft.form](current.words, name, value))
            current = _again(document, _applied(current.source.text, found))
        except CannotEdit as error:
            waiting[name] = error  # what other changes decide may say it all the same
        assert current.words is not None
        touched |= current.words.options(name)
    for name, reason in waiting.items():
        if _value(current, name) != changes[name]:
            raise reason
    _verify(document, current, changes, touched)
    _judge(checked, current, policies, clean)
    return current.source.text


def respelled(checked: CheckResult, policies: tuple[Rule, ...]) -> str | None:
    """The text with one flag or key that the engine does not have spelt as was probably meant, or taken away where
    that is the next step; None where no finding says so.
    """
    document = checked.document
    assert document is not None
    if document.words is None:
        return None
    errors = sum(finding.severity == "error" for finding in checked.findings)
    for finding in checked.findings:
        if finding.code not in _MISSPELT or finding.span is None or document.draft is None:
            continue
        try:
            if meant := re.fullmatch(r"did you mean (\S+)\?", finding.next_step):
                after = _again(document, _with_name(document.draft.file, finding.span, meant[1]))
            elif finding.next_step in ("remove the flag", "remove the key"):
                after = _again(document, _applied(checked.source.text, [_without(document, finding.span)]))
                _verify(document, after, {}, set(document.options) - set(after.options))
            else:
                continue
        except CannotEdit:
            continue
        if sum(each.severity == "error" for each in judge(after, policies).findings) < errors:
            return after.source.text
    return None


def _with_name(file: File, place: Span, name: str) -> str:
    """The text with another name of the flag or key at a place."""
    text = file.source.text
    found = re.compile(r"[\\\"']*(-*[\w.-]+)").match(text, file.offset(place))
    if found is None:
        raise CannotEdit("a name in several places")
    return text[: found.start(1)] + name + text[found.end(1) :]


def _without(document: ParsedDocument, place: Span) -> Edit:
    """The edit that takes a flag or key away."""
    assert document.draft is not None
    assert document.words is not None
    if document.draft.form == "yaml" and not document.draft.typed:
        return edit_keys.without(document.words, place)
    typed = next((typed for typed in document.draft.typed if typed.span == place), None)
    if document.draft.form != "command" or typed is None or typed.used > 1:
        raise CannotEdit("what would go with it is not known")
    return edit_command.without(document.source.text, typed)


def _applied(text: str, edits: Iterable[Edit]) -> str:
    end = len(text) + 1
    for edit in sorted(set(edits), key=lambda each: -each.start):
        if edit.end > end:
            raise CannotEdit("two edits would meet")
        text = text[: edit.start] + edit.text + text[edit.end :]
        end = edit.start
    return text


def _again(document: ParsedDocument, text: str) -> ParsedDocument:
    """The same deployment of the edited text."""
    before, after = _all(document.source.text, document), _all(text, document)
    if len(before) != len(after):
        raise CannotEdit("the edit would change what else the file is")
    for index, (old, new) in enumerate(zip(before, after, strict=True)):
        if index != document.index and _whole(old) != _whole(new):
            raise CannotEdit("the edit would change another deployment of the file")
    again = after[document.index]
    if again.node is None or again.words is None:
        raise CannotEdit("the edited file could not be read")
    return again


def _all(text: str, document: ParsedDocument) -> list[ParsedDocument]:
    return read_bytes(document.source.name, text.encode(), document.assume)


def _whole(document: ParsedDocument) -> str:
    """All that a deployment says, for comparison: what only a run knows equals nothing."""
    node = document.node.value if document.node else None
    return repr((node, sorted((name, repr(option.value)) for name, option in document.options.items())))


def _settings(document: ParsedDocument) -> Settings:
    assert document.node is not None
    try:
        return validate(document.node.value)
    except ValueError as error:
        raise CannotEdit(str(error)) from None


def _value(document: ParsedDocument, name: str) -> Any:
    return _settings(document)[name]


def _verify(before: ParsedDocument, after: ParsedDocument, changes: Settings, touched: set[str]) -> None:
    """Refuse an edit after which the file says another thing than was meant."""
    old, new = _settings(before), _settings(after)
    assert before.words is not None
    gone = {name for switch in SWITCHES if changes.get(switch) is False for name in PARAMETERS[switch]}
    for name in FIELDS:
        wanted = changes.get(name, old[name])
        derived = name not in changes and not _own(before, name) and not _own(after, name)
        if new[name] != wanted and not derived and name not in gone:
            shown = before.words.name(name)
            raise CannotEdit(f"the edit would not say {shown} {wanted}, but {new[name]}")
    if other := set(_other_options(before, after, touched | gone)):
        raise CannotEdit(f"the edit would change {', '.join(sorted(other))}, too")


def _own(document: ParsedDocument, name: str) -> bool:
    """Whether a setting has a word of its own in the file, rather than following from others."""
    said = document.words.said(name) if document.words else None
    return said is not None and said.way.value != ALL


def _other_options(before: ParsedDocument, after: ParsedDocument, touched: set[str]) -> Iterator[str]:
    """The engine's own settings that differ, but for those that were meant, and what is inside of them."""
    gone = [before.options[name].value for name in touched & before.options.keys() - after.options.keys()]
    inside = {str(key) for value in gone if isinstance(value, dict) for key in value}
    for name in before.options.keys() | after.options.keys():
        old, new = before.options.get(name), after.options.get(name)
        meant = name.removesuffix("_count") in touched | inside
        if not meant and (old is None or new is None or _differ(old.value, new.value, touched)):
            yield name


def _differ(old: Any, new: Any, touched: set[str]) -> bool:
    """Whether two values differ, at any depth, but for the keys that were meant."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [key for key in old.keys() | new.keys() if str(key) not in touched]
        return any(key not in old or key not in new or _differ(old[key], new[key], touched) for key in keys)
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return any(_differ(one, other, touched) for one, other in zip(old, new, strict=True))
    return repr(old) != repr(new)


def _judge(checked: CheckResult, after: ParsedDocument, policies: tuple[Rule, ...], clean: bool) -> None:
    """Refuse an edit that leaves an error, or makes one."""
    known = set() if clean else {finding.code for finding in checked.findings}
    for finding in judge(after, policies).findings:
        if finding.severity == "error" and finding.code not in known:
            raise CannotEdit(f"{finding.code} would be left: {finding.message}")
