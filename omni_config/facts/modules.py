"""The modules of a wheel one by one, as its own imports lead to them: of a large package only what is asked for."""

from __future__ import annotations

import ast
import hashlib
import zipfile
from collections.abc import Iterator
from pathlib import Path

from omni_config.facts.syntax import last_name, walk
from omni_config.facts.wheel import File, WheelError, name_and_version, parse

Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef | ast.expr


class Modules:
    """A wheel whose files are parsed when a name in them is looked up.

    Raises:
        WheelError: The file is missing, is no wheel, or has no name and version.
    """

    def __init__(self, path: Path) -> None:
        try:
            self.sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
            self._archive = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile) as error:
            raise WheelError(f"{path}: not a wheel that can be read ({error})") from error
        self.name, self.version = name_and_version(self._archive)
        self._paths = {name for name in self._archive.namelist() if name.endswith(".py")}
        #: What was parsed, by path; None where a file cannot be.
        self.files: dict[str, File | None] = {}
        self._found: dict[tuple[str, str], tuple[File, Definition] | None] = {}

    def module(self, dotted: str) -> str:
        """The path of a module; an empty string where the wheel has none of that name."""
        base = dotted.replace(".", "/")
        return next((path for path in (f"{base}.py", f"{base}/__init__.py") if path in self._paths), "")

    def find(self, path: str, name: str) -> tuple[File, Definition] | None:
        """What a name of a file stands for, through its imports, and the file where that is."""
        if (path, name) not in self._found:
            self._found[path, name] = None  # imports that go in a circle end here
            self._found[path, name] = self._look_up(path, name)
        return self._found[path, name]

    def methods(self, name: str) -> Iterator[ast.FunctionDef]:
        """Each function of this name anywhere in the wheel."""
        sought = f"def {name}(".encode()
        for path in sorted(self._paths):
            if sought in self._archive.read(path) and (file := self._file(path)) is not None:
                yield from (n for n in walk(file.tree) if isinstance(n, ast.FunctionDef) and n.name == name)

    def _file(self, path: str) -> File | None:
        if path not in self.files:
            try:
                self.files[path] = parse(self._archive, self._archive.getinfo(path))
            except (SyntaxError, ValueError, RecursionError, MemoryError, zipfile.BadZipFile):
                self.files[path] = None
        return self.files[path]

    def _look_up(self, path: str, name: str) -> tuple[File, Definition] | None:
        file = self._file(path) if path in self._paths else None
        if file is None or name not in file.names:
            return None
        for statement in _at_run_time(file.tree.body):
            if isinstance(statement, ast.ClassDef | ast.FunctionDef) and statement.name == name:
                return file, statement
            targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
            if isinstance(statement, ast.Assign | ast.AnnAssign) and any(_is(target, name) for target in targets):
                return (file, statement.value) if statement.value is not None else None
            if type(statement).__name__ == "TypeAlias" and _is(getattr(statement, "name", None), name):
                return file, statement.value  # type: ignore[attr-defined]  # ``type X = ...`` of Python 3.12
        for node in walk(file.tree):
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    if (alias.asname or alias.name) == name and (
                        found := self.find(self._origin(file, node), alias.name)
                    ):
                        return found
        return None

    def _origin(self, file: File, node: ast.ImportFrom) -> str:
        if not node.level:
            return self.module(node.module or "")
        package = file.path.split("/")[: -node.level]
        return self.module(".".join([*package, *([node.module] if node.module else [])]))


def _is(target: ast.AST | None, name: str) -> bool:
    return isinstance(target, ast.Name) and target.id == name


def _at_run_time(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a module, also in conditions, without those that only a type checker sees."""
    for statement in body:
        yield statement
        if isinstance(statement, ast.If):
            if last_name(statement.test) != "TYPE_CHECKING":
                yield from _at_run_time(statement.body)
            yield from _at_run_time(statement.orelse)
        elif isinstance(statement, ast.Try):
            yield from _at_run_time(statement.body)
