"""Classes of settings: their fields with type, default and range, and what they do with a key that they do not know."""

from __future__ import annotations

import ast
import re
from typing import Any

from omni_config.facts.constants import Constants, Unknown, literal_choices
from omni_config.facts.engines import Engine
from omni_config.facts.syntax import Function, last_name, text, walk
from omni_config.facts.wheel import File, Wheel

_RANGES = ("ge", "gt", "le", "lt", "multiple_of", "min_length", "max_length")
_FROM = re.compile(r"^_?(from|parse|load|normalize|coerce)_")


def fields(wheel: Wheel, engine: Engine, constants: Constants) -> tuple[dict[str, Any], dict[str, Any]]:
    """The classes of settings with bases and what becomes of unknown keys, and their fields as ``Class.field``."""
    classes: dict[str, Any] = {}
    found: dict[str, Any] = {}
    for file in wheel.files:
        if not engine.is_guarded(file.path):
            continue
        for node in walk(file.tree):
            if not isinstance(node, ast.ClassDef) or not engine.has_fields(file.path, node.name):
                continue
            name = node.name if node.name not in classes else f"{node.name}@{file.path}"
            entry: dict[str, Any] = {"at": f"{file.path}:{node.lineno}", **_unknown_keys(node, file)}
            if entry.get("unknown_at") == entry["at"]:
                del entry["unknown_at"]
            if bases := [last_name(base) for base in node.bases if last_name(base) not in ("object", "ABC")]:
                entry["bases"] = bases
            classes[name] = entry
            if engine.holds_settings(file.path, node.name):  # where it decides what nobody said
                methods = {each.name: each.lineno for each in node.body if isinstance(each, Function)}
                if methods:
                    entry["methods"] = methods
            own = engine.holds_settings(file.path, node.name) or engine.holds_requests(file.path, node.name)
            for field, facts in _fields(node, file.path, constants).items():
                if own or isinstance(facts.get("default", []), bool | int | float | str | None):
                    found[f"{name}.{field}"] = facts  # of a model's class only what it sets itself
    return classes, found


def _fields(node: ast.ClassDef, path: str, constants: Constants) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            entry: dict[str, Any] = {"type": _type(statement.annotation), "line": statement.lineno}
            entry |= _default(statement.value, path, constants)
            entry |= _limits(statement.annotation, statement.value, path, constants)
            result[statement.target.id] = entry
        elif isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            name = statement.targets[0].id
            if not name.startswith("__") and name != "model_config":
                result[name] = {"line": statement.lineno, **_default(statement.value, path, constants)}
        elif isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            arguments = statement.args
            defaults = [None] * (len(arguments.args) - len(arguments.defaults)) + list(arguments.defaults)
            pairs = [*zip(arguments.args, defaults, strict=True)][1:]
            for argument, default in [*pairs, *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]:
                entry = {"line": argument.lineno, **_default(default, path, constants)}
                if argument.annotation is not None:
                    entry["type"] = _type(argument.annotation)
                    entry |= _limits(argument.annotation, default, path, constants)
                result[argument.arg] = entry
    return result


def _type(node: ast.expr) -> str:
    return text(node) or ast.unparse(node)


def _default(node: ast.expr | None, path: str, constants: Constants) -> dict[str, Any]:
    if node is None:
        return {}
    try:
        return {"default": constants.value(node, path)}
    except Unknown:
        factory = next((k.value for k in getattr(node, "keywords", ()) if k.arg == "default_factory"), node)
        return {"default_from": last_name(factory) or type(factory).__name__}


def _limits(annotation: ast.expr, value: ast.expr | None, path: str, constants: Constants) -> dict[str, Any]:
    """Choices of a Literal (also by the name of an alias or an enum) and the ranges of ``Field`` and ``Annotated``."""
    result: dict[str, Any] = {}
    for candidate in (annotation, constants.bound(annotation, path)):
        try:
            result["choices"] = literal_choices(candidate)
            break
        except Unknown:
            continue
    if "choices" not in result:
        for part in walk(annotation):
            if isinstance(part, ast.Name) and part.id in constants.classes:
                try:
                    result["choices"] = constants.members(part.id)
                    break
                except Unknown:
                    continue
    for source in (annotation, value):
        for part in walk(source) if source is not None else ():
            if isinstance(part, ast.Call) and last_name(part.func) in ("Field", "Meta"):
                for keyword in part.keywords:
                    if keyword.arg in _RANGES:
                        try:
                            result[keyword.arg] = constants.value(keyword.value, path)
                        except Unknown:
                            continue
    return result


