"""What a Python script says of deployments: the calls that it makes, and their arguments as settings and flags."""

from __future__ import annotations

import ast
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from omni_config.engines.formats.draft import Draft
from omni_config.engines.formats.shell import Word
from omni_config.engines.formats.text import File, Text
from omni_config.findings import Span
from omni_config.reading.nodes import YamlNode
from omni_config.rules.quantities import UNKNOWN, has_unknown


@dataclass(slots=True, eq=False, repr=False)
class Call:
    """A call: the full name of what is called (``diffusers.FluxPipeline.from_pretrained``), or, of an object, the
    attributes behind it (``transformer.enable_parallelism``; empty where the object itself is called).

    ``receiver`` is the call that made the object. ``open``: it also has arguments that only a run knows.
    """

    name: str
    span: Span
    receiver: Call | None = None
    arguments: list[YamlNode] = field(default_factory=list)
    keywords: dict[str, YamlNode] = field(default_factory=dict)
    open: bool = False
    attributes: dict[str, YamlNode] = field(default_factory=dict)
    own: ast.ClassDef | None = None  # a class of the file, of which it makes an object

    @property
    def last(self) -> str:
        """The last part of its name."""
        return self.name.rpartition(".")[2]

    def origin(self) -> Call:
        """The call that made the first object of a chain."""
        call = self
        while call.receiver is not None:
            call = call.receiver
        return call


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """What a call has made, or an attribute of it."""

    call: Call
    path: str = ""


@dataclass(frozen=True, slots=True)
class Name:
    """Something imported, by its full name."""

    text: str


@dataclass(frozen=True, slots=True, eq=False)
class Local:
    """A function or class of the file, with the object whose method it is."""

    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    scope: Scope
    owner: Call | None = None


class Options(dict[str, Any]):
    """What argparse makes: options by name, as their defaults say."""


@dataclass(eq=False)
class Scope:
    """Names and what they mean."""

    names: dict[str, YamlNode] = field(default_factory=dict)
    outer: Scope | None = None

    def find(self, name: str) -> YamlNode | None:
        """What a name means here."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.names:
                return scope.names[name]
            scope = scope.outer
        return None


@dataclass(eq=False)
class Script:
    """The calls of a script in their order; ``skipped``: those made only where a condition holds that a run knows."""

    file: File
    calls: list[Call] = field(default_factory=list)
    skipped: list[tuple[str, Span]] = field(default_factory=list)
    cut: bool = False  # too long to be followed to its end

    def of(self, origin: Call) -> list[Call]:
        """The calls of an object and of its parts, in their order."""
        return [call for call in self.calls if call.receiver is not None and call.origin() is origin]

    def uses(self, package: str) -> bool:
        """Whether anything of a package is called."""
        return any(call.name.split(".", 1)[0] == package for call in self.calls)


def plain(node: YamlNode) -> YamlNode:
    """A value that may be compared: text, numbers, lists and mappings of them, or ``UNKNOWN``."""
    value = node.value
    if isinstance(value, Name):
        return replace(node, value=value.text.removeprefix("torch."), children={})  # torch.bfloat16 is "bfloat16"
    if isinstance(value, Made | Local):
        return replace(node, value=UNKNOWN, children={})
    if isinstance(value, dict | list):
        children = {key: plain(child) for key, child in node.children.items()}
        values = {key: child.value for key, child in children.items()}
        return replace(node, value=values if isinstance(value, dict) else list(values.values()), children=children)
    return node


def tree(keywords: Mapping[str, YamlNode], package: str) -> dict[str, YamlNode]:
    """Keyword arguments as the keys of a file: an object of the package's own settings is a mapping of its own."""
    found = {}
    for name, node in keywords.items():
        made = node.value
        if isinstance(made, Made) and not made.path and made.call.name.split(".", 1)[0] == package:
            inner = tree(made.call.keywords, package)
            node = replace(node, value={key: child.value for key, child in inner.items()}, children=inner)
        found[name] = plain(node)
    return found


def known(draft: Draft, node: YamlNode, settings: Mapping[str, str]) -> YamlNode:
    """A mapping without what only a run knows of it, which is named; ``settings`` are those of ours by its keys."""
    children = {}
    for key, child in node.children.items():
        if isinstance(child.value, dict):
            child = known(draft, child, settings)
        if has_unknown(child.value):
            draft.not_known([settings[key]] if key in settings else (), str(key), child.key_span or child.span)
        else:
            children[key] = child
    return replace(node, value={key: child.value for key, child in children.items()}, children=children)


def words(keywords: Mapping[str, YamlNode], file: File, switches: Collection[str] = ()) -> list[Word]:
    """Keyword arguments as the flags of a command: ``num_gpus=2`` is ``--num-gpus 2``; what is None is not said.

    False is said for ``switches``, flags that take it as a word, and else is to leave a flag out.
    """
    found = []
    for name, node in keywords.items():
        node = plain(node)
        off = node.value is False and name.replace("_", "-") not in switches
        if node.value is None or off or isinstance(node.value, dict):
            continue
        start = file.offset(node.key_span or node.span)
        found.append(Word(Text(f"--{name}", [start] * (len(name) + 2), file)))
        for item in node.value if isinstance(node.value, list) else () if node.value is True else (node.value,):
            said = "" if item is UNKNOWN else str(item)
            at = file.offset(node.span)
            found.append(Word(Text(said or name, [at] * len(said or name), file), unknown=item is UNKNOWN))
    return found


def cached_pipelines(script: Script) -> dict[Call, Call]:
    """The pipelines, by the calls that load them, that a script hands to ``cache_dit.enable_cache``."""
    found = {}
    for call in script.calls:
        if call.receiver is None and call.name.startswith("cache_dit.") and call.last == "enable_cache":
            first = call.arguments[0] if call.arguments else call.keywords.get("pipe_or_adapter")
            owner = first.value.call if first is not None and isinstance(first.value, Made) else call
            if owner.last == "BlockAdapter":
                inner = owner.keywords.get("pipe")
                owner = inner.value.call if inner is not None and isinstance(inner.value, Made) else call
            found[owner] = call
    return found
