"""Flags of an engine's command line, from calls of argparse and its wrappers."""

from __future__ import annotations

import ast
from collections import defaultdict
from typing import Any

from omni_config.facts.constants import Constants, Unknown
from omni_config.facts.engines import Engine
from omni_config.facts.syntax import dotted, functions, last_name, text, walk
from omni_config.facts.wheel import Wheel

Entries = dict[str, Any]


def flags(wheel: Wheel, engine: Engine, constants: Constants) -> Entries:
    """By name, each declaration: its parser (a function), aliases, type, choices, nargs, action, default."""
    found: dict[str, list[Entries]] = defaultdict(list)
    for file in wheel.files:
        if "add_argument" not in file.names or not engine.is_guarded(file.path):
            continue
        for name, function, _ in functions(file.tree):
            for call in _own_calls(function):
                names = [value for argument in call.args if (value := text(argument)) and value.startswith("-")]
                long = [value for value in names if value.startswith("--")] or names
                if long:
                    destination = next((text(k.value) for k in call.keywords if k.arg == "dest"), None) or ""
                    spelling = f"--{destination.replace('_', '-')}"  # the alias that has the setting's own name
                    main = spelling if spelling in long else long[0]
                    entry = _declaration(call, names, main, constants, file.path)
                    found[main].append({**entry, "parser": name, "at": f"{file.path}:{call.lineno}"})
    return {name: _sorted(declared) for name, declared in found.items()}


def foreign_parsers(wheel: Wheel) -> Entries:
    """Calls by which a parser of the engine takes the flags of another package, whose wheel this is not."""
    found: Entries = {}
    for file in wheel.files:
        if "make_arg_parser" not in file.names and "add_cli_args" not in file.names:
            continue
        origins = {
            alias.asname or alias.name: node.module or ""
            for node in walk(file.tree)
            if isinstance(node, ast.ImportFrom) and not node.level
            for alias in node.names
        }
        for node in walk(file.tree):
            if isinstance(node, ast.Call) and last_name(node.func) in ("make_arg_parser", "add_cli_args"):
                origin = origins.get(dotted(node.func).partition(".")[0], "")
                if origin and origin.partition(".")[0] != file.path.partition("/")[0]:
                    found.setdefault(f"{origin}.{dotted(node.func)}", []).append(f"{file.path}:{node.lineno}")
    return found


def _sorted(declared: list[Entries]) -> list[Entries]:
    return sorted(declared, key=lambda entry: (entry["at"].rpartition(":")[0], entry["parser"]))


def _own_calls(function: ast.AST) -> list[ast.Call]:
    inner = {
        id(node)
        for child in walk(function)
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) and child is not function
        for node in walk(child)
    }
    return [
        node
        for node in walk(function)
        if isinstance(node, ast.Call) and last_name(node.func) == "add_argument" and id(node) not in inner
    ]


def _declaration(call: ast.Call, names: list[str], name: str, constants: Constants, path: str) -> Entries:
    entry: Entries = {}
    if aliases := [other for other in names if other != name]:
        entry["aliases"] = aliases
    for keyword in call.keywords:
        if keyword.arg in ("type", "action"):
            value = text(keyword.value) or last_name(keyword.value)
            if value:
                entry[keyword.arg] = value
        elif keyword.arg in ("choices", "default", "nargs", "dest", "required", "const"):
            try:
                entry[keyword.arg] = constants.value(keyword.value, path)
            except Unknown:
                entry[f"{keyword.arg}_from"] = last_name(keyword.value) or type(keyword.value).__name__
    return entry
