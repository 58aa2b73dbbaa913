"""Commands in YAML: containers of compose, Kubernetes and what builds on it, steps of CI, tasks of SkyPilot.

Each is read with what stands around it: variables, ConfigMaps of the same file, GPUs. Nothing is asked of a cluster.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from omni_config.engines.formats.given import Gpus
from omni_config.engines.formats.gpus import of_accelerators, of_resources, of_service
from omni_config.engines.formats.launched import entry_point, with_variables
from omni_config.engines.formats.shell import Command, Word, commands
from omni_config.engines.formats.text import MARK, File, Text, joined
from omni_config.reading.nodes import YamlNode

if TYPE_CHECKING:
    from omni_config.findings import Span

#: Keys whose text is a script, or a list of commands.
_SCRIPTS = ("run", "script", "before_script", "commands", "setup")
_OF_KUBERNETES = re.compile(r"\$\(([A-Za-z_]\w*)\)()")
_OF_COMPOSE = re.compile(r"(?<!\$)\$(?:([A-Za-z_]\w*)|\{(\w+)(?::?-(?P<default>[^}]*))?\})")
_EXPRESSION = re.compile(r"\$\{\{.*?\}\}", re.DOTALL)  # of GitHub Actions
_LINE = re.compile(r"^\s*(?:export\s+)?([A-Za-z_]\w*)\s*=\s*(.*?)\s*$")


@dataclass(frozen=True)
class _Around:
    """What stands around a place of a manifest."""

    environment: Mapping[str, Word] = field(default_factory=dict)
    gpus: tuple[Gpus, ...] = ()
    nodes: int = 1
    unseen: tuple[tuple[str, Span], ...] = ()
    kind: str = ""  # of Kubernetes, or "compose"
    open: bool = False

    def command(self, words: list[Word]) -> Command:
        """A command that is started here."""
        return Command(words, self.environment, self.gpus, self.unseen, self.open)


def commands_of(documents: list[YamlNode], file: File) -> Iterator[Command]:
    """The commands of all documents of a file."""
    maps: dict[str, YamlNode] = {}
    for document in documents:
        if isinstance(document.value, dict) and document.value.get("kind") == "ConfigMap":
            name, data = document.find(("metadata", "name")), document.children.get("data")
            if name is not None and data is not None and isinstance(data.value, dict):
                maps[str(name.value)] = data
    reader = _Manifest(file, maps)
    for document in documents:
        kind = document.value.get("kind") if isinstance(document.value, dict) else None
        around = _Around(kind=str(kind or ""), open=bool(getattr(file, "open", False)))
        if isinstance(document.value, dict) and isinstance(document.value.get("services"), dict) and not kind:
            around = replace(around, kind="compose", environment=reader.file_of(".env", document))
        yield from reader.walk(document, around)


class _Manifest:
    def __init__(self, file: File, maps: Mapping[str, YamlNode]) -> None:
        self.file = file
        self.maps = maps
        self.fill: Callable[[Text], Word] | None = getattr(file, "filled", None)  # of a template
        self.not_known = Word(Text("", [], file), unknown=True)

    def walk(self, node: YamlNode, around: _Around) -> Iterator[Command]:
        """Every command at and below a node."""
        if isinstance(node.value, dict):
            around = self._around(node, around)
            yield from self._container(node, around)
            for key in _SCRIPTS:
                if key in node.children:
                    yield from self._script(node.children[key], around)
            if around.kind == "ConfigMap":
                for name, child in node.children.items():
                    if str(name).endswith((".sh", ".bash")) and isinstance(child.value, str):
                        yield from commands(self.file.scalar(child), within=around.command([]))
        for child in node.children.values():
            if child.children:
                yield from self.walk(child, around)

    def _around(self, node: YamlNode, around: _Around) -> _Around:
        children = node.children
        environment, unseen = dict(around.environment), list(around.unseen)
        if around.kind == "compose" and "env_file" in children:
            environment |= self._env_files(children["env_file"], unseen)
        if "envFrom" in children:
            environment |= self._env_from(children["envFrom"], unseen)
        for key in ("env", "envs", "environment"):
            if key in children:
                environment |= self._variables(children[key], environment, around)
        size = node.find(("leaderWorkerTemplate", "size")) or node.find(("multinode", "nodeCount"))
        nodes = size.value if size is not None and isinstance(size.value, int) and size.value > 0 else around.nodes
        gpus = of_service(node) if around.kind == "compose" else ()
        if (resources := children.get("resources")) is not None and isinstance(resources.value, dict):
            resources = self._filled(resources)
            gpus += of_resources(resources, nodes, plain=around.kind.startswith("Dynamo"))
            gpus += of_accelerators(resources, nodes)
        return replace(around, environment=environment, gpus=gpus or around.gpus, nodes=nodes, unseen=tuple(unseen))

    def _filled(self, node: YamlNode) -> YamlNode:
        """A mapping of a template with its values filled in."""
        if self.fill is None:
            return node
        if isinstance(node.value, str) and MARK in node.value:
            return replace(node, value=self.fill(self.file.scalar(node)).value)
        return replace(node, children={key: self._filled(child) for key, child in node.children.items()})

    def _variables(self, node: YamlNode, before: Mapping[str, Word], around: _Around) -> dict[str, Word]:
        found: dict[str, Word] = {}
        for key, child in node.children.items():
            if isinstance(node.value, dict) and not isinstance(child.value, dict | list):
                found[str(key)] = self._value(child, around, before) if child.value is not None else self.not_known
            elif isinstance(child.value, str):
                text = self._value(child, around, before)
                name, equals, _ = text.value.partition("=")
                found[name] = Word(text.text[len(name) + 1 :], text.unknown) if equals else self.not_known
            elif isinstance(child.value, dict) and "name" in child.value:
                found[str(child.value["name"])] = self._entry(child, {**before, **found}, around)
        return found

    def _entry(self, entry: YamlNode, before: Mapping[str, Word], around: _Around) -> Word:
        """A variable of Kubernetes: its value, or a key of a ConfigMap of this file."""
        if (value := entry.children.get("value")) is not None:
            return self._value(value, around, before)
        source = entry.find(("valueFrom", "configMapKeyRef"))
        said = source.value if source is not None else None
        data = self.maps.get(str(said.get("name"))) if isinstance(said, dict) else None
        found = data.children.get(said.get("key")) if data is not None and isinstance(said, dict) else None
        return self._value(found, around, {}) if found is not None else self.not_known

    def _env_from(self, node: YamlNode, unseen: list[tuple[str, Span]]) -> dict[str, Word]:
        found: dict[str, Word] = {}
        for source in node.children.values():
            name = source.find(("configMapRef", "name"))
            data = self.maps.get(str(name.value)) if name is not None else None
            if data is not None:
                found |= {str(key): Word(self._text(child)) for key, child in data.children.items()}
            elif name is not None:
                unseen.append((f"the variables of ConfigMap {name.value} (not in this file)", name.span))
        return found

    def _env_files(self, node: YamlNode, unseen: list[tuple[str, Span]]) -> dict[str, Word]:
        found: dict[str, Word] = {}
        for child in node.children.values() if isinstance(node.value, list) else [node]:
            path = child.children.get("path", child)
            if isinstance(path.value, str):
                read = self.file_of(path.value, path)
                if not read:
                    unseen.append((f"the variables of {path.value} (not found beside this file)", path.span))
                found |= read
        return found

    def file_of(self, name: str, place: YamlNode) -> dict[str, Word]:
        """The variables of a file beside this one; they stand where it is named."""
        try:
            folder = Path(self.file.source.name).parent
            text = Path(folder, name).read_text("utf-8") if self.file.source.name not in ("", "-", "file") else ""
        except (OSError, ValueError):
            return {}
        found = {}
        for line in text.splitlines():
            if match := _LINE.match(line):
                value = match[2].strip("\"'")
                found[match[1]] = Word(Text(value, [place.start] * len(value), self.file))
        return found

    def _text(self, node: YamlNode) -> Text:
        if isinstance(node.value, str):
            return self.file.scalar(node)
        return joined([self.file.text[node.start : node.end]], self.file)  # a number or switch, as it is written

    def _value(self, node: YamlNode, around: _Around, variables: Mapping[str, Word]) -> Word:
        """A text with the variables that Kubernetes or compose puts into it."""
        text = self._text(node)
        filled = self.fill(text) if self.fill is not None and MARK in text.value else Word(text)
        if "$" not in text.value:
            return filled
        if _EXPRESSION.search(text.value):
            return Word(text, unknown=True)
        compose = around.kind == "compose"
        word = with_variables(filled.text, _OF_COMPOSE if compose else _OF_KUBERNETES, variables, keep=not compose)
        return replace(word, unknown=word.unknown or filled.unknown)

    def _script(self, node: YamlNode, around: _Around) -> Iterator[Command]:
        """A script, or a list of them."""
        for child in node.children.values() if isinstance(node.value, list) else [node]:
            if isinstance(child.value, str):
                yield from commands(self._script_text(child, around), within=around.command([]))

    def _script_text(self, node: YamlNode, around: _Around) -> Text:
        text = self._text(node)
        if MARK in text.value or (around.kind != "compose" and "$(" in text.value):
            text = self._value(node, around, around.environment).text
        return Text(_EXPRESSION.sub(lambda match: "$" + "@" * (len(match[0]) - 1), text.value), text.offsets, text.file)

    def _container(self, node: YamlNode, around: _Around) -> Iterator[Command]:
        """The command of a container: ``entrypoint`` + ``command``, or ``command`` + ``args``, or its image's."""
        keys = ("entrypoint", "command", "args")
        parts = [node.children[key] for key in keys if key in node.children]
        parts = [part for part in parts if isinstance(part.value, str | list) and part.value]
        if not parts:
            return
        named = self._image(node.children.get("image"), around)
        words: list[Word] = []
        for part in parts:
            words += self._words(part, around)
        own = "entrypoint" in node.value or ("command" in node.value and around.kind != "compose")
        start = entry_point(named, words) if named is not None and not own else []
        command = replace(around.command([*start, *words]), image=named.value if named is not None else "")
        if start or all(isinstance(part.value, list) for part in parts):
            yield command
            return
        for part in parts:
            if isinstance(part.value, str):
                yield from commands(self._script_text(part, around), within=command)
            else:
                yield command.of(list(self._words(part, around)))

    def _image(self, image: YamlNode | None, around: _Around) -> Text | None:
        """The name of an image; of Helm's values, its repository and tag."""
        parts = [image] if image is not None else []
        if image is not None and isinstance(image.value, dict):
            parts = [image.children[key] for key in ("repository", "tag") if key in image.children]
        texts = [self._value(part, around, around.environment).text for part in parts if part.value]
        if len(texts) > 1:
            texts.insert(1, Text(":", texts[1].offsets[:1], self.file))
        return joined(texts, self.file) if texts and texts[0].offsets else None

    def _words(self, part: YamlNode, around: _Around) -> Iterator[Word]:
        if isinstance(part.value, str):
            for command in commands(self._script_text(part, around), within=around.command([])):
                yield from command.words
        else:
            for item in part.children.values():
                if not isinstance(item.value, dict | list):
                    yield replace(self._value(item, around, around.environment), item=(item.start, item.end))
