"""Python read by its syntax tree, never imported or run: the calls of a script in the order in which it makes them.

What a name means is followed through assignments, functions of the file, ``dict(...)``, ``**kwargs``, f-strings and the
defaults of argparse options. A branch is taken where its condition is known. What only a run could tell is ``UNKNOWN``.
"""

from __future__ import annotations

import ast
import builtins
import operator
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

from omni_config.engines.formats.python import Call, Local, Made, Name, Options, Scope, Script
from omni_config.engines.formats.text import File, Text, joined
from omni_config.findings import Span
from omni_config.reading.nodes import Unreadable, YamlNode, parse
from omni_config.rules.quantities import UNKNOWN

MAX_LENGTH = 400_000  # characters; a deployment has a few thousand
MAX_STEPS = 50_000
MAX_DEPTH = 40  # of nested expressions, and of calls of functions of the file
#: Methods that return the object itself, and functions that return their first argument.
_SELF = {"to", "cuda", "cpu", "eval", "half", "train", "float", "bfloat16", "requires_grad_", "manual_seed"}
_FIRST = {"torch.compile", "torch.device", "int", "float", "str", "bool", "list", "tuple", "pathlib.Path"}
_OPERATORS: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


def read(file: File) -> Script | None:
    """The calls of a script or notebook; None where it is no Python, or too large to be one that people write."""
    text = code(file)
    if text is None:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text.value)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    reader = _Reader(text, Script(file))
    try:
        reader.run(tree)
    except (_TooMuch, RecursionError):
        reader.script.cut = True
    return reader.script


def code(file: File) -> Text | None:
    """The Python of a script or notebook; None where it is none, or too large to be one that people write."""
    if len(file.source.text) > MAX_LENGTH:
        return None
    return _cells(file) if file.source.name.endswith(".ipynb") else file.text


def _cells(file: File) -> Text | None:
    """The code of a notebook's cells one after the other; lines for its shell become comments."""
    try:
        nodes = parse(file.source)
    except Unreadable:
        return None
    cells = nodes[0].children.get("cells") if nodes and isinstance(nodes[0].value, dict) else None
    parts = []
    for cell in cells.children.values() if cells else ():
        code = cell.children.get("source") if isinstance(cell.value, dict) else None
        if code is None or cell.value.get("cell_type") != "code":
            continue
        lines = [line for line in code.children.values() if isinstance(line.value, str)]
        said = [file.scalar(line) for line in (lines if isinstance(code.value, list) else [code])]
        if said:
            parts += [*said, replace(said[-1][-1:], value="\n")]
    whole = joined([part for part in parts if part.offsets], file)
    return replace(whole, value=re.sub(r"^([ \t]*)[!%]", r"\1#", whole.value, flags=re.MULTILINE))


class _TooMuch(Exception):
    """More steps than a script of a deployment takes."""


