"""Files that are none of ours and of no engine that is read: what they look like, in a few words."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Any

from omni_config.checking import lightx2v
from omni_config.checking.document import ParsedDocument
from omni_config.findings import Finding, Source, Span
from omni_config.reading.nodes import YamlNode

_TEMPLATE = "a Helm template"
#: By the end of the name.
_SUFFIXES = {
    ".py": "a Python script",
    ".ipynb": "a notebook",
    ".md": "a Markdown file",
    ".rst": "a reStructuredText file",
    ".toml": "a TOML file",
    ".tpl": _TEMPLATE,
    ".html": "an HTML page",
}
#: By lines of the text, where it is no YAML.
_TEXTS = (
    (r"\A#!.*\bpython", "a Python script"),
    (r"\A#!.*sh\b", "a shell script"),
    (r"^FROM[ \t]+\S", "a Dockerfile"),
    (r"\{\{-?\s*[.$\w(]", _TEMPLATE),
    (r"^(import \w[\w.]*|from [\w.]+ import |def \w+\(|class \w+[(:])", "a Python script"),
    (r"^(#{1,6} \S|```)", "a Markdown file"),
    (r"^\[[\w.\"-]+\]\s*$", "a TOML or INI file"),
)


def unread(source: Source, nodes: list[YamlNode] | None) -> ParsedDocument:
    """The document that says what a file looks like, with one finding; of LightX2V, what is wrong in it."""
    if nodes and lightx2v.is_config(nodes[0]):
        return ParsedDocument(source, None, range(0), notes=tuple(lightx2v.of_config(nodes[0])), foreign=True)
    if "lightx2v" in source.text and (found := lightx2v.of_script(source)):
        return ParsedDocument(source, None, range(0), notes=tuple(found), foreign=True)
    like = looks_like(source, nodes)
    message = f"not a form that is read here: it looks like {like}"
    next_step = "omni check --render reads what helm makes of its chart" if like == _TEMPLATE else ""
    finding = Finding("OMNI908", message, next_step=next_step, span=Span(source, 1, 1, 2))
    return ParsedDocument(source, None, range(0), notes=(finding,))


def looks_like(source: Source, nodes: list[YamlNode] | None) -> str:
    """What a text looks like that no reader knows; ``nodes`` None: it is no YAML."""
    if (named := _SUFFIXES.get(PurePath(source.name).suffix.lower())) is not None:
        return named
    values = [node.value for node in nodes or ()]
    mappings = [value for value in values if isinstance(value, dict)]
    if mappings:
        return _mapping(mappings[0], source.text)
    if values and isinstance(values[0], list):
        return "a list in JSON" if source.text.lstrip().startswith("[") else "a list in YAML"
    if PurePath(source.name).suffix.lower() in (".sh", ".bash"):
        return "a shell script without a command of a known engine"
    found = next((words for pattern, words in _TEXTS if re.search(pattern, source.text, re.MULTILINE)), None)
    if found is not None:
        return f"{found} without a command of a known engine" if found in ("a shell script", "a Dockerfile") else found
    return "plain text"


def _mapping(value: dict[Any, Any], text: str) -> str:
    """A mapping, by the keys that tell."""
    keys = set(value)
    if {"apiVersion", "kind"} <= keys:
        return f"a Kubernetes manifest ({value['kind']}) without a container of a known engine"
    if {"apiVersion", "name", "version"} <= keys:
        return "the Chart.yaml of a Helm chart"
    if isinstance(value.get("services"), dict):
        return "a compose file without a command of a known engine"
    if {"jobs", "on"} <= keys or {"jobs", True} <= keys:
        return "a workflow of GitHub Actions without a command of a known engine"
    generator = value.get("generator")
    if isinstance(generator, dict) and "model_path" in generator:
        return "a config of FastVideo"
    if {"nodes", "links"} <= keys or any(isinstance(item, dict) and "class_type" in item for item in value.values()):
        return "a workflow of ComfyUI"
    if "cells" in keys and "nbformat" in keys:
        return "a notebook"
    if "_class_name" in keys or "_diffusers_version" in keys:
        return "a configuration file of a diffusers model"
    if "architectures" in keys:
        return "a configuration file of a transformers model"
    kind = "JSON" if text.lstrip().startswith("{") else "YAML"
    names = ", ".join(str(key)[:30] for key in list(value)[:4])
    return f"{kind} with the keys {names}" if names else f"an empty mapping in {kind}"
