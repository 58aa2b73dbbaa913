"""Values that stand in the source as constants: literals, names of constants, members of enums, simple arithmetic."""

from __future__ import annotations

import ast
import operator
from collections import defaultdict
from collections.abc import Iterable, Iterator

from omni_config.facts.syntax import dotted, hash8, last_name
from omni_config.facts.wheel import File


class Unknown(Exception):
    """The expression is no constant."""


_ARITHMETIC = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.BitOr: operator.or_,
}
_COLLECTIONS = {"list", "tuple", "sorted", "set", "frozenset"}
_LONGEST_TEXT = 120


class Constants:
    """The constants of a wheel by name; a name that two files bind is looked up in the asking file only."""

    def __init__(self, files: Iterable[File]) -> None:
        self.by_file: dict[str, dict[str, ast.expr]] = {}
        self.classes: dict[str, list[ast.ClassDef]] = defaultdict(list)
        places: dict[str, list[ast.expr]] = defaultdict(list)
        for file in files:
            own = dict(_bound(file.tree.body))
            self.by_file[file.path] = own
            for name, value in own.items():
                places[name].append(value)
            for node in file.tree.body:
                if isinstance(node, ast.ClassDef):
                    self.classes[node.name].append(node)
        self.unique = {name: values[0] for name, values in places.items() if len(values) == 1}

    def value(self, node: ast.expr | None, path: str, depth: int = 0) -> object:
        """The value of an expression in a file, with tuples as lists and enum members as their values.

        Raises:
            Unknown: It is no constant.
        """
        if node is None or depth > 20:
            raise Unknown
        if isinstance(node, ast.Constant):
            return _literal(node.value)
        if isinstance(node, ast.List | ast.Tuple | ast.Set):
            return self._items(node.elts, path, depth)
        if isinstance(node, ast.Dict):
            return {
                str(self.value(key, path, depth + 1)): self.value(value, path, depth + 1)
                for key, value in zip(node.keys, node.values, strict=True)
            }
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            inner = self.value(node.operand, path, depth + 1)
            if isinstance(inner, int | float):
                return -inner
        if isinstance(node, ast.BinOp):
            return self._arithmetic(node, path, depth)
        if isinstance(node, ast.Name):
            bound = self.by_file.get(path, {}).get(node.id) or self.unique.get(node.id)
            return self.value(bound, path, depth + 1)
        if isinstance(node, ast.Attribute):
            return self._attribute(node, path, depth)
        if isinstance(node, ast.Call):
            return self._call(node, path, depth)
        if isinstance(node, ast.ListComp | ast.GeneratorExp | ast.SetComp) and len(node.generators) == 1:
            return self.members(last_name(node.generators[0].iter))
        raise Unknown

    def members(self, name: str) -> list[object]:
        """The values of an enum's members, and the names of those whose values are no text.

        Raises:
            Unknown: No class of that name is an enum.
        """
        return [_member(key, value) for key, value in self.enum(name)]

    def enum(self, name: str) -> list[tuple[str, ast.expr]]:
        """The members of an enum by name.

        Raises:
            Unknown: No class of that name is an enum.
        """
        for node in self.classes.get(name, ()):
            if any("Enum" in last_name(base) for base in node.bases):
                found = [(key, value) for key, value in _bound(node.body) if not key.startswith("__")]
                if found:
                    return found
        raise Unknown

    def _items(self, nodes: Iterable[ast.expr], path: str, depth: int) -> list[object]:
        result: list[object] = []
        for node in nodes:
            if isinstance(node, ast.Starred):
                more = self.value(node.value, path, depth + 1)
                result.extend(more if isinstance(more, list | dict) else [more])
            else:
                result.append(self.value(node, path, depth + 1))
        return result

    def _arithmetic(self, node: ast.BinOp, path: str, depth: int) -> object:
        left, right = self.value(node.left, path, depth + 1), self.value(node.right, path, depth + 1)
        if isinstance(left, list) and isinstance(right, list):
            return left + right
        if isinstance(left, dict) and isinstance(right, dict):
            return {**left, **right}
        numbers = isinstance(left, int | float) and isinstance(right, int | float)
        if type(node.op) in _ARITHMETIC and numbers and abs(left) < 1e15 and abs(right) < 1e15:  # type: ignore[arg-type]
            try:
                return _ARITHMETIC[type(node.op)](left, right)
            except (ZeroDivisionError, TypeError):
                raise Unknown from None
        raise Unknown

    def _attribute(self, node: ast.Attribute, path: str, depth: int) -> object:
        if node.attr in ("value", "name"):
            return self.value(node.value, path, depth + 1)
        for owner in self.classes.get(last_name(node.value), ()):
            for key, value in _bound(owner.body):
                if key == node.attr:
                    if any("Enum" in last_name(base) for base in owner.bases):
                        return _member(key, value)
                    return self.value(value, path, depth + 1)
        if dotted(node).startswith("torch."):
            return dotted(node)
        raise Unknown

    def _call(self, node: ast.Call, path: str, depth: int) -> object:
        name = last_name(node.func)
        if name == "keys" and isinstance(node.func, ast.Attribute):
            value = self.value(node.func.value, path, depth + 1)
            return list(value) if isinstance(value, dict) else value
        if name in ("choices", "values", "list") and isinstance(node.func, ast.Attribute) and not node.args:
            return self.members(last_name(node.func.value))
        if name in ("field", "Field") and not dotted(node.func).startswith("self"):
            return self._field(node, path, depth)
        if name in _COLLECTIONS and len(node.args) == 1:
            try:
                return self.members(last_name(node.args[0]))
            except Unknown:
                value = self.value(node.args[0], path, depth + 1)
                if isinstance(value, list | dict):
                    items = list(value)
                    return sorted(items, key=str) if name in ("sorted", "set", "frozenset") else items
        if name in ("dict", "list", "tuple", "set") and not node.args and not node.keywords:
            return {} if name == "dict" else []
        if name == "get_args" and node.args:
            return literal_choices(self.bound(node.args[0], path))
        if name in self.classes and not node.args and not node.keywords:
            return f"{name}()"
        raise Unknown

    def bound(self, node: ast.expr, path: str) -> ast.expr | None:
        """What a name stands for, and otherwise the expression itself."""
        if isinstance(node, ast.Name):
            return self.by_file.get(path, {}).get(node.id) or self.unique.get(node.id)
        return node

    def _field(self, node: ast.Call, path: str, depth: int) -> object:
        keywords = {keyword.arg: keyword.value for keyword in node.keywords}
        if "default" in keywords:
            return self.value(keywords["default"], path, depth + 1)
        factory = keywords.get("default_factory")
        if isinstance(factory, ast.Lambda):
            return self.value(factory.body, path, depth + 1)
        if factory is not None:
            name = last_name(factory)
            return {} if name == "dict" else [] if name in ("list", "set", "tuple") else f"{name}()"
        if node.args and not (isinstance(node.args[0], ast.Constant) and node.args[0].value is ...):
            return self.value(node.args[0], path, depth + 1)
        raise Unknown