class _Reader:
    def __init__(self, text: Text, script: Script) -> None:
        self.text = text
        self.script = script
        self.steps = 0
        self.depth = 0
        self.running: list[ast.AST] = []
        self.seen: set[ast.AST] = set()  # functions that were called
        self.top = Scope()  # the names of the module

    def run(self, tree: ast.Module) -> None:
        """The top level, then the functions and methods that nothing in the file calls, as others may call them."""
        top = self.top
        self.block(tree.body, top)
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node not in self.seen:
                self.function(Local(node, top), Call(node.name, self.span(node)))
            elif isinstance(node, ast.ClassDef) and node not in self.seen:
                owner = Call(node.name, self.span(node))
                self.instance(Local(node, top), owner)
                for method in node.body:
                    if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef) and method not in self.seen:
                        self.function(Local(method, top, owner), Call(method.name, self.span(method)))

    # Places

    @cached_property
    def _starts(self) -> list[int]:
        starts = [0]
        for line in self.text.value.split("\n"):
            starts.append(starts[-1] + len(line) + 1)
        return starts

    def _offset(self, line: int, column: int) -> int:
        start = self._starts[line - 1]
        text = self.text.value[start : start + column]
        if text.isascii():
            return start + column
        return start + len(text.encode()[:column].decode(errors="ignore"))

    def span(self, node: ast.AST) -> Span:
        """The place of a part of the tree; of a definition, its first line."""
        start = self._offset(node.lineno, node.col_offset)  # type: ignore[attr-defined]
        end = self._offset(node.end_lineno, node.end_col_offset)  # type: ignore[attr-defined]
        return self.text[start : max(end, start + 1)].span

    # Statements

    def block(self, body: Iterable[ast.stmt], scope: Scope) -> YamlNode | None:
        """Read statements; what they return, where they do."""
        for statement in body:
            self.step()
            returned = self.statement(statement, scope)
            if returned is not None:
                return returned
        return None

    def step(self) -> None:
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise _TooMuch

    def statement(self, node: ast.stmt, scope: Scope) -> YamlNode | None:
        match node:
            case ast.Expr():
                self.value(node.value, scope)
            case ast.Assign():
                value = self.value(node.value, scope)
                for target in node.targets:
                    self.assign(target, value, scope)
            case ast.AnnAssign() if node.value is not None:
                self.assign(node.target, self.value(node.value, scope), scope)
            case ast.AugAssign():
                value = self.value(ast.BinOp(_loaded(node.target), node.op, node.value), scope, node)
                self.assign(node.target, value, scope)
            case ast.Return():
                return self.value(node.value, scope) if node.value else YamlNode(None, self.span(node))
            case ast.Import():
                for name in node.names:
                    full = name.name if name.asname else name.name.partition(".")[0]
                    scope.names[name.asname or full] = YamlNode(Name(full), self.span(node))
            case ast.ImportFrom():
                for name in node.names:
                    full = f"{node.module or ''}.{name.name}"
                    scope.names[name.asname or name.name] = YamlNode(Name(full), self.span(node))
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                scope.names[node.name] = YamlNode(Local(node, scope), self.span(node))
            case ast.If():
                return self.branch(node, scope)
            case ast.For() | ast.AsyncFor():
                over = self.value(node.iter, scope)
                items = list(over.children.values()) if isinstance(over.value, list) else []
                self.assign(node.target, items[0] if len(items) == 1 else self.unknown(node.target), scope)
                return self.block(node.body, scope)
            case ast.While():
                if self.truth(self.value(node.test, scope)) is not False:
                    return self.block(node.body, scope)
            case ast.With() | ast.AsyncWith():
                for item in node.items:
                    value = self.value(item.context_expr, scope)
                    if item.optional_vars is not None:
                        self.assign(item.optional_vars, value, scope)
                return self.block(node.body, scope)
            case ast.Try():
                return self.block([*node.body, *node.orelse, *node.finalbody], scope)
            case ast.Match():
                for case in node.cases:
                    self.leave_open(case.body, scope)
        return None

    def branch(self, node: ast.If, scope: Scope) -> YamlNode | None:
        """The side that is taken; where only a run knows it, what either would change is unknown after it."""
        taken = self.truth(self.value(node.test, scope))
        if taken is not None:
            return self.block(node.body if taken else node.orelse, scope)
        self.leave_open([*node.body, *node.orelse], scope)
        return None

    def leave_open(self, body: Iterable[ast.stmt], scope: Scope) -> None:
        for statement in body:
            for inner in ast.walk(statement):
                self.step()
                if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
                    scope.names[inner.id] = self.unknown(inner)
                elif isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Store):
                    self.assign(inner, self.unknown(inner), scope)
                elif isinstance(inner, ast.Call) and isinstance(inner.func, ast.Attribute | ast.Name):
                    called = inner.func.attr if isinstance(inner.func, ast.Attribute) else inner.func.id
                    self.script.skipped.append((called, self.span(inner.func)))

    def assign(self, target: ast.expr, value: YamlNode, scope: Scope) -> None:
        match target:
            case ast.Name():
                scope.names[target.id] = value
            case ast.Attribute():
                owner = self.value(target.value, scope).value
                if isinstance(owner, Made):
                    owner.call.attributes[_joined(owner.path, target.attr)] = value
            case ast.Subscript():
                owner_node, key = self.value(target.value, scope), self.value(target.slice, scope).value
                if isinstance(owner_node.value, dict) and isinstance(key, str):
                    owner_node.children[key] = value
                    owner_node.value[key] = value.value
            case ast.Tuple() | ast.List():
                items = list(value.children.values()) if isinstance(value.value, list) else []
                whole = len(items) == len(target.elts) and not any(isinstance(e, ast.Starred) for e in target.elts)
                for at, element in enumerate(target.elts):
                    inner = element.value if isinstance(element, ast.Starred) else element
                    self.assign(inner, items[at] if whole else self.unknown(inner), scope)

    def truth(self, node: YamlNode) -> bool | None:
        """Whether a value counts as true; None where only a run knows."""
        value = node.value
        if value is UNKNOWN or isinstance(value, Made | Name):
            return None
        return True if isinstance(value, Local) else bool(value)

    def unknown(self, node: ast.AST) -> YamlNode:
        return YamlNode(UNKNOWN, self.span(node))

    # Expressions

    def value(self, node: ast.expr, scope: Scope, place: ast.AST | None = None) -> YamlNode:
        """What an expression means; calls in it are noted."""
        self.step()
        self.depth += 1
        try:
            if self.depth > MAX_DEPTH:
                return self.unknown(place or node)
            span = self.span(place or node)
            found = self._value(node, scope, span)
            return found if isinstance(found, YamlNode) else YamlNode(found, span)
        finally:
            self.depth -= 1

    def _value(self, node: ast.expr, scope: Scope, span: Span) -> Any:
        match node:
            case ast.Constant():
                return node.value if isinstance(node.value, str | int | float | bool | None) else UNKNOWN
            case ast.Name():
                found = scope.find(node.id)
                if found is not None:
                    return replace(found, place=span)
                if node.id == "__name__":
                    return "__main__"
                return Name(node.id) if hasattr(builtins, node.id) else UNKNOWN
            case ast.Lambda():
                return Made(Call("lambda", span))
            case ast.Attribute():
                return self.attribute(self.value(node.value, scope), node.attr, span)
            case ast.Call():
                return self.call(node, scope, span)
            case ast.Dict():
                return self.mapping(node, scope, span)
            case ast.List() | ast.Tuple() | ast.Set():
                items = [self.value(item, scope) for item in node.elts]
                return YamlNode([item.value for item in items], span, children=dict(enumerate(items)))
            case ast.JoinedStr():
                parts = [self.value(part, scope).value for part in node.values]
                return UNKNOWN if any(not isinstance(part, str) for part in parts) else "".join(parts)
            case ast.FormattedValue():
                inner = self.value(node.value, scope).value
                plain_one = node.format_spec is None and node.conversion == -1
                return str(inner) if plain_one and isinstance(inner, str | int | float) else UNKNOWN
            case ast.UnaryOp():
                inner = self.value(node.operand, scope)
                if isinstance(node.op, ast.Not):
                    truth = self.truth(inner)
                    return UNKNOWN if truth is None else not truth
                known = isinstance(inner.value, int | float) and isinstance(node.op, ast.USub)
                return -inner.value if known else UNKNOWN
            case ast.BoolOp():
                return self.either(node, scope)
            case ast.IfExp():
                taken = self.truth(self.value(node.test, scope))
                return UNKNOWN if taken is None else self.value(node.body if taken else node.orelse, scope)
            case ast.BinOp():
                return _combined(node.op, self.value(node.left, scope).value, self.value(node.right, scope).value)
            case ast.Compare() if len(node.ops) == 1:
                left, right = self.value(node.left, scope).value, self.value(node.comparators[0], scope).value
                return _compared(node.ops[0], left, right)
            case ast.Subscript():
                owner, key = self.value(node.value, scope), self.value(node.slice, scope).value
                known = isinstance(owner.value, dict | list) and isinstance(key, str | int)
                return owner.children.get(key, UNKNOWN) if known else UNKNOWN
            case ast.NamedExpr():
                value = self.value(node.value, scope)
                self.assign(node.target, value, scope)
                return value
            case ast.Await() | ast.Starred():
                return self.value(node.value, scope)
            case ast.ListComp() | ast.GeneratorExp() | ast.SetComp():
                inside = Scope(outer=scope)
                for part in node.generators:
                    self.value(part.iter, scope)
                    self.assign(part.target, self.unknown(part.target), inside)
                self.value(node.elt, inside)
        return UNKNOWN

    def attribute(self, owner: YamlNode, name: str, span: Span) -> Any:
        value = owner.value
        if isinstance(value, Name):
            return Name(f"{value.text}.{name}")
        if isinstance(value, Options):
            return replace(found, place=span) if (found := owner.children.get(name)) else UNKNOWN
        if isinstance(value, Made):
            path = _joined(value.path, name)
            if (said := value.call.attributes.get(path)) is not None:
                return replace(said, place=span)
            method = _method(value.call.own, name) if not value.path else None
            return Local(method, self.top, value.call) if method is not None else Made(value.call, path)
        return UNKNOWN

    def either(self, node: ast.BoolOp, scope: Scope) -> Any:
        """``and`` and ``or``: the first operand that decides, else the last."""
        wanted = isinstance(node.op, ast.Or)
        for operand in node.values:
            value = self.value(operand, scope)
            truth = self.truth(value)
            if truth is wanted or (truth is None and operand is not node.values[-1]):
                return value if truth is wanted else UNKNOWN
        return value

    def mapping(self, node: ast.Dict, scope: Scope, span: Span) -> YamlNode:
        found = YamlNode({}, span)
        for key, item in zip(node.keys, node.values, strict=True):
            value = self.value(item, scope)
            if key is None:
                if not isinstance(value.value, dict):
                    return YamlNode(UNKNOWN, span)
                _update(found, value.children)
                continue
            name = self.value(key, scope)
            if not isinstance(name.value, str | int | float):
                return YamlNode(UNKNOWN, span)
            _update(found, {name.value: replace(value, key=name)})
        return found

    # Calls

    def call(self, node: ast.Call, scope: Scope, span: Span) -> Any:
        target = self.value(node.func, scope).value
        if isinstance(node.func, ast.Attribute) and node.func.attr == "update":
            owner = self.value(node.func.value, scope)
            if isinstance(owner.value, dict):
                return self.updated(owner, node, scope)
        call = Call("", self.span(node.func) if not isinstance(node.func, ast.Call) else span)
        for argument in node.args:
            value = self.value(argument, scope)
            if not isinstance(argument, ast.Starred):
                call.arguments.append(value)
            elif isinstance(value.value, list):
                call.arguments += value.children.values()
            else:
                call.open = True
        for keyword in node.keywords:
            value = self.value(keyword.value, scope)
            if keyword.arg is not None:
                name = keyword.arg
                at = self._offset(keyword.lineno, keyword.col_offset)
                key = YamlNode(name, self.text[at : at + len(name)].span)
                call.keywords[name] = replace(value, place=self.span(keyword), key=key)
            elif isinstance(value.value, dict):
                call.keywords |= {str(name): child for name, child in value.children.items()}
                call.open |= None in value.children
            else:
                call.open = True
        return self.result(target, call, span)

    def updated(self, owner: YamlNode, node: ast.Call, scope: Scope) -> YamlNode:
        """``mapping.update(...)``; a part that only a run knows makes all that it may say unknown."""
        for argument in node.args:
            value = self.value(argument, scope)
            if isinstance(value.value, dict):
                _update(owner, value.children)
            else:
                _update(owner, dict.fromkeys(owner.children, self.unknown(argument)))
        for keyword in node.keywords:
            if keyword.arg is not None:
                key = YamlNode(keyword.arg, self.span(keyword))
                _update(owner, {keyword.arg: replace(self.value(keyword.value, scope), key=key)})
        return YamlNode(None, owner.span)

    def result(self, target: Any, call: Call, span: Span) -> Any:
        """Note a call, and what it returns as far as that is known."""
        if isinstance(target, Local):
            if isinstance(target.node, ast.ClassDef):
                return self.instance(target, call)
            return self.function(target, call)
        if isinstance(target, Made):
            call.receiver, call.name = target.call, target.path
        elif isinstance(target, Name):
            call.name = target.text
        else:
            return UNKNOWN
        known = self.builtin(call, span)
        if known is not None:
            return known
        self.script.calls.append(call)
        if call.receiver is not None and call.last in _SELF:
            return Made(call.receiver, call.name.rpartition(".")[0])
        if call.name in _FIRST and call.arguments:
            return call.arguments[0]
        return Made(call)

    def builtin(self, call: Call, span: Span) -> Any:
        """What some functions of Python's own return; None where it is none of them."""
        if call.receiver is None and call.name in ("dict", "argparse.Namespace"):
            found = YamlNode(Options() if call.name != "dict" else {}, span)
            first = call.arguments[:1]
            if call.open or any(not isinstance(node.value, dict) for node in first):
                return UNKNOWN
            for node in first:
                _update(found, node.children)
            _update(found, call.keywords)
            return found
        if call.name == "torch.cuda.is_available":  # a deployment has GPUs
            return YamlNode(True, span)
        if call.name in ("os.environ.get", "os.getenv") and call.receiver is None:
            return call.arguments[1] if len(call.arguments) > 1 else UNKNOWN
        if call.name == "vars" and call.arguments and isinstance(call.arguments[0].value, Options):
            return call.arguments[0]
        if call.name in ("int", "float", "str", "bool") and call.arguments:
            kind = {"int": int, "float": float, "str": str, "bool": bool}[call.name]
            value = call.arguments[0].value
            try:
                return kind(value) if isinstance(value, str | int | float) and len(str(value)) < 100 else UNKNOWN
            except (ValueError, OverflowError):
                return UNKNOWN
        if call.receiver is not None and call.last in ("parse_args", "parse_known_args"):
            options = self.options(call.receiver, span)
            if options is not None and call.last == "parse_known_args":
                return YamlNode([options.value, []], span, children={0: options, 1: YamlNode([], span)})
            return options
        return None

    def options(self, parser: Call, span: Span) -> YamlNode | None:
        """The options of an argparse parser, by the defaults that it states; None where it is none."""
        if parser.origin().last not in ("ArgumentParser", "FlexibleArgumentParser"):
            return None
        found = YamlNode(Options(), span)
        for call in self.script.calls:
            if call.last == "set_defaults" and call.origin() is parser.origin():
                _update(found, call.keywords)
            if call.last != "add_argument" or call.origin() is not parser.origin():
                continue
            names = [str(node.value) for node in call.arguments]
            if not names:
                continue
            name = next((name for name in names if name.startswith("--")), names[0]).lstrip("-").replace("-", "_")
            stated = call.keywords.get("dest")
            name = str(stated.value) if stated else name
            action = stated.value if (stated := call.keywords.get("action")) else None
            default = call.keywords.get("default")
            required = "required" in call.keywords or not names[0].startswith("-")
            if default is None:
                of_switch = {"store_true": False, "store_false": True}
                value = UNKNOWN if required else of_switch.get(action if isinstance(action, str) else "")
                default = YamlNode(value, call.span)
            _update(found, {name: default})
        return found

    def instance(self, target: Local, call: Call) -> YamlNode:
        """An object of a class of the file: its fields with their defaults, and what its ``__init__`` does."""
        assert isinstance(target.node, ast.ClassDef)
        self.seen.add(target.node)
        call.name, call.own = target.node.name, target.node
        made = YamlNode(Made(call), call.span)
        fields = Scope(outer=target.scope)
        for statement in target.node.body:
            if isinstance(statement, ast.Assign | ast.AnnAssign):
                self.statement(statement, fields)
        call.attributes |= fields.names | call.keywords
        start = _method(target.node, "__init__")
        if start is not None:
            self.function(Local(start, target.scope, call), replace(call))
        return made

    def function(self, target: Local, call: Call) -> YamlNode:
        """Read the body of a function of the file with the arguments of a call."""
        node = target.node
        assert not isinstance(node, ast.ClassDef)
        self.seen.add(node)
        if node in self.running or len(self.running) >= MAX_DEPTH:
            return YamlNode(UNKNOWN, call.span)
        inside = Scope(outer=target.scope)
        taken = [*node.args.posonlyargs, *node.args.args]
        given = list(call.arguments)
        static = any(isinstance(one, ast.Name) and one.id == "staticmethod" for one in node.decorator_list)
        if target.owner is not None and not static:
            given.insert(0, YamlNode(Made(target.owner), call.span))
        defaults: dict[str, ast.expr | None] = dict(
            zip([one.arg for one in taken][len(taken) - len(node.args.defaults) :], node.args.defaults, strict=True)
        )
        defaults |= dict(zip([one.arg for one in node.args.kwonlyargs], node.args.kw_defaults, strict=True))
        for at, one in enumerate([*taken, *node.args.kwonlyargs]):
            default = defaults.get(one.arg)
            if one.arg in call.keywords:
                value = call.keywords[one.arg]
            elif at < min(len(given), len(taken)):
                value = given[at]
            elif default is not None and not call.open:
                value = self.value(default, target.scope)
            else:
                value = YamlNode(UNKNOWN, call.span)
            inside.names[one.arg] = value
        named = {one.arg for one in (*taken, *node.args.kwonlyargs)}
        if node.args.kwarg is not None:
            rest = YamlNode({}, call.span)
            _update(rest, {name: value for name, value in call.keywords.items() if name not in named})
            inside.names[node.args.kwarg.arg] = YamlNode(UNKNOWN, call.span) if call.open else rest
        if node.args.vararg is not None:
            inside.names[node.args.vararg.arg] = YamlNode(UNKNOWN, call.span)
        self.running.append(node)
        depth, self.depth = self.depth, 0
        try:
            returned = self.block(node.body, inside)
        finally:
            self.running.pop()
            self.depth = depth
        return returned if returned is not None else YamlNode(UNKNOWN, call.span)


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _update(target: YamlNode, children: Mapping[Any, YamlNode]) -> None:
    for key, child in children.items():
        target.children[key] = child
        target.value[key] = child.value


