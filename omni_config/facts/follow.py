"""Follows the functions that build a parser, as far as constants decide: flags that are named by an f-string, declared
in a loop over fields, or added by a function that the parser is handed to. Nothing is executed.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from typing import Any

from omni_config.facts.constants import Constants, Unknown
from omni_config.facts.hints import Hints
from omni_config.facts.modules import Modules
from omni_config.facts.syntax import Function, last_name, walk
from omni_config.facts.wheel import File

#: Functions that make keywords of ``add_argument`` from the fields of a class.
_GENERATORS = ("get_kwargs", "_compute_kwargs")
_DEEPEST = 12


class _Mark:
    """A value that is no constant."""


UNKNOWN, _PARSER = _Mark(), _Mark()
Names = dict[str, Any]


class Call:
    """A call of ``add_argument``: the names of the flag, the keywords that are known besides those that are written,
    and where it stands.
    """

    def __init__(self, node: ast.Call, names: list[str], given: Names, parser: str, path: str) -> None:
        self.node, self.names, self.given, self.parser, self.path = node, names, given, parser, path


class Follower:
    """Reads functions statement by statement. Without ``modules`` a call of another function is not followed.

    ``calls`` are the declarations that were found; ``open`` the places where some flag cannot be told.
    """

    def __init__(self, constants: Constants, modules: Modules | None = None) -> None:
        self.calls: list[Call] = []
        self.open: list[str] = []
        self._constants = constants
        self._modules = modules
        self._hints = Hints(modules, constants) if modules is not None else None
        self._depth = 0

    @property
    def stays(self) -> bool:
        """Whether calls of other functions are left alone."""
        return self._modules is None

    def read(self, function: Function, name: str, file: File, owner: str, given: Names | None = None) -> Any:
        """Read one function, called with these arguments, and return its value as far as it is known."""
        if self._depth > _DEEPEST:
            self.open.append(f"{file.path}:{function.lineno}")
            return UNKNOWN
        self._depth += 1
        try:
            frame = _Frame(self, function, name, file, owner)
            frame.bind(given or {})
            return frame.run()
        finally:
            self._depth -= 1

    def enter(self, path: str, names: Iterable[str], given: Names | None = None) -> Any:
        """Follow the function, or the method of a class, of these names in a file."""
        first, *rest = names
        found = self._modules.find(path, first) if self._modules is not None else None
        if found is None:
            return None
        file, node = found
        if isinstance(node, Function) and not rest:
            return self.read(node, first, file, "", given)
        if isinstance(node, ast.ClassDef) and len(rest) == 1:
            method = self.method(first, file.path, rest[0])
            if method is not None:
                return self.read(method[1], f"{method[2]}.{rest[0]}", method[0], first, given)
        return None

    def method(self, name: str, path: str, method: str, above: str = "") -> tuple[File, Function, str] | None:
        """A method of a class or of the first ancestor that has it, with its class; above one class, if it is named."""
        found = self._modules.find(path, name) if self._modules is not None else None
        if found is None:
            return None
        file, node = found
        if not isinstance(node, ast.ClassDef):
            return None
        if not above:
            for statement in node.body:
                if isinstance(statement, Function) and statement.name == method:
                    return file, statement, name
        below = "" if above == name else above
        bases = (self.method(last_name(base), file.path, method, below) for base in node.bases)
        return next((one for one in bases if one is not None), None)

    def fields(self, name: str, path: str) -> Any:
        """The keywords of each field of a class."""
        found = self._hints.of_class(name, path) if self._hints is not None else None
        return UNKNOWN if found is None else found

    def adds_nothing(self, name: str) -> bool:
        """Whether no function of this name anywhere in the wheel adds a flag."""
        found = list(self._modules.methods(name)) if self._modules is not None else []
        return bool(found) and not any(
            isinstance(node, ast.Call) and last_name(node.func) == "add_argument"
            for function in found
            for node in walk(function)
        )

    def constant(self, node: ast.expr, path: str) -> Any:
        """The value of an expression where constants give it."""
        for part in ast.walk(node) if self._modules is not None else ():
            if isinstance(part, ast.Name):
                self._modules.find(path, part.id)  # type: ignore[union-attr]  # so that its file is read
        try:
            return self._constants.value(node, path)
        except Unknown:
            return UNKNOWN


class _Frame:
    """One function while it is read."""

    def __init__(self, follower: Follower, function: Function, name: str, file: File, owner: str) -> None:
        self._follower = follower
        self._function = function
        self._name = name
        self._file = file
        self._owner = owner
        self._names: Names = {}
        self._value: Any = None

    def bind(self, given: Names) -> None:
        arguments = self._function.args
        positional = [*arguments.posonlyargs, *arguments.args]
        defaults: list[ast.expr | None] = [*[None] * (len(positional) - len(arguments.defaults)), *arguments.defaults]
        if positional and positional[0].arg in ("self", "cls"):
            positional, defaults = positional[1:], defaults[1:]
        for index, (argument, default) in enumerate(
            [*zip(positional, defaults, strict=True), *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
        ):
            value = given.get(argument.arg, given.get(str(index), UNKNOWN))
            if value is UNKNOWN and default is not None:
                value = self.value(default)
            self._names[argument.arg] = _PARSER if value is UNKNOWN and "parser" in argument.arg else value

    def run(self) -> Any:
        self._block(self._function.body)
        return self._value

    def _block(self, body: list[ast.stmt]) -> bool:
        """Read statements; True where the function ends in them."""
        return any(self._statement(statement) for statement in body)

    def _statement(self, node: ast.stmt) -> bool:
        if isinstance(node, ast.Return):
            self._value = self.value(node.value) if node.value is not None else None
            return True
        if isinstance(node, ast.Raise):
            return True
        if isinstance(node, ast.Assign | ast.AnnAssign):
            value = self.value(node.value) if node.value is not None else UNKNOWN
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                self._store(target, value, node.value)
        elif isinstance(node, ast.AugAssign):
            self.value(node.value)
            self._store(node.target, UNKNOWN, None)
        elif isinstance(node, ast.Delete):
            for target in node.targets:
                owner = self.value(target.value) if isinstance(target, ast.Subscript) else UNKNOWN
                if isinstance(owner, dict) and isinstance(target, ast.Subscript):
                    owner.pop(self.value(target.slice), None)
        elif isinstance(node, ast.Expr):
            self.value(node.value)
        elif isinstance(node, ast.If):
            return self._condition(node)
        elif isinstance(node, ast.For):
            self._loop(node)
        elif isinstance(node, ast.With):
            return self._block(node.body)
        elif isinstance(node, ast.While):
            self._block(node.body)
        elif isinstance(node, ast.Try):
            for body in (node.body, *(handler.body for handler in node.handlers), node.orelse, node.finalbody):
                self._block(body)
        return False

    def _condition(self, node: ast.If) -> bool:
        test = self.value(node.test)
        if test is not UNKNOWN and not isinstance(test, _Mark):
            return self._block(node.body if test else node.orelse)
        ends = self._block(node.body)
        return self._block(node.orelse) and ends

    def _loop(self, node: ast.For) -> None:
        items = self.value(node.iter)
        if isinstance(items, dict):
            items = list(items)
        if not isinstance(items, list):
            self._store(node.target, UNKNOWN, None)
            self._block(node.body)
            return
        for item in items:
            self._store(node.target, item, None)
            self._block(node.body)

    def _store(self, target: ast.expr, value: Any, source: ast.expr | None) -> None:
        if isinstance(target, ast.Name):
            self._names[target.id] = value
        elif isinstance(target, ast.Tuple | ast.List):
            values = (
                value if isinstance(value, list) and len(value) == len(target.elts) else [UNKNOWN] * len(target.elts)
            )
            for part, item in zip(target.elts, values, strict=True):
                self._store(part, item, None)
        elif isinstance(target, ast.Subscript):
            owner, key = self.value(target.value), self.value(target.slice)
            if isinstance(owner, dict) and isinstance(key, str):
                owner[key] = converter(source) if key in ("type", "action") and source is not None else value

    def value(self, node: ast.expr) -> Any:
        """The value of an expression, or UNKNOWN."""
        if isinstance(node, ast.Call):
            return self._call(node)
        if isinstance(node, ast.Name) and node.id in self._names:
            return self._names[node.id]
        if isinstance(node, ast.JoinedStr):
            parts = [self.value(p.value) if isinstance(p, ast.FormattedValue) else self.value(p) for p in node.values]
            return "".join(parts) if all(isinstance(part, str) for part in parts) else UNKNOWN
        if isinstance(node, ast.IfExp):
            test = self.value(node.test)
            return UNKNOWN if isinstance(test, _Mark) else self.value(node.body if test else node.orelse)
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            left, right = self.value(node.left), self.value(node.comparators[0])
            if not isinstance(left, _Mark) and not isinstance(right, _Mark):
                if isinstance(node.ops[0], ast.Eq | ast.NotEq):
                    return (left == right) is isinstance(node.ops[0], ast.Eq)
                if isinstance(node.ops[0], ast.In | ast.NotIn) and isinstance(right, list | dict | str):
                    return (left in right) is isinstance(node.ops[0], ast.In)
            return UNKNOWN
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            inner = self.value(node.operand)
            return UNKNOWN if isinstance(inner, _Mark) else not inner
        if isinstance(node, ast.List | ast.Tuple):
            return [self.value(item) for item in node.elts]
        if isinstance(node, ast.Dict):
            return self._dict(node)
        if isinstance(node, ast.Subscript):
            owner, key = self.value(node.value), self.value(node.slice)
            return owner.get(key, UNKNOWN) if isinstance(owner, dict) and isinstance(key, str) else UNKNOWN
        return self._follower.constant(node, self._file.path)

    def _dict(self, node: ast.Dict) -> Any:
        result: Names = {}
        for key, value in zip(node.keys, node.values, strict=True):
            found = self.value(value)
            if key is None:
                if not isinstance(found, dict):
                    return UNKNOWN
                result |= found
            else:
                name = self.value(key)
                if not isinstance(name, str):
                    return UNKNOWN
                result[name] = found
        return result

    def _call(self, node: ast.Call) -> Any:
        name = last_name(node.func)
        if name == "add_argument":
            self._declare(node)
            return UNKNOWN
        if name in _GENERATORS and node.args:
            wanted = last_name(node.args[0])
            return self._follower.fields(self._owner if wanted == "cls" else wanted, self._file.path)
        if name == "deepcopy" and node.args:
            return self.value(node.args[0])
        if isinstance(node.func, ast.Attribute):
            owner = self.value(node.func.value)
            if isinstance(owner, str | dict):
                return self._of_value(owner, name, [self.value(argument) for argument in node.args])
            if owner is _PARSER:
                return _PARSER if name.startswith("add_") else UNKNOWN
        return self._enter(node, name)

    def _of_value(self, owner: Any, name: str, arguments: list[Any]) -> Any:
        if any(isinstance(argument, _Mark) for argument in arguments):
            return UNKNOWN
        if isinstance(owner, str) and name in ("replace", "strip", "lower", "upper", "removeprefix", "removesuffix"):
            return getattr(owner, name)(*arguments)
        if isinstance(owner, dict) and name in ("get", "pop"):
            return getattr(owner, name)(*arguments, *([None] if len(arguments) == 1 else []))
        if isinstance(owner, dict) and name == "items":
            return [[key, value] for key, value in owner.items()]
        return UNKNOWN

    def _enter(self, node: ast.Call, name: str) -> Any:
        """Follow a function that is handed the parser, or what the flags are made of."""
        given = {str(index): self.value(argument) for index, argument in enumerate(node.args)}
        given |= {keyword.arg: self.value(keyword.value) for keyword in node.keywords if keyword.arg}
        if self._follower.stays or not any(value is _PARSER or isinstance(value, dict) for value in given.values()):
            return UNKNOWN
        before = node.func.value if isinstance(node.func, ast.Attribute) else None
        follower, path = self._follower, self._file.path
        if isinstance(before, ast.Call) and last_name(before) == "super":
            defined = self._name.rpartition(".")[0]
            method = follower.method(self._owner, path, name, defined)
        elif before is not None:
            owner = self._owner if last_name(before) in ("cls", "self") else last_name(before)
            method = follower.method(owner, path, name)
        else:
            method = None
        if method is not None:
            owner = self._owner if last_name(before) in ("cls", "self", "super") else last_name(before)
            return follower.read(method[1], f"{method[2]}.{name}", method[0], owner, given)
        value = follower.enter(path, [name], given) if before is None else None
        if value is None and any(one is _PARSER for one in given.values()) and not follower.adds_nothing(name):
            follower.open.append(f"{path}:{node.lineno}")
        return UNKNOWN if value is None else value

    def _declare(self, node: ast.Call) -> None:
        names: list[Any] = []
        for argument in node.args:
            if isinstance(argument, ast.Starred):
                inner = self.value(argument.value)
                if last_name(argument.value) == getattr(self._function.args.vararg, "arg", ""):
                    return  # it hands on what it was called with
                names.extend(inner if isinstance(inner, list) else [inner])
            else:
                names.append(self.value(argument))
        if not names or not all(isinstance(name, str) for name in names):
            self._follower.open.append(f"{self._file.path}:{node.lineno}")
            return
        given: Names = {}
        for keyword in node.keywords:
            value = self.value(keyword.value)
            if keyword.arg is not None:
                given[keyword.arg] = value
            elif isinstance(value, dict):
                given |= value
            else:  # how many words it takes cannot be told
                self._follower.open.append(f"{self._file.path}:{node.lineno}")
        self._follower.calls.append(Call(node, names, given, self._name, self._file.path))


def converter(node: ast.expr) -> str:
    """The name of what turns a word into a value: ``optional_type(int)`` is ``int | None``."""
    if isinstance(node, ast.Call) and node.args:
        inner = converter(node.args[0])
        return f"{inner} | None" if last_name(node) == "optional_type" else inner
    name = "lambda" if isinstance(node, ast.Lambda) else last_name(node)
    return "json" if name == "loads" else name
