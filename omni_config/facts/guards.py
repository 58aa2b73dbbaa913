"""Guards: each place that raises, asserts or warns under a condition on a setting.

The id of a guard is its file, its function, and a hash of its condition and kind. Lines may move and code may be
reformatted without changing it. No text of the source is kept: condition and message are there for a person who looks
at the wheel, and leave no trace in the facts.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from omni_config.facts.engines import DECLARES, Engine
from omni_config.facts.names import Names, known_names
from omni_config.facts.reads import Reader
from omni_config.facts.syntax import Function, canonical, dotted, functions, hash8, last_name, walk
from omni_config.facts.wheel import File, Wheel

_WARNING = re.compile(r"^(warn(ing)?(_once|_rank0|_all_ranks)?|deprecate)$")
#: Files in which ``height`` is the height of a tensor, and not of a request.
_SHAPES = re.compile(
    r"transformer|vae|autoencoder|/(dits|encoders|layers|attention|ops|postprocess|utils|schedulers|cache_blocks)/|"
    r"/(unet|dit|media|model|modules|layers|attention)[^/]*\.py$"
)


@dataclass(frozen=True)
class Guard:
    """A guard. ``condition`` and ``message`` are read from the wheel for display, and are no facts."""

    id: str
    line: int
    kind: str
    exception: str
    reads: tuple[str, ...]
    condition: str
    message: str


@dataclass(frozen=True)
class _Part:
    """One enclosing condition: its form (``if``, ``not``, ``for`` ...), its expressions, and for an ``except`` what was
    tried, which is read but is no part of the condition.
    """

    form: str
    nodes: tuple[ast.AST, ...]
    tried: tuple[ast.stmt, ...] = ()

    def meaning(self) -> str:
        return f"{self.form}{[canonical(node) for node in self.nodes]}"

    def __str__(self) -> str:
        inner = ", ".join(" ".join(ast.unparse(node).split()) for node in self.nodes)
        if self.tried:
            inner = f"{inner} of {'; '.join(' '.join(ast.unparse(node).split()) for node in self.tried)}"
        return (
            inner if self.form == "if" else f"not ({inner})" if self.form == "not" else f"{self.form} {inner}".strip()
        )


_Chain = tuple[_Part, ...]


def guards(wheel: Wheel, engine: Engine) -> list[Guard]:
    """The guards of a wheel by id."""
    names = known_names(wheel.files, engine)
    files = (file for file in wheel.files if engine.is_guarded(file.path))
    return sorted((guard for file in files for guard in _of_file(file, names, engine)), key=lambda guard: guard.id)


def _of_file(file: File, names: Names, engine: Engine) -> Iterator[Guard]:
    shapes = _SHAPES.search(file.path) is not None
    declares = DECLARES.search(file.path) is not None
    readers: dict[str, Reader] = {}
    times: Counter[str] = Counter()
    for name, function, owner in functions(file.tree):
        ends = list(_ends(function.body, ()))
        inner = any(isinstance(node, Function) for node in walk(function) if node is not function)
        if not ends and not inner:
            continue
        has_settings = engine.holds_settings(file.path, owner) or engine.holds_requests(file.path, owner)
        reader = Reader(
            names,
            readers.get(name.rpartition(".")[0]),
            function,
            owner=has_settings,
            shapes=shapes,
            declares=declares and (has_settings or not owner),
        )
        readers[name] = reader
        for statement, chain in ends:
            kind, exception, message = _what(statement)
            reads = _reads(reader, function, chain) if chain or kind == "raise" else frozenset()
            if not reads:
                continue
            meaning = kind + "&".join(part.meaning() for part in chain)
            name_of = f"{file.path}::{name}#{hash8(meaning)}"
            times[name_of] += 1
            yield Guard(
                id=name_of if times[name_of] == 1 else f"{name_of}~{times[name_of]}",
                line=statement.lineno,
                kind=kind,
                exception=exception,
                reads=tuple(sorted(reads)),
                condition=" and ".join(str(part) for part in chain) or "always",
                message=message,
            )


def _reads(reader: Reader, function: Function, chain: _Chain) -> frozenset[str]:
    """What the chain of conditions reads. Outer conditions count by what stands in them; only the innermost one is
    followed through local names, else every check of a tensor below a setting's switch would count twice over.
    """
    if not chain:
        return frozenset(name for node in function.body for name in reader.reads(node, follow=False))
    result: frozenset[str] = frozenset()
    for index, part in enumerate(chain):
        for node in (*part.nodes, *part.tried):
            result |= reader.reads(node, follow=index == len(chain) - 1)
    return result


def _ends(body: list[ast.stmt], chain: _Chain, left: _Chain = ()) -> Iterator[tuple[ast.stmt, _Chain]]:
    """Each raise, assert and warning with its enclosing conditions. One that stands under none has instead those of the
    returns that were passed before it (``left``).
    """
    for statement in body:
        if isinstance(statement, ast.Assert):
            yield statement, (*chain, _Part("not", (statement.test,)))
        elif (isinstance(statement, ast.Raise) and statement.exc) or (
            isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call) and _called(statement.value)
        ):
            yield statement, chain or left
        elif isinstance(statement, ast.If):
            yield from _ends(statement.body, (*chain, _Part("if", (statement.test,))))
            yield from _ends(statement.orelse, (*chain, _Part("not", (statement.test,))))
            if isinstance(statement.body[-1], ast.Return | ast.Continue | ast.Break):
                left = (*left, _Part("not", (statement.test,)))
        elif isinstance(statement, ast.While):
            yield from _ends([*statement.body, *statement.orelse], (*chain, _Part("while", (statement.test,))))
        elif isinstance(statement, ast.For | ast.AsyncFor):
            part = _Part("for", (statement.target, statement.iter))
            yield from _ends([*statement.body, *statement.orelse], (*chain, part))
        elif isinstance(statement, ast.With | ast.AsyncWith):
            yield from _ends(statement.body, chain, left)
        elif isinstance(statement, ast.Try):
            yield from _ends([*statement.body, *statement.orelse, *statement.finalbody], chain, left)
            tried = tuple(one for one in statement.body if not hasattr(one, "body"))
            for handler in statement.handlers:
                caught = (handler.type,) if handler.type else ()
                yield from _ends(handler.body, (*chain, _Part("except", caught, tried)))
        elif isinstance(statement, ast.Match):
            for case in statement.cases:
                guard = (case.guard,) if case.guard else ()
                yield from _ends(case.body, (*chain, _Part("match", (statement.subject, case.pattern, *guard))))


def _called(call: ast.Call) -> str:
    """``warn`` or ``raise`` for a call that warns, or that ends as argparse's ``parser.error`` does."""
    name = last_name(call.func)
    if isinstance(call.func, ast.Attribute) and _WARNING.match(name):
        return "warn"
    if name in ("warn", "deprecate", "warning_once"):
        return "warn"
    if isinstance(call.func, ast.Attribute) and name == "error" and "parser" in dotted(call.func.value):
        return "raise"
    return ""


def _what(statement: ast.stmt) -> tuple[str, str, str]:
    """Kind, exception and message of a raise, an assert or a call."""
    if isinstance(statement, ast.Assert):
        return "assert", "AssertionError", _message(statement.msg)
    if isinstance(statement, ast.Raise):
        exception = statement.exc
        if isinstance(exception, ast.Call):
            return "raise", dotted(exception.func), _message(*exception.args[:1])
        return "raise", dotted(exception), ""
    assert isinstance(statement, ast.Expr)
    assert isinstance(statement.value, ast.Call)
    kind = _called(statement.value)
    return kind, "SystemExit" if kind == "raise" else "", _message(*statement.value.args)


def _message(*nodes: ast.expr | None) -> str:
    """A message for a person, as the source writes it."""
    parts = []
    for node in nodes:
        if isinstance(node, ast.Constant):
            parts.append(str(node.value))
        elif node is not None:
            parts.append(ast.unparse(node))
    return " ".join(" | ".join(parts).split())