def _unknown_keys(node: ast.ClassDef, file: File) -> dict[str, str]:
    """``refused``, ``dropped`` or ``unknown-to-us``, and the line that says so. A reader of mappings comes first: it
    sees the keys before the constructor does.
    """
    for statement in node.body:
        if isinstance(statement, Function) and _FROM.match(statement.name) and (said := _of_reader(statement)):
            return {"unknown": said[0], "unknown_at": f"{file.path}:{said[1]}"}
    configured: list[tuple[ast.AST, int]] = [(decorator, decorator.lineno) for decorator in node.decorator_list]
    for statement in node.body:
        if isinstance(statement, ast.Assign) and last_name(statement.targets[0]) == "model_config":
            configured.insert(0, (statement.value, statement.lineno))
    for value, line in configured:
        if extra := _extra(value):
            return {"unknown": extra, "unknown_at": f"{file.path}:{line}"}
    at = f"{file.path}:{node.lineno}"
    if any(last_name(base) == "Struct" for base in node.bases):
        forbids = any(k.arg == "forbid_unknown_fields" and _is_true(k.value) for k in node.keywords)
        return {"unknown": "refused" if forbids else "dropped", "unknown_at": at}
    if any(last_name(decorator) in ("dataclass", "config") for decorator in node.decorator_list):
        return {"unknown": "refused", "unknown_at": at}  # its constructor takes no other keyword
    return {"unknown": "unknown-to-us"}


def _of_reader(function: Function) -> tuple[str, int] | None:
    """How a ``from_dict`` treats the rest: a raise below a set difference refuses, a filter drops."""
    differences = {
        target.id
        for node in walk(function)
        if isinstance(node, ast.Assign) and _is_difference(node.value)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in walk(function):
        if isinstance(node, ast.If) and any(isinstance(inner, ast.Raise) for inner in node.body):
            named = {part.id for part in walk(node.test) if isinstance(part, ast.Name)}
            if named & differences or _is_difference(node.test):
                return "refused", node.lineno
    for node in walk(function):
        if isinstance(node, ast.DictComp) and any(
            isinstance(test, ast.Compare) and isinstance(test.ops[0], ast.In | ast.NotIn)
            for generator in node.generators
            for test in generator.ifs
        ):
            return "dropped", node.lineno
        if isinstance(node, ast.For) and (line := _picks(node, function)):
            return "dropped", line
    for node in walk(function):
        if isinstance(node, ast.Call) and last_name(node.func) == "cls" and any(k.arg is None for k in node.keywords):
            return "refused", node.lineno
    return None


def _picks(loop: ast.For, function: Function) -> int:
    """The line where a loop over known names takes those that a parameter has, and so leaves the others."""
    parameters = {argument.arg for argument in function.args.args}
    for node in walk(loop):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Compare) and isinstance(node.test.ops[0], ast.In):
            known = last_name(node.test.left) == last_name(loop.target)
            if known and last_name(node.test.comparators[0]) in parameters:
                return node.lineno
    return 0


def _is_difference(node: ast.AST) -> bool:
    """``set(a) - b``, ``a.difference(b)``, or a comprehension of what is ``not in``."""
    for part in walk(node):
        sides = (part.left, part.right) if isinstance(part, ast.BinOp) and isinstance(part.op, ast.Sub) else ()
        if any(isinstance(side, ast.Call) and last_name(side) in ("set", "keys") for side in sides):
            return True
        if isinstance(part, ast.Call) and last_name(part.func) == "difference":
            return True
        if isinstance(part, ast.comprehension) and any(
            isinstance(test, ast.Compare) and isinstance(test.ops[0], ast.NotIn) for test in part.ifs
        ):
            return True
    return False


def _extra(node: ast.AST) -> str:
    for part in walk(node):
        if isinstance(part, ast.keyword) and part.arg == "extra":
            return {"forbid": "refused", "ignore": "dropped", "allow": "dropped"}.get(text(part.value) or "", "")
    return ""


def _is_true(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is True
