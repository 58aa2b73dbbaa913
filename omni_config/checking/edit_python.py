"""Changes of settings, written into Python: keyword arguments, entries of mappings, and calls that stand alone."""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Iterator
from typing import Any

from omni_config.checking.edit import CannotEdit, Edit
from omni_config.engines.formats import python_reader
from omni_config.engines.formats.draft import Draft
from omni_config.engines.formats.text import Text
from omni_config.engines.formats.way import Way
from omni_config.engines.words import Words
from omni_config.schema.settings import FIELDS, PARAMETERS


def edits(words: Words, setting: str, value: Any) -> Iterator[Edit]:
    """The edits after which a script says a setting.

    Raises:
        CannotEdit: it says the setting where no edit reaches, or no call of the script would take it.
    """
    script = _Script(words.draft)
    said, way, off = words.said(setting), words.way(setting, value), words.off(setting, value)
    if said is None:
        if off or way is None or (FIELDS[setting][0] == "sampling" and not way.path[0]):
            raise CannotEdit(f"no argument of this script says {words.name(setting)}")
        yield script.insertion(way, way.text or (True if way.value is not None else value))
        return
    found = words.node.find(FIELDS[setting])
    assert found is not None
    at = words.draft.file.offset(found.key_span or found.span)
    if said.way.kind == "call":
        if not off:
            raise CannotEdit(f"{said.name} cannot say {value}")
        yield script.without_call(at, said.name, bool(PARAMETERS.get(setting)))
    elif off and (value is None or said.way.text):
        yield script.without(at, said.name)
        if PARAMETERS.get(setting):
            yield from script.without_parameters(at, "cache_config")
    elif off:
        yield script.changed(at, said.name, False)
    elif way is not None and way == said.way:
        yield script.changed(at, said.name, way.text or way.value is not None or value)
    else:
        raise CannotEdit(f"{said.name} cannot say {value}")


