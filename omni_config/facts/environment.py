"""Environment variables that an engine reads, with their defaults."""

from __future__ import annotations

import ast
import re
from typing import Any

from omni_config.facts.constants import Constants, Unknown
from omni_config.facts.syntax import dotted, first, last_name, text, walk
from omni_config.facts.wheel import Wheel

_NAME = re.compile(r"^[A-Z][A-Z0-9_]{2,}$")
_READER = re.compile(r"^(getenv|_?(get|parse|read|is)_?\w*env\w*|_?env_?\w*|Env[A-Z]\w*)$")


def environment(wheel: Wheel, constants: Constants) -> dict[str, Any]:
    """Each variable with the defaults that its readers give and the places where it is read."""
    found: dict[str, dict[str, Any]] = {}
    for file in wheel.files:
        if not any("env" in name.lower() for name in file.names):
            continue
        for node in walk(file.tree):
            name, default = _read(node)
            if not name:
                continue
            entry = found.setdefault(name, {"defaults": [], "at": []})
            if f"{file.path}:{node.lineno}" not in entry["at"]:  # type: ignore[attr-defined]
                entry["at"].append(f"{file.path}:{node.lineno}")  # type: ignore[attr-defined]
            if default is not None:
                try:
                    value = constants.value(default, file.path)
                except Unknown:
                    continue
                if value not in entry["defaults"]:
                    entry["defaults"].append(value)
    return found


def _read(node: ast.AST) -> tuple[str, ast.expr | None]:
    """The variable that a node reads and its default."""
    if isinstance(node, ast.Call) and node.args:
        name = text(node.args[0]) or ""
        function = last_name(node.func)
        holder = dotted(node.func.value) if isinstance(node.func, ast.Attribute) else ""
        reads = _READER.match(function) or (function in ("get", "pop") and holder.endswith("environ"))
        if reads and _NAME.match(name):
            named = [keyword.value for keyword in node.keywords if keyword.arg == "default"]
            return name, first(node.args[1:2] or named)
    elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load) and dotted(node.value).endswith("environ"):
        return text(node.slice) or "", None
    elif isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In | ast.NotIn):
        if dotted(node.comparators[0]).endswith("environ"):
            return text(node.left) or "", None
    elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and len(node.targets) == 1:
        target = node.targets[0]  # NAME = EnvBool(default) of a table of variables
        if (
            isinstance(target, ast.Name)
            and _NAME.match(target.id)
            and re.match(r"Env[A-Z]", last_name(node.value.func))
        ):
            return target.id, first(node.value.args)
    return "", None