def _loaded(target: ast.expr) -> ast.expr:
    """The same name, read rather than assigned."""
    if isinstance(target, ast.Name):
        return ast.copy_location(ast.Name(target.id, ast.Load()), target)
    return target


def _method(owner: ast.ClassDef | None, name: str) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    for node in owner.body if owner else ():
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name:
            return node
    return None


def _combined(sign: ast.operator, left: Any, right: Any) -> Any:
    """Arithmetic of numbers, and text put together."""
    numbers = isinstance(left, int | float) and isinstance(right, int | float)
    texts = isinstance(left, str) and isinstance(right, str) and isinstance(sign, ast.Add)
    if not (numbers or texts) or type(sign) not in _OPERATORS:
        return UNKNOWN
    try:
        if len(str(left)) + len(str(right)) > 1000:
            return UNKNOWN
        return _OPERATORS[type(sign)](left, right)
    except (ArithmeticError, ValueError):
        return UNKNOWN


def _compared(sign: ast.cmpop, left: Any, right: Any) -> Any:
    if isinstance(sign, ast.Is | ast.IsNot) and right is None and left is not UNKNOWN:
        return (left is None) is isinstance(sign, ast.Is)
    plain_ones = (str, int, float, bool, type(None))
    if not isinstance(left, plain_ones):
        return UNKNOWN
    if isinstance(sign, ast.In | ast.NotIn) and isinstance(right, dict | list):
        known = all(isinstance(item, plain_ones) for item in right)
        return (left in right) is isinstance(sign, ast.In) if known else UNKNOWN
    if not isinstance(right, plain_ones) or type(sign) not in _OPERATORS:
        return UNKNOWN
    try:
        return _OPERATORS[type(sign)](left, right)
    except TypeError:
        return UNKNOWN