class _Script:
    """A script by its syntax tree, with the places of its parts in the file."""

    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        text = python_reader.code(draft.file)
        if text is None:
            raise CannotEdit("the script is too long")
        self.text: Text = text
        self.file = draft.file.source.text
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.tree = ast.parse(text.value)
        self.starts = [0]
        for line in text.value.split("\n"):
            self.starts.append(self.starts[-1] + len(line) + 1)
        self.parents = {child: node for node in ast.walk(self.tree) for child in ast.iter_child_nodes(node)}

    def _offset(self, line: int, column: int) -> int:
        start = self.starts[line - 1]
        before = self.text.value[start : start + column]
        return start + (column if before.isascii() else len(before.encode()[:column].decode(errors="ignore")))

    def place(self, node: Any) -> tuple[int, int]:
        """Where a part of the script stands in the file."""
        start = self._offset(node.lineno, node.col_offset)
        end = self._offset(node.end_lineno, node.end_col_offset)
        return self.text.offsets[start], self.text.offsets[end - 1] + 1

    # What stands somewhere

    def _value(self, at: int, name: str) -> tuple[ast.AST, ast.expr]:
        """The argument, or entry of a mapping, at a place, and its value."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.keyword) and at in (self.place(node)[0], self.place(node.value)[0]):
                return node, node.value
            if isinstance(node, ast.Dict):
                for key, item in zip(node.keys, node.values, strict=True):
                    if key is not None and at in (self.place(key)[0], self.place(item)[0]):
                        return item, item
            if isinstance(node, ast.Call):
                for argument in node.args:
                    if at == self.place(argument)[0]:
                        return argument, argument
        raise CannotEdit(f"{name} stands where no edit reaches")

    def changed(self, at: int, name: str, value: Any) -> Edit:
        """A literal with another value; of a name that is assigned once, where that is."""
        literal = self._literal(self._value(at, name)[1])
        if literal is None:
            start, end = self.place(self._value(at, name)[1])
            raise CannotEdit(f"{name} is {self.file[start:end]}, which is no literal")
        start, end = self.place(literal)
        single = self.file[start] == "'"
        written = json.dumps(value) if isinstance(value, str) and not single else repr(value)
        return Edit(start, end, written)

    def _literal(self, node: ast.expr) -> ast.expr | None:
        if isinstance(node, ast.Constant):
            return node
        if isinstance(node, ast.UnaryOp) and isinstance(node.operand, ast.Constant):
            return node
        if not isinstance(node, ast.Name):
            return None
        stores = [
            each
            for each in ast.walk(self.tree)
            if (isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store) and each.id == node.id)
            or (isinstance(each, ast.arg) and each.arg == node.id)
        ]
        owner = self.parents.get(stores[0]) if len(stores) == 1 else None
        if isinstance(owner, ast.Assign | ast.AnnAssign) and isinstance(owner.value, ast.Constant):
            return owner.value
        return None

    # Removals

    def without_call(self, at: int, name: str, cache: bool) -> Edit:
        """Without a call that is a statement of its own, and not the only one of its block; one that switches a cache
        on and does more goes without the cache's argument.
        """
        for call in self._calls() if cache else ():
            if self.place(call.func)[0] == at:
                said = {keyword.arg: keyword for keyword in call.keywords}
                if {"cache_config", "parallelism_config"} <= said.keys():
                    return self.without(self.place(said["cache_config"])[0], name)
        for node in ast.walk(self.tree):
            alone = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
            if alone and self.place(node.value.func)[0] == at:  # type: ignore[attr-defined]
                owner = self.parents[node]
                block = next(body for body in _blocks(owner) if node in body)
                start, end = self.place(node)
                first, last = self._lines(start, end)
                if len(block) == 1 or self.file[first:start].strip() or self._after(end).strip():
                    raise CannotEdit(f"{name} cannot be taken away without other changes")
                return Edit(first, last, "")
        raise CannotEdit(f"{name} is no statement of its own")

    def without(self, at: int, name: str) -> Edit:
        """Without a keyword argument, or an entry of a mapping."""
        node, _ = self._value(at, name)
        owner = self.parents.get(node)
        if isinstance(node, ast.keyword) and isinstance(owner, ast.Call):
            parts = [(each, self.place(each)) for each in (*owner.args, *owner.keywords)]
        elif isinstance(owner, ast.Dict) and None not in owner.keys:
            entries = zip(owner.keys, owner.values, strict=True)
            parts = [(item, (self.place(key)[0], self.place(item)[1])) for key, item in entries]
        else:
            raise CannotEdit(f"{name} is no keyword argument")
        parts.sort(key=lambda part: part[1])
        number = next(at for at, (each, _) in enumerate(parts) if each is node)
        start, end = parts[number][1]
        first, last = self._lines(start, end)
        if not self.file[first:start].strip() and re.fullmatch(r"\s*,?\s*(#.*)?", self._after(end)):
            return Edit(first, last, "")
        if number + 1 < len(parts):
            return Edit(start, parts[number + 1][1][0], "")
        return Edit(parts[number - 1][1][1] if number else start, end, "")

    def without_parameters(self, at: int, name: str) -> Iterator[Edit]:
        """Without another argument of the same call."""
        call = self.parents.get(self._value(at, name)[0])
        for keyword in call.keywords if isinstance(call, ast.Call) else ():
            if keyword.arg == name:
                yield self.without(self.place(keyword)[0], name)

    # Insertions

    def insertion(self, way: Way, value: Any) -> Edit:
        """A further keyword argument of the class that takes it, or of what starts the engine."""
        owner, name = way.path
        if owner:
            calls = [each for each in self._calls() if _last(each.func) == owner]
        else:
            at = self.draft.file.offset(self.draft.place)
            calls = [each for each in self._calls() if self.place(each.func)[0] == at]
        if len(calls) != 1:
            raise CannotEdit(f"no call of this script is the one that would take {name}")
        call, said = calls[0], f"{name}={value!r}"
        parts = sorted([*call.args, *call.keywords], key=lambda each: self.place(each)[1])
        if not parts:
            return Edit(self.place(call)[1] - 1, self.place(call)[1] - 1, said)
        start, end = self.place(parts[-1])
        first, _ = self._lines(start, end)
        indent = self.file[first:start]
        comma = re.compile(r"\s*,").match(self.file, end)
        if indent.strip() or not first:
            return Edit(comma.end() if comma else end, comma.end() if comma else end, f"{'' if comma else ','} {said}")
        newline = "\r\n" if self.file[:first].endswith("\r\n") else "\n"
        if comma is None:
            return Edit(end, end, f",{newline}{indent}{said}")
        line = end + len(self._after(end))
        return Edit(line, line, f"{newline}{indent}{said},")

    def _calls(self) -> list[ast.Call]:
        return [node for node in ast.walk(self.tree) if isinstance(node, ast.Call)]

    def _lines(self, start: int, end: int) -> tuple[int, int]:
        """The whole lines of a part."""
        last = self.file.find("\n", end)
        return self.file.rfind("\n", 0, start) + 1, len(self.file) if last < 0 else last + 1

    def _after(self, end: int) -> str:
        """The rest of the line, without its end."""
        last = self.file.find("\n", end)
        return self.file[end : len(self.file) if last < 0 else last].rstrip("\r")


def _blocks(owner: ast.AST) -> Iterator[list[Any]]:
    for name in ("body", "orelse", "finalbody", "handlers"):
        if isinstance(body := getattr(owner, name, None), list):
            yield body


def _last(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