def _literal(value: object) -> object:
    """A literal; a long text, which is a prompt or a sentence, by its length and a hash."""
    if isinstance(value, str) and len(value) > _LONGEST_TEXT:
        return f"<{len(value)} characters, {hash8(value)}>"
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def literal_choices(node: ast.AST | None) -> list[object]:
    """The values of ``Literal[...]``, also inside a union.

    Raises:
        Unknown: There is none.
    """
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and "Literal" in node.value:
        try:
            node = ast.parse(node.value, mode="eval").body
        except (SyntaxError, ValueError):
            raise Unknown from None
    found: list[object] = []
    for part in ast.walk(node) if node is not None else ():
        if isinstance(part, ast.Subscript) and last_name(part.value) == "Literal":
            items = part.slice.elts if isinstance(part.slice, ast.Tuple) else [part.slice]
            found.extend(item.value for item in items if isinstance(item, ast.Constant))
    if not found:
        raise Unknown
    return found


def _bound(body: list[ast.stmt]) -> Iterator[tuple[str, ast.expr]]:
    for statement in body:
        if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            if isinstance(statement.targets[0], ast.Name):
                yield statement.targets[0].id, statement.value
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value:
            yield statement.target.id, statement.value


def _member(name: str, value: ast.expr) -> object:
    return value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else name
