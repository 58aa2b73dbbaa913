"""Classes of a wheel by name, what they inherit, and the marks of capabilities that they and their files carry."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from omni_config.facts.constants import Constants, Unknown
from omni_config.facts.syntax import last_name, walk
from omni_config.facts.wheel import File, Wheel

#: Attributes of a class that say what can be done with it.
_ATTRIBUTE = re.compile(
    r"^(_(sp|cp|tp|offload)_plan|_[fh]sdp_shard_conditions|_layerwise_offload_blocks_attrs?|_repeated_blocks|"
    r"_cache_dit_adapter_config|_supported_attention_backends|_compile_conditions|_dit_modules|_?supports_\w+|"
    r"enable_(cpu|layerwise)_offload\w*|layerwise_offload_\w+|default_num_inference_steps)$"
)
#: Base classes and names in a file that say the same.
_BASE = re.compile(
    r"(CFGParallel|TeaCache|Spectrum|Cachable|CachedTransformer|CacheMixin|LayerwiseOffload|DMD2|Lora|LoRA|StepExecution|"
    r"Supports[A-Z]|DistributedVae|ParallelTiled)\w*"
)
_LINEAR = re.compile(
    r"^(QKV|Merged|MergedQKV)?(Column|Row|Packed)?ParallelLinear$|^(Column|Row|QKV|MergedColumn)ParallelLinear$"
)
_VAE = re.compile(r"^Distributed\w*(Autoencoder|VAE|Vae|AutoEncoder)\w*$")


@dataclass(frozen=True)
class Class:
    """A class with its file."""

    file: File
    node: ast.ClassDef

    @property
    def at(self) -> str:
        """File and line."""
        return f"{self.file.path}:{self.node.lineno}"


class Classes:
    """The classes of a wheel. A name that several files define is first looked up where it is asked from."""

    def __init__(self, wheel: Wheel, constants: Constants) -> None:
        self.constants = constants
        self.by_name: dict[str, list[Class]] = defaultdict(list)
        for file in wheel.files:
            for node in file.tree.body:
                if isinstance(node, ast.ClassDef):
                    self.by_name[node.name].append(Class(file, node))

    def find(self, name: str, near: str) -> Class | None:
        """The class of this name whose path shares most with ``near``."""
        found = self.by_name.get(name, [])
        return max(found, key=lambda one: _shared(one.file.path, near), default=None)

    def line(self, start: Class) -> Iterator[Class]:
        """The class and its ancestors in the wheel."""
        waiting, seen = [start], set()
        while waiting:
            one = waiting.pop(0)
            if one.at in seen:
                continue
            seen.add(one.at)
            yield one
            bases = (self.find(last_name(base), one.file.path) for base in one.node.bases)
            waiting.extend(base for base in bases if base is not None)

    def attribute(self, start: Class, name: str) -> tuple[ast.expr, Class] | None:
        """The value that a class or the first of its ancestors binds to a name: where it does so twice, the last."""
        for one in self.line(start):
            for statement in reversed(one.node.body):
                if isinstance(statement, ast.Assign) and any(last_name(t) == name for t in statement.targets):
                    return statement.value, one
                if isinstance(statement, ast.AnnAssign) and last_name(statement.target) == name and statement.value:
                    return statement.value, one
        return None

    def markers(self, start: Class) -> dict[str, Any]:
        """The marks of a pipeline or a model: of its own classes, of those that it imports, and of their files."""
        found: dict[str, Any] = {}
        line = list(self.line(start))
        used = [one for member in line for one in self._imported(member.file)]
        for one in line:
            for base in one.node.bases:
                if _BASE.search(last_name(base)):
                    found.setdefault(f"base {last_name(base)}", f"{one.file.path}:{base.lineno}")
        for one in [*line, *used]:
            for statement in one.node.body:
                name = _assigned(statement)
                if name and _ATTRIBUTE.match(name):
                    self._mark(found, one, statement, name)
            for base in one.node.bases if one in used else ():
                if _BASE.search(last_name(base)):
                    found.setdefault(f"{one.node.name} base {last_name(base)}", f"{one.file.path}:{base.lineno}")
        for path, file in sorted({one.file.path: one.file for one in [*line, *used]}.items()):
            for pattern, label in ((_LINEAR, "parallel linear"), (_VAE, "distributed VAE")):
                if any(pattern.match(name) for name in file.names) and (place := _first(file, pattern)):
                    found.setdefault(f"{label} {place[0]}", f"{path}:{place[1]}")
        return found

    def _mark(self, found: dict[str, Any], one: Class, statement: ast.stmt, name: str) -> None:
        value = getattr(statement, "value", None)
        place = f"{one.file.path}:{statement.lineno}"
        key = f"{one.node.name}.{name}"
        try:
            known = self.constants.value(value, one.file.path)
            if known in ([], {}):
                return  # a base class that leaves it to others
        except Unknown:
            known = None
        short = isinstance(known, bool | int | str) or (isinstance(known, list) and len(str(known)) < 200)
        found.setdefault(key, {"value": known, "at": place} if short else place)

    def _imported(self, file: File) -> list[Class]:
        """Models that a file imports from its own package or a package of models, in the order of the source."""
        folder = file.path.rpartition("/")[0]
        result = []
        for node in walk(file.tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                module = node.module.replace(".", "/")
                for alias in node.names:
                    one = self.find(alias.name, module)
                    near = one is not None and ("/models/" in one.file.path or one.file.path.startswith(folder))
                    if one is not None and near and (module.rpartition("/")[2] in one.file.path or node.level):
                        result.append(one)
        return result


def _shared(path: str, near: str) -> int:
    count = 0
    for one, other in zip(path.split("/"), near.split("/"), strict=False):
        if one.removesuffix(".py") != other.removesuffix(".py"):
            break
        count += 1
    return count


def _assigned(statement: ast.stmt) -> str:
    if isinstance(statement, ast.Assign):
        return last_name(statement.targets[0])
    if isinstance(statement, ast.AnnAssign) and statement.value is not None:
        return last_name(statement.target)
    return ""


def _first(file: File, pattern: re.Pattern[str]) -> tuple[str, int] | None:
    for node in walk(file.tree):
        if isinstance(node, ast.Name | ast.Attribute) and pattern.match(last_name(node)):
            return last_name(node), node.lineno
    return None
