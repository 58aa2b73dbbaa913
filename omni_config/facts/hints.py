"""What argparse is told of a field when a parser is generated from a class of settings, as vLLM does: by its type."""

from __future__ import annotations

import ast
from typing import Any

from omni_config.facts.constants import Constants, Unknown
from omni_config.facts.modules import Modules
from omni_config.facts.syntax import last_name, text

Keywords = dict[str, Any]
_BUILT_IN = ("bool", "int", "float", "str", "dict", "list", "tuple", "set")
_WRAPPERS = ("Annotated", "SkipValidation", "Required", "NotRequired", "Final")
_UNIONS = ("Optional", "Union")
UNKNOWN_OPTION = object()  # a member of a Literal that cannot be told
_NO_FIELD = ("ClassVar", "InitVar")


class Hints:
    """The fields of classes of settings as arguments of ``add_argument``."""

    def __init__(self, modules: Modules, constants: Constants) -> None:
        self._modules = modules
        self._constants = constants

    def of_class(self, name: str, path: str, special: frozenset[str] | None = None) -> dict[str, Keywords] | None:
        """The keywords of each field of a class and its ancestors; None where the class cannot be found.

        ``special`` are the fields that the generator of keywords treats by name, where that is known already.
        """
        found = self._modules.find(path, name)
        if found is None:
            return None
        file, node = found
        if not isinstance(node, ast.ClassDef):
            return None
        if special is None:
            special = self._named_by_the_generator(path)
        result: dict[str, Keywords] = {}
        for base in reversed(node.bases):
            result |= self.of_class(last_name(base), file.path, special) or {}
        for statement in node.body:
            if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
                continue
            if last_name(statement.annotation) in _NO_FIELD:
                continue
            keywords = self._keywords(statement.annotation, file.path)
            keywords |= self._default(statement.value, file.path)
            if statement.target.id in special and "int" in keywords.get("type", ""):
                keywords["type"] = "human_readable_int"  # such as 4K, or auto
            keywords["at"] = f"{file.path}:{statement.lineno}"
            result[statement.target.id] = keywords
        return result

    def _named_by_the_generator(self, path: str) -> frozenset[str]:
        """Names of fields for which the function that makes the keywords has a way of its own."""
        found = [self._modules.find(path, "get_kwargs")]
        found += [self._modules.find(one[0].path, "_compute_kwargs") for one in found if one is not None]
        nodes = (node for one in found if one is not None for node in ast.walk(one[1]))
        return frozenset(name for node in nodes if (name := text(node)))

    def _default(self, node: ast.expr | None, path: str) -> Keywords:
        for part in ast.walk(node) if node is not None else ():
            if isinstance(part, ast.Name):
                self._modules.find(path, part.id)  # so that its file is read
        try:
            return {"default": self._constants.value(node, path)} if node is not None else {}
        except Unknown:
            return {"default_from": last_name(node) or type(node).__name__}

    def _keywords(self, annotation: ast.expr, path: str) -> Keywords:
        kinds: dict[str, Any] = {}
        self._collect(annotation, path, kinds, 0)
        optional = "None" in kinds
        kinds.pop("None", None)
        result = _of_kinds(kinds)
        if optional and "bool" not in kinds and "type" in result:
            result["type"] = f"{result['type']} | None"
            if "choices" in result:
                result["choices"] = [*result["choices"], "None"]
        return result

    def _collect(self, node: ast.expr, path: str, kinds: dict[str, Any], depth: int) -> None:
        """The members of a union by kind: a built-in type, None, Literal, a dataclass, or something else."""
        name = last_name(node)
        if depth > 20:
            kinds["other"] = None
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            self._collect(ast.parse(node.value, mode="eval").body, path, kinds, depth + 1)
        elif isinstance(node, ast.Constant) and node.value is None:
            kinds["None"] = None
        elif isinstance(node, ast.BinOp):
            self._collect(node.left, path, kinds, depth + 1)
            self._collect(node.right, path, kinds, depth + 1)
        elif isinstance(node, ast.Subscript):
            items = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
            if name in _WRAPPERS:
                self._collect(items[0], path, kinds, depth + 1)
            elif name in _UNIONS:
                for item in items:
                    self._collect(item, path, kinds, depth + 1)
                if name == "Optional":
                    kinds["None"] = None
            elif name == "Literal":
                for item in items:
                    self._option(item, path, kinds, depth)
            elif name in ("list", "tuple", "set"):
                inner: dict[str, Any] = {}
                self._collect(items[0], path, inner, depth + 1)
                kinds[name] = (inner, [last_name(item) for item in items], len(items))
            else:
                kinds["dict" if name == "dict" else "other"] = None
        elif isinstance(node, ast.Name) and name in _BUILT_IN:
            kinds[name] = None
        else:
            self._named(name, path, kinds, depth)

    def _option(self, node: ast.expr, path: str, kinds: dict[str, Any], depth: int) -> None:
        """A member of ``Literal``: a constant, or the name of another ``Literal``."""
        options = kinds.setdefault("Literal", [])
        if isinstance(node, ast.Constant):
            options.append(node.value)
            return
        inner: dict[str, Any] = {}
        self._collect(node, path, inner, depth + 1)
        options.extend(inner.get("Literal", [UNKNOWN_OPTION]))

    def _named(self, name: str, path: str, kinds: dict[str, Any], depth: int) -> None:
        found = self._modules.find(path, name)
        if found is None:
            kinds["other"] = None
        elif isinstance(found[1], ast.ClassDef):
            decorators = {last_name(decorator) for decorator in found[1].decorator_list}
            bases = {last_name(base) for base in found[1].bases}
            kinds["dataclass" if decorators & {"dataclass", "config"} else "dict" if "dict" in bases else "other"] = (
                None
            )
        elif isinstance(found[1], ast.expr):
            self._collect(found[1], found[0].path, kinds, depth + 1)


def _of_kinds(kinds: dict[str, Any]) -> Keywords:
    if "dataclass" in kinds:
        return {"type": "json"}
    if set(kinds) == {"bool", "str"}:
        return {"type": "str", "nargs": "?", "const": True}
    if "bool" in kinds:
        return {"action": "BooleanOptionalAction"}
    if "Literal" in kinds:
        return _of_literal(kinds)
    for name in ("tuple", "list", "set"):
        if name in kinds:
            inner, names, count = kinds[name] or ({"str": None}, [], 0)
            element = _of_literal(inner) if "Literal" in inner else {"type": _element(inner)}
            fixed = name == "tuple" and count > 1 and "" not in names  # an ellipsis has no name
            return {**element, "nargs": count if fixed else "+"}
    for name in ("int", "float"):
        if name in kinds:
            return {"type": name}
    if "dict" in kinds and not kinds.keys() & {"str", "other"}:
        return {"type": "json"}
    return {"type": "str"}


def _of_literal(kinds: dict[str, Any]) -> Keywords:
    options = kinds["Literal"]
    if UNKNOWN_OPTION in options or "str" in kinds:  # beside ``str`` its members are only a hint
        return {"type": type(options[0]).__name__ if options[0] is not UNKNOWN_OPTION else "str"}
    return {"type": type(options[0]).__name__, "choices": sorted(set(options))}


def _element(inner: dict[str, Any]) -> str:
    known = [name for name in inner if name in _BUILT_IN]
    return known[0] if len(inner) == 1 and known else "str"
