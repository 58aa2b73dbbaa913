"""Configs of ours that a manifest carries: in a ConfigMap of Kubernetes, or among the configs of a compose file."""

from __future__ import annotations

import re
from collections.abc import Iterator

from omni_config.findings import Source
from omni_config.reading.nodes import YamlNode, parse

_MEANT = re.compile(r"^\s*version:.*\n(?:.*\n)*?\s*model:", re.MULTILINE)


def carried(source: Source, nodes: list[YamlNode]) -> Iterator[YamlNode]:
    """The documents in texts of several lines, with places in the file that carries them.

    Raises:
        Unreadable: such a text is no YAML.
    """
    for document in nodes:
        for text in _texts(document):
            if isinstance(text.value, str) and _MEANT.search(text.value):
                yield from parse(source, _alone(source.text, text))


def _texts(document: YamlNode) -> Iterator[YamlNode]:
    if not isinstance(document.value, dict):
        return
    if document.value.get("kind") == "ConfigMap" and (data := document.children.get("data")) is not None:
        yield from data.children.values()
    elif (configs := document.children.get("configs")) is not None:
        for config in configs.children.values():
            if (content := config.find(("content",))) is not None:
                yield content


def _alone(whole: str, text: YamlNode) -> str:
    """The file with only this text in it: all else is blank, so that every place stays."""
    begin = whole.find("\n", text.start) + 1  # behind the mark of a literal text
    end = text.end
    blank = re.compile(r"[^\n]")
    return blank.sub(" ", whole[:begin]) + whole[begin:end] + blank.sub(" ", whole[end:])
