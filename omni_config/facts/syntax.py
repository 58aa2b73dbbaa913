"""Small questions to a syntax tree: dotted names, constants, functions by qualified name, a hash of what is meant."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator, Sequence

Function = ast.FunctionDef | ast.AsyncFunctionDef

#: Fields of nodes that say nothing about meaning, or that differ between versions of Python.
_FORM = {"ctx", "kind", "type_comment", "type_params"}


def dotted(node: ast.AST | None) -> str:
    """``a.b.c`` for such an expression, and an empty string for any other."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        before = dotted(node.value)
        return f"{before}.{node.attr}" if before else ""
    return ""


def last_name(node: ast.AST | None) -> str:
    """The last name of an expression: ``c`` of ``a.b().c``, ``b`` of ``a.b()``."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return node.attr
    if isinstance(node, ast.Call):
        return last_name(node.func)
    if isinstance(node, ast.Subscript):
        return last_name(node.value)
    return ""


def first(nodes: Sequence[ast.expr]) -> ast.expr | None:
    """The first expression, if there is one."""
    return nodes[0] if nodes else None


def text(node: ast.AST | None) -> str | None:
    """The value of a string constant."""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def walk(node: ast.AST) -> Iterator[ast.AST]:
    """Each node of a tree in the order of the source, without the marks of loading and storing. Twice as fast as
    ``ast.walk``, which is most of the time that a wheel takes.
    """
    waiting = [node]
    while waiting:
        node = waiting.pop()
        yield node
        children: list[ast.AST] = []
        for field in node._fields:
            value = getattr(node, field, None)
            if isinstance(value, list):
                children.extend(item for item in value if isinstance(item, ast.AST))
            elif isinstance(value, ast.AST) and field not in _FORM:
                children.append(value)
        waiting.extend(reversed(children))


def depth(tree: ast.AST) -> int:
    """How many levels a tree has, counted without recursion."""
    level, count = [tree], 0
    while level:
        count += 1
        values = [getattr(node, field, None) for node in level for field in node._fields if field not in _FORM]
        items = (item for value in values for item in (value if isinstance(value, list) else [value]))
        level = [item for item in items if isinstance(item, ast.AST)]
    return count


def functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, Function, str]]:
    """Each function with its qualified name and the name of the class that it is a method of."""
    yield from _functions(tree, prefix, "")


def _functions(tree: ast.AST, prefix: str, owner: str) -> Iterator[tuple[str, Function, str]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, Function):
            yield f"{prefix}{node.name}", node, owner
            yield from _functions(node, f"{prefix}{node.name}.", owner)
        elif isinstance(node, ast.ClassDef):
            yield from _functions(node, f"{prefix}{node.name}.", node.name)
        elif not isinstance(node, ast.expr):
            yield from _functions(node, prefix, owner)


def canonical(node: object) -> str:
    """What an expression means, without positions, quotes, line breaks, or white space inside strings. It does not
    depend on the version of Python, as ``ast.unparse`` and ``ast.dump`` do.
    """
    if isinstance(node, ast.Constant):
        value = node.value
        return repr(" ".join(value.split()) if isinstance(value, str) else value)
    if isinstance(node, ast.AST):
        parts = (canonical(getattr(node, field, None)) for field in node._fields if field not in _FORM)
        return f"{type(node).__name__}({','.join(parts)})"
    if isinstance(node, list):
        return f"[{','.join(canonical(item) for item in node)}]"
    return repr(node)


def hash8(meaning: str) -> str:
    """Eight hexadecimal digits of a meaning."""
    return hashlib.sha256(meaning.encode("utf-8", "surrogatepass")).hexdigest()[:8]
