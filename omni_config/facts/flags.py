"""Flags of an engine's command line, from calls of argparse and its wrappers."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from omni_config.facts.constants import Constants, Unknown
from omni_config.facts.engines import Engine
from omni_config.facts.follow import UNKNOWN, Call, Follower
from omni_config.facts.modules import Modules
from omni_config.facts.syntax import dotted, functions, last_name, text, walk
from omni_config.facts.wheel import Wheel

Entries = dict[str, Any]

#: What the keywords of a generated flag say of it.
_GENERATED = ("type", "action", "choices", "default", "default_from", "nargs", "const")
#: Parameters that hold the words of a command.
_WORDS = frozenset(("unknown_args", "extra_argv"))
_SHORT = re.compile(r"-[A-Za-z]$")
_TAKEN = re.compile(r"--[a-z][\w-]*[.=]?$")


def flags(wheel: Wheel, engine: Engine, constants: Constants) -> tuple[Entries, list[str]]:
    """By name, each declaration: its parser (a function), aliases, type, choices, nargs, action, default. And the
    places of declarations whose names cannot be told.
    """
    follower = Follower(constants)
    for file in wheel.files:
        if "add_argument" not in file.names or not engine.is_guarded(file.path):
            continue
        for name, function, owner in functions(file.tree):
            if any(True for _ in _own_calls(function)):
                follower.read(function, name, file, owner)
    return _entries(follower.calls, constants), sorted(set(follower.open))


def flags_of(modules: Modules, function: str) -> tuple[Entries, list[str]]:
    """The flags that a function of another package adds to the parser that it is given, named with its module, such as
    ``vllm.entrypoints.cli_args.make_arg_parser``; and the places where some cannot be told.
    """
    for _ in range(2):  # the first time finds the files that hold the constants
        constants = Constants(file for file in modules.files.values() if file is not None)
        follower = Follower(constants, modules)
        names = function.split(".")
        cut = next((i for i in range(len(names) - 1, 0, -1) if modules.module(".".join(names[:i]))), 0)
        if follower.enter(modules.module(".".join(names[:cut])), names[cut:]) is None:
            return {}, [function]
    return _entries(follower.calls, constants), sorted(set(follower.open))


def read_by_parser(modules: Modules, function: str) -> Entries:
    """Short flags with their value in the same word (``-O3``) that the parser of another package sees to itself."""
    found = modules.find(modules.module(function.rpartition(".")[0]), "FlexibleArgumentParser")
    if found is None:
        return {}
    return {
        f"{short}*": f"{found[0].path}:{node.lineno}"
        for node in walk(found[1])
        if isinstance(node, ast.Call) and last_name(node.func) == "startswith"
        for short in map(text, node.args)
        if short and _SHORT.match(short)
    }


def join(found: Entries, more: Entries) -> Entries:
    """The declarations of both, each once."""
    return {
        name: _sorted({(e["at"], e["parser"]): e for e in (*found.get(name, ()), *more.get(name, ()))}.values())
        for name in {**found, **more}
    }


def by_hand(wheel: Wheel, declared: Entries) -> Entries:
    """Flags that are not declared: a function looks for them in the words of a command. A star is any text."""
    found: Entries = {}
    for file in wheel.files:
        if not file.names & _WORDS:
            continue
        for _, function, _ in functions(file.tree):
            arguments = {one.arg for one in (*function.args.args, *function.args.kwonlyargs)}
            if not arguments & _WORDS:
                continue
            for node in walk(function):
                for pattern in _patterns(node):
                    found.setdefault(pattern, f"{file.path}:{node.lineno}")  # type: ignore[attr-defined]
    return {name: place for name, place in found.items() if name not in declared and name != "--help"}


def _patterns(node: ast.AST) -> Iterator[str]:
    suffix = text(node.value) if isinstance(node, ast.keyword) and node.arg == "alias_suffix" else None
    if isinstance(node, ast.Call) and last_name(node.func) == "endswith" and node.args:
        suffix = text(node.args[0])
    if suffix and suffix.startswith("-"):
        yield f"--*{suffix}"
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _TAKEN.match(node.value):
        name = node.value.rstrip("=").replace("_", "-")
        yield f"{name}*" if name.endswith(".") else name


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


def _sorted(declared: Iterable[Entries]) -> list[Entries]:
    """The engine's own first: they replace those of the package that it builds on."""
    return sorted(declared, key=lambda entry: ("of" in entry, entry["at"].rpartition(":")[0], entry["parser"]))


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


def _entries(calls: Iterable[Call], constants: Constants) -> Entries:
    found: dict[str, list[Entries]] = defaultdict(list)
    for call in calls:
        names = [name for name in call.names if name.startswith("-")]
        long = [name for name in names if name.startswith("--")] or names
        if long:
            destination = call.given.get("dest")
            spelling = f"--{destination.replace('_', '-')}" if isinstance(destination, str) else ""
            main = spelling if spelling in long else long[0]  # the alias that has the setting's own name
            entry = _declaration(call, names, main, constants)
            generated = isinstance(call.node.args[-1], ast.JoinedStr) and "at" in call.given  # from a field, in a loop
            at = call.given["at"] if generated else f"{call.path}:{call.node.lineno}"
            found[main].append({**entry, "parser": call.parser, "at": at})
    return {name: _sorted(declared) for name, declared in found.items()}


def _declaration(call: Call, names: list[str], name: str, constants: Constants) -> Entries:
    entry: Entries = {}
    if aliases := [other for other in names if other != name]:
        entry["aliases"] = aliases
    written = {keyword.arg for keyword in call.node.keywords if keyword.arg}
    entry |= {key: value for key, value in call.given.items() if key in _GENERATED and key not in written}
    for keyword in call.node.keywords:
        if keyword.arg in ("type", "action"):
            value = text(keyword.value) or last_name(keyword.value)
            if value:
                entry[keyword.arg] = value
        elif keyword.arg in ("choices", "default", "nargs", "dest", "required", "const"):
            try:
                entry[keyword.arg] = constants.value(keyword.value, call.path)
            except Unknown:
                known = call.given[keyword.arg]
                if isinstance(known, str):
                    entry[keyword.arg] = known
                else:
                    entry[f"{keyword.arg}_from"] = last_name(keyword.value) or type(keyword.value).__name__
    for key in [key for key, value in entry.items() if value is UNKNOWN]:
        del entry[key]
    if entry.get("type") == "lambda" and "choices" in entry:
        del entry["choices"]  # they hold for what the function makes of a word
    return entry
