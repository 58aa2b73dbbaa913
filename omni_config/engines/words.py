"""What a file of another engine calls our settings: by the word that the file itself uses, else by the engine's own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from omni_config.engines import ENGINES
from omni_config.engines.facts import facts_of, plain_name
from omni_config.engines.formats.draft import Draft, Typed
from omni_config.engines.formats.flags import EITHER
from omni_config.engines.formats.way import Way
from omni_config.findings import Span
from omni_config.reading.nodes import Unreadable, YamlNode, parse
from omni_config.schema.settings import DEFAULTS, FIELDS, SWITCHES

#: Our names as messages have them: with their sections, or alone where they are no words of the language.
_NAMES = {".".join(path): name for name, path in FIELDS.items() if path[1:]}
_NAMES |= {name: name for name in FIELDS if "_" in name}
#: A name in a message, with what it is set to, or is.
_SAID = re.compile(
    r"(?P<set>\bset )?(?<![\w./{-])(?P<name>(?=\w*[_.])\w+(?:\.\w+)*)(?![\w-])"
    r"(?:(?P<to> to (?P<value>[\w.+-]*\w(?![^\s,;)])))|(?P<number> \d+(?![\w.])))?"
)


@dataclass(frozen=True, slots=True)
class Said:
    """A setting that a file says: its word, the way that it is said, the flag as typed, and the keys of YAML."""

    name: str
    way: Way
    typed: Typed | None = None
    path: tuple[str | int, ...] = ()
    root: YamlNode | None = None

    @property
    def section(self) -> bool:
        """Whether a whole section switches it on."""
        found = self.root.find(self.path) if self.root else None
        return found is not None and isinstance(found.value, dict)


class Words:
    """The words of one deployment; ``node`` is what was made of it."""

    def __init__(self, draft: Draft, node: YamlNode) -> None:
        self.draft, self.node = draft, node
        engine = str(node.value["engine"])
        self._facts = facts_of(engine)
        self.ways: dict[str, list[Way]] = {}
        for way in ENGINES[engine.partition("==")[0]].ways(draft):
            self.ways.setdefault(way.setting, []).append(way)
        if draft.form == "command" and self._facts:  # what this version has, first
            for found in self.ways.values():
                found.sort(key=lambda way: way.kind == "word" and not self._declares(way))

    def _declares(self, way: Way) -> bool:
        return self._facts is not None and self._facts.declares(way.path[0])

    # What the file says

    def said(self, setting: str) -> Said | None:
        """How the file says a setting; None where it does not, or only by a word that says another one."""
        found = self.node.find(FIELDS[setting])
        if found is None or found.span == self.draft.place:
            return None
        span, ways = found.span, self.ways.get(setting, [])
        for typed in reversed(self.draft.typed):
            if typed.span == span:
                plain = plain_name(typed.name).removeprefix("no-" if self._is_switch(setting) else "--")
                if (way := _fitting(ways, plain, found.value)) is None:
                    return None
                path, root = self.place(span)
                of_form = {"python": plain.replace("-", "_"), "yaml": str(path[-1]) if path else plain}
                return Said(of_form.get(self.draft.form, typed.name), way, typed, path, root)
        if self.draft.form == "yaml":
            return self._said_in_yaml(span, ways, found.value)
        if self.draft.form == "command":
            return self._said_beside(span, setting, ways)
        text = self._text(span)
        if (keyword := re.match(r"(\w+)\s*=", text)) is not None:
            way = next((way for way in ways if way.path[-1] == keyword[1]), None)
        elif (called := re.fullmatch(r"(?:\w+\.)*([A-Za-z_]\w*)", text)) is not None:
            way = next((way for way in ways if way.path == (called[1],) and way.kind == "call"), None)
        else:  # an argument by its place, or a value of a mapping
            way = next((way for way in ways if way.kind == "word"), None)
        return Said(way.path[-1] + "()" * (way.kind == "call"), way) if way else None

    def _said_in_yaml(self, span: Span, ways: list[Way], value: Any) -> Said | None:
        path, root = self.place(span)
        keys = [key for key in path if isinstance(key, str)]
        for way in ways:
            fits = not way.text or way.value == (value is not None and value is not False)
            if keys[-len(way.path) :] == list(way.path) and fits:
                below = path[len(self.base) :] if path[: len(self.base)] == self.base else path
                return Said(".".join(map(str, below)), way, None, path, root)
        return None

    def _said_beside(self, span: Span, setting: str, ways: list[Way]) -> Said | None:
        """By a variable of the environment, a key of a flag's JSON, or the launcher in front."""
        command = self.draft.command
        for name, word in command.environment.items() if command else ():
            if word.text.offsets and word.text.span == span:
                way = next((way for way in ways if way.path == (name,)), None)
                return Said(name, way) if way else None
        text = self._text(span)
        key = re.match(r"\\?[\"'](\w+)", text)
        if key and (way := next((way for way in ways if way.path[1:] == (key[1],)), None)):
            return Said(key[1], way)
        launcher = re.match(r"--nproc[-_]per[-_]node", text)
        return Said(launcher[0], Way(setting, (plain_name(launcher[0]),))) if launcher else None

    def _text(self, span: Span) -> str:
        return span.source.line(span.line)[span.column - 1 : span.end - 1]

    # YAML

    @cached_property
    def documents(self) -> list[YamlNode]:
        """The documents of the file, read again."""
        try:
            return parse(self.draft.file.source)
        except Unreadable:
            return []

    @cached_property
    def base(self) -> tuple[str | int, ...]:
        """Where in its document the keys of the deployment stand: at the top, or in a stage."""
        path, root = self.place(self.draft.place)
        base = path[:-1]
        inner = root.find((*base, "engine_args")) if root else None
        return (*base, "engine_args") if inner is not None and isinstance(inner.value, dict) else base

    @cached_property
    def _places(self) -> dict[tuple[int, int], tuple[tuple[str | int, ...], YamlNode]]:
        """What stands where in a YAML file: the keys of each value, and the document that has it."""
        found: dict[tuple[int, int], tuple[tuple[str | int, ...], YamlNode]] = {}
        for root in self.documents if self.draft.form == "yaml" else ():
            for path, node in _nodes(root):
                for span in (node.key_span, node.span):
                    if span is not None:
                        found.setdefault((span.line, span.column), (path, root))
        return found

    @property
    def root(self) -> YamlNode | None:
        """The document of a YAML file that the deployment stands in."""
        return self.place(self.draft.place)[1]

    def place(self, span: Span) -> tuple[tuple[str | int, ...], YamlNode | None]:
        """The keys of what stands at a place of a YAML file, and the document that has it."""
        return self._places.get((span.line, span.column), ((), None))

    # What it could say

    def way(self, setting: str, value: Any) -> Way | None:
        """The way to say a value of a setting: the one that the file uses, else the engine's first."""
        ways = self.ways.get(setting, [])
        said = self.said(setting)
        if said is not None and said.way.says(value):
            return said.way
        found = (way for way in ways if way.says(value) and self._may_add(way))
        return next(found, None)

    def _may_add(self, way: Way) -> bool:
        """Whether an edit could add it to the file: no variable and no call, and the class that takes it is there."""
        if self.draft.form == "python":
            return way.kind == "word" and re.search(rf"\b{way.path[0]}\(", self.draft.file.source.text) is not None
        if self.draft.form == "command":
            return way.kind == "word" and len(way.path) == 1
        return True

    def can_say(self, setting: str) -> bool:
        """Whether the file says the setting, or an edit could make it."""
        return self.said(setting) is not None or any(map(self._may_add, self.ways.get(setting, ())))

    def options(self, setting: str) -> set[str]:
        """The names that a setting may have among the engine's own."""
        said = self.said(setting)
        ways = [*self.ways.get(setting, ()), *([said.way] if said else [])]
        names = {way.path[-1].replace("-", "_") for way in ways}
        flags = (
            self._facts.flag(way.path[0]) if self._facts and self.draft.form == "command" else None for way in ways
        )
        return names | {flag.setting for flag in flags if flag}

    def _is_switch(self, setting: str) -> bool:
        return DEFAULTS[setting] is False or setting in (*SWITCHES, *EITHER)

    def off(self, setting: str, value: Any) -> bool:
        """Whether a value is that of a setting that nothing says."""
        said = self.said(setting)
        if said is not None and said.way.value is not None:
            return not said.way.says(value) and value in (False, None, 1, DEFAULTS[setting])
        return value is None or (value is False and self._is_switch(setting))

    # Words for people

    def spelled(self, way: Way) -> str:
        """A way by its engine's own name."""
        if self.draft.form == "command" and way.kind == "word":
            if len(way.path) > 1:
                return way.path[-1]
            flag = self._facts.flag(way.path[0]) if self._facts and self._declares(way) else None
            return flag.name if flag else f"--{way.path[0]}"
        name = ".".join(way.path) if self.draft.form == "yaml" else way.path[-1]
        return f"{name}()" if way.kind == "call" else name

    def name(self, setting: str) -> str:
        """A setting by its word; in plain words where the engine has none."""
        said, ways = self.said(setting), self.ways.get(setting, [])
        if said is None and not ways:
            return setting.replace("_", " ")
        way = said.way if said else ways[0]
        name = said.name if said else self.spelled(way)
        return f"{name} {way.text}" if way.text and self.draft.form == "command" else name

    def phrase(self, setting: str, value: Any) -> str | None:
        """A setting with a value, as the file would say it; empty for one that it leaves out, None where it cannot."""
        said, way = self.said(setting), self.way(setting, value)
        form = self.draft.form
        if self.off(setting, value):
            if said is None:
                return ""
            way = said.way
            if form == "command" or way.text or way.kind == "call" or value is None or said.section:
                return f"{said.name}=false" if way.kind == "variable" else ""
            return f"{said.name}: false" if form == "yaml" else f"{said.name}=False"
        if way is None:
            return None
        name = said.name if said and said.way == way else self.spelled(way)
        if form == "command" and len(way.path) > 1:
            return f'--{way.path[0]} {{"{way.path[1]}": {json.dumps(value)}}}'
        if way.kind == "call":
            return name
        stands = way.text or (True if way.value is not None else value)
        if form == "python":
            return f"{name}={stands!r}"
        if form == "yaml":
            return f"{name}: {json.dumps(stands) if not isinstance(stands, str) else stands}"
        if stands is True and way.kind == "word":
            return name
        written = str(stands).lower() if isinstance(stands, bool) else str(stands)
        return f"{name}={written}" if way.kind == "variable" else f"{name} {written}"

    def lines(self, setting: str, old: Any, new: Any) -> list[str]:
        """A change as the lines of a diff."""
        before = self.phrase(setting, old) if self.said(setting) else ""
        after = self.phrase(setting, new)
        if after is None:
            shown = str(new).lower() if isinstance(new, bool) else new
            after = f"{'.'.join(FIELDS[setting])}: {shown} (this file has no word for it)"
        return [f"{sign} {text}" for sign, text in (("-", before), ("+", after)) if text]

    def translated(self, text: str) -> str:
        """A message with the file's words in place of our names."""
        return _SAID.sub(self._translated, text)

    def next_step(self, text: str) -> str:
        """A next step in the file's words, without what the file has no words for where something else is left."""
        steps = text.split(", or ")
        steps = [step for step in steps if all(map(self._has_word, _SAID.finditer(step)))] or steps
        at = _SAID.match(steps[0])
        verb = "set " if at and at["name"] in _NAMES and not at["set"] else ""  # it was said of another
        return self.translated(verb + ", or ".join(steps))

    def _has_word(self, found: re.Match[str]) -> bool:
        setting = _NAMES.get(found["name"])
        return setting is None or bool(self.ways.get(setting)) or self.said(setting) is not None

    def _translated(self, found: re.Match[str]) -> str:
        setting, value = _NAMES.get(found["name"]), found["value"]
        if value in _NAMES or setting is None:  # what follows is a name, too
            first = found[0].removesuffix(found["to"] or "")
            return (self.translated(first) if setting else first) + self.translated(found["to"] or "")
        name = self.name(setting)
        verb, said = found["set"] or "", self.said(setting)
        stated = None if value is None else _plain(value)
        way = self.way(setting, True if stated is None else stated) or (said.way if said else None)
        switch = said is not None and said.way.value is not None and said.way.kind == "word"
        if self.draft.form != "command":
            if stated is not None and way is not None and (way.value is not None or switch):
                true, false = ("True", "False") if self.draft.form == "python" else ("true", "false")
                return f"{verb}{self.spelled(way)} to {false if self.off(setting, stated) else true}"
            return f"{verb}{name}{found['to'] or ('' if switch else found['number'] or '')}"
        if stated is not None or verb:
            on = True if stated is None else stated
            alone = way is not None and way.kind == "word" and (way.value is not None or self._is_switch(setting))
            if way is not None and alone and not self.off(setting, on):
                return f"add {self.spelled(way)}{f' {way.text}' * bool(way.text)}"
            if stated is not None and (switch or self.off(setting, stated)):
                return f"remove {name}"
        return f"{verb}{name}{found['to'] or ('' if switch else found['number'] or '')}"


def _fitting(ways: list[Way], flag: str, value: Any) -> Way | None:
    """The way that a flag as it was typed is; by its beginning, as argparse takes it."""
    for way in ways:
        named = flag in (way.path[0].replace("_", "-"), way.path[-1].replace("_", "-"))
        if named and (way.value is None or way.text or way.says(value)):
            return way
    found = {way for way in ways if len(way.path) == 1 and way.path[0].startswith(flag)}
    return found.pop() if len(found) == 1 else None


def _plain(text: str) -> Any:
    return {"true": True, "false": False}.get(text, int(text) if text.isdigit() else text)


def _nodes(root: YamlNode) -> Iterator[tuple[tuple[str | int, ...], YamlNode]]:
    """Every value of a document with its keys, the inner ones first."""
    for key, child in root.children.items():
        for path, node in _nodes(child):
            yield (key, *path), node
        yield (key,), child
