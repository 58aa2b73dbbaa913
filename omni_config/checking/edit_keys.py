"""Changes of settings, written into the YAML of another engine: of stages, of flags as keys, or of its own format."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from omni_config.checking.edit import CannotEdit, Edit, edit_at, removal
from omni_config.engines.formats.way import Way
from omni_config.engines.words import Said, Words
from omni_config.findings import Span
from omni_config.schema.settings import PARAMETERS


def edits(words: Words, setting: str, value: Any) -> Iterator[Edit]:
    """The edits after which the file says a setting.

    Raises:
        CannotEdit: it says the setting where no edit reaches, or the engine has no key for it.
    """
    said, way, off = words.said(setting), words.way(setting, value), words.off(setting, value)
    if said is None:
        if off or way is None:
            raise CannotEdit(f"no key of this file says {words.name(setting)}")
        yield _insertion(words, way, value)
        return
    if said.root is None or (found := said.root.find(said.path)) is None or found.alias:
        raise CannotEdit(f"{said.name} stands where no edit reaches")
    if off and (value is None or said.way.text or said.section):
        yield removal(words.draft.file.source.text, said.root, said.path)
        yield from _parameters(words, setting, said)
    elif off:
        yield Edit(found.start, found.end, "false")
    elif way != said.way:
        raise CannotEdit(f"{said.name} cannot say {value}")
    elif (edit := edit_at(words.draft.file.source.text, said.root, said.path, False, _stands(way, value))) is not None:
        yield edit


def without(words: Words, place: Span) -> Edit:
    """The edit that takes the key at a place away."""
    path, root = words.place(place)
    if root is None:
        raise CannotEdit("the place of the key is not known")
    return removal(words.draft.file.source.text, root, path)


def _stands(way: Way, value: Any) -> Any:
    return way.text or (True if way.value is not None else value)


def _parameters(words: Words, switch: str, own: Said) -> Iterator[Edit]:
    """What stands beside a switch and says nothing but its parameters."""
    gone = {own.path}
    for name in PARAMETERS.get(switch, ()):
        said = words.said(name)
        if said is None or said.root is None:
            continue
        path = said.path[:-1] if len(said.way.path) > 1 else said.path
        if not any(path[: len(each)] == each for each in gone):
            gone.add(path)
            yield removal(words.draft.file.source.text, said.root, path)


def _insertion(words: Words, way: Way, value: Any) -> Edit:
    root = words.root
    if root is None:
        raise CannotEdit("the place of this deployment is not known")
    path = way.path
    if words.draft.typed and not any("-" in str(key) for key in root.value):  # a file of flags
        path = tuple(part.replace("-", "_") for part in path)
    edit = edit_at(words.draft.file.source.text, root, (*words.base, *path), False, _stands(way, value))
    assert edit is not None
    return edit
