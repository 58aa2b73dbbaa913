"""Conditions of rules: a small subset of Python's expressions over named quantities, and nothing else.

``cfg_parallel_size > 1 and cfg_branches == 1`` is allowed; attributes, calls, subscripts and comprehensions are not, so
that a policy file from anywhere can be read safely.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from types import CodeType
from typing import Any

_ALLOWED = (
    ast.Expression,
    ast.BoolOp,
    ast.And,
    ast.Or,
    ast.UnaryOp,
    ast.Not,
    ast.USub,
    ast.Compare,
    ast.Eq,
    ast.NotEq,
    ast.Lt,
    ast.LtE,
    ast.Gt,
    ast.GtE,
    ast.In,
    ast.NotIn,
    ast.Is,
    ast.IsNot,
    ast.BinOp,
    ast.Add,
    ast.Sub,
    ast.Mult,
    ast.FloorDiv,
    ast.Mod,
    ast.Tuple,
    ast.Name,
    ast.Load,
    ast.Constant,
)
_GLOBALS: dict[str, Any] = {"__builtins__": {}}


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Expression:
    """A compiled expression: its text, and the names that it reads in the order of their appearance."""

    text: str
    names: tuple[str, ...]
    code: CodeType

    def __call__(self, quantities: Mapping[str, Any]) -> Any:
        """Value of the expression.

        Raises:
            KeyError: a name is not a quantity.
        """
        return eval(self.code, _GLOBALS, quantities)  # noqa: S307 (parse allows no call and no attribute)


@cache
def parse(text: str) -> Expression:
    """Compile an expression.

    Raises:
        ValueError: it is not one, or uses more than names, numbers, words and operators.
    """
    if len(text) > 1000:
        raise ValueError("the expression is longer than 1000 characters")
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, RecursionError, MemoryError):
        raise ValueError(f"not an expression: {text!r}") from None
    names: dict[str, None] = {}
    for node in ast.walk(tree):
        if not isinstance(node, _ALLOWED):
            raise ValueError(f"{type(node).__name__.lower()} is not allowed in a condition: {text!r}")
        if isinstance(node, ast.BinOp) and any(_is_text(side) for side in (node.left, node.right)):
            raise ValueError(f"arithmetic is for numbers: {text!r}")
        if isinstance(node, ast.Name):
            names[node.id] = None
    return Expression(text, tuple(names), compile(tree, "<rule>", "eval"))


@lru_cache(maxsize=64)
def together(texts: tuple[str, ...]) -> CodeType:
    """The code of a tuple of expressions, each of which has been parsed before: faster than one after the other."""
    return compile(f"({''.join(f'({text}{chr(10)}),' for text in texts)})", "<rules>", "eval")


def values(texts: tuple[str, ...], quantities: Mapping[str, Any]) -> tuple[Any, ...]:
    """The values of expressions.

    Raises:
        TypeError: one of them cannot be said.
    """
    found: tuple[Any, ...] = eval(together(texts), _GLOBALS, quantities)  # noqa: S307 (as above)
    return found


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)
