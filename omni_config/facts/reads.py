"""Which settings an expression reads: fields of configurations, flags, request parameters, environment variables."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from omni_config.facts.names import CONTAINERS, Names
from omni_config.facts.syntax import Function, dotted, first, last_name, text, walk

#: What holds settings, by the last part of its name. A common name counts only when it is read from one of these.
_HOLDER = re.compile(
    r"(^|_)(od_config|config|cfg|conf|args|params|settings|options|opts|kwargs|overrides|parallel|spec|projection|"
    r"caps|capabilities)$"
)
_PLAIN_CALLS = {
    "int",
    "float",
    "str",
    "bool",
    "len",
    "max",
    "min",
    "abs",
    "tuple",
    "list",
    "set",
    "sorted",
    "any",
    "all",
}
_PLAIN_CALLS |= {"sum", "dict", "frozenset", "math.prod"}
_PLAIN_METHODS = {"lower", "upper", "strip", "split", "replace", "casefold", "get", "pop", "copy", "items", "values"}
_PLAIN_METHODS |= {"keys", "removeprefix"}
_GETTERS = {"get", "pop", "setdefault", "getattr", "hasattr"}
#: Every public field of one of these is a setting, also a property that is declared nowhere as a field.
_CONFIGURATION = {
    "od_config",
    "server_args",
    "parallel_config",
    "parallelism_config",
    "engine_config",
    "runtime_config",
}
_CONFIGURATION |= {"diffusion_config"}
#: Degrees that code asks of the process groups, and not of the configuration: the same settings by another name.
_DEGREE = re.compile(r"^get_(\w+_(world_size|parallel_size|degree))$")
#: What a model's class says that it can do.
_CAPABILITY = re.compile(
    r"^(_(sp|cp|tp)_plan|_[fh]sdp_shard_conditions|_layerwise_offload_blocks_attrs?|_repeated_blocks|supports_\w+)$"
)
_PIPELINE = re.compile(r"(^|_)(pipeline|pipe|transformer|dit|model)$")
_ENVIRONMENT = re.compile(r"(^|\.)(os\.environ|environ|envs|ENV|\w*_envs)$")


class Reader:
    """What expressions of one function read. Local names that are bound to a setting stand for it."""

    def __init__(
        self, names: Names, outer: Reader | None, function: Function, *, owner: bool, shapes: bool, declares: bool
    ) -> None:
        """``owner``: the function's class holds settings. ``shapes``: in this file the bare names of a request are
        sizes of tensors. ``declares``: the function stands where settings are declared: its parameters are settings.
        """
        self.known = names.known
        self.strong = names.strong
        self.plain = names.strong - names.request if shapes else names.strong
        self.parameters: set[str] = set(outer.parameters if outer else ()) | {a.arg for a in _parameters(function)}
        if declares:
            self.plain |= self.parameters - {"self", "cls"}
        self.bound: dict[str, frozenset[str]] = dict(outer.bound) if outer else {}
        self.owner_has_settings = owner
        bindings = [b for node in _own_nodes(function) for b in _bindings(node)]
        for _ in range(3):  # a name bound to a name bound to a setting
            before = dict(self.bound)
            for name, value in bindings:
                if _is_plain(value) and (found := self.reads(value)):
                    self.bound[name] = self.bound.get(name, frozenset()) | found
            if self.bound == before:
                break

    def reads(self, node: ast.AST, *, follow: bool = True) -> frozenset[str]:
        """The settings that an expression reads; without ``follow`` a local name stands for nothing."""
        return frozenset(name for part in walk(node) for name in self._part(part, follow))

    def _part(self, node: ast.AST, follow: bool) -> Iterator[str]:
        if isinstance(node, ast.Attribute):
            if self._is_setting(node.attr, node.value) or self._is_configured(node):
                yield node.attr
            elif node.attr == "__name__" and _is_class_of_pipeline(node.value):
                yield "model_class_name"
        elif isinstance(node, ast.Name):
            if node.id in self.parameters and node.id in self.plain:
                yield node.id
            if follow:
                yield from self.bound.get(node.id, ())
        elif isinstance(node, ast.Call):
            yield from self._call(node)
        elif isinstance(node, ast.Subscript):
            name = text(node.slice)
            if name and (_is_environment(node.value) or name in self.strong or self._is_common(name, node.value)):
                yield name
        elif isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In | ast.NotIn):
            name = text(node.left)
            holder = node.comparators[0]
            if name and (_is_environment(holder) or self._is_common(name, holder)):
                yield name

    def _call(self, node: ast.Call) -> Iterator[str]:
        function = last_name(node.func)
        if function == "getenv" and node.args and (name := text(node.args[0])):
            yield name
        if degree := _DEGREE.match(function):
            yield degree[1]
        configured = (one for one in node.args if not isinstance(one, ast.Call) and last_name(one) in _CONFIGURATION)
        if function not in _GETTERS | {"isinstance", "type"} and any(configured):
            yield function
        if function not in _GETTERS:
            return
        free = isinstance(node.func, ast.Name)  # getattr(holder, name), not holder.get(name)
        arguments = node.args[1:2] if free else node.args[:1]
        holder = node.func.value if isinstance(node.func, ast.Attribute) else first(node.args)
        for argument in arguments:
            name = text(argument)
            if name and (
                (holder is not None and _is_environment(holder))
                or name in self.strong
                or self._is_common(name, holder)
                or _CAPABILITY.match(name)
                or last_name(holder) in _CONFIGURATION
            ):
                yield name

    def _is_setting(self, name: str, holder: ast.AST) -> bool:
        if name.isupper() and _is_environment(holder):
            return True
        return name in self.strong or self._is_common(name, holder) or _CAPABILITY.match(name) is not None

    def _is_configured(self, node: ast.Attribute) -> bool:
        return last_name(node.value) in _CONFIGURATION and node.attr not in CONTAINERS and node.attr[0] != "_"

    def _is_common(self, name: str, holder: ast.AST | None) -> bool:
        return name in self.known and self._is_holder(holder)

    def _is_holder(self, node: ast.AST | None) -> bool:
        name = last_name(node)
        return bool(_HOLDER.search(name)) or (name == "self" and self.owner_has_settings)


def _is_environment(node: ast.AST) -> bool:
    return _ENVIRONMENT.search(dotted(node)) is not None


def _parameters(function: Function) -> Iterator[ast.arg]:
    arguments = function.args
    yield from (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)


def _own_nodes(function: Function) -> Iterator[ast.AST]:
    """Nodes of a function, without those of functions and classes inside it."""
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            waiting.extend(ast.iter_child_nodes(node))


def _bindings(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    if isinstance(node, ast.Assign):
        for target in node.targets:
            if isinstance(target, ast.Name):
                yield target.id, node.value
            elif isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                for one, value in zip(target.elts, node.value.elts, strict=False):
                    if isinstance(one, ast.Name):
                        yield one.id, value
    elif isinstance(node, ast.AnnAssign | ast.NamedExpr) and isinstance(node.target, ast.Name) and node.value:
        yield node.target.id, node.value
    elif isinstance(node, ast.For):
        for name in walk(node.target):
            if isinstance(name, ast.Name):
                yield name.id, node.iter


def _is_class_of_pipeline(node: ast.AST) -> bool:
    """``x.__class__`` or ``type(x)`` of something called a pipeline or a model."""
    if isinstance(node, ast.Attribute) and node.attr == "__class__":
        return bool(_PIPELINE.search(last_name(node.value)))
    return (
        isinstance(node, ast.Call)
        and last_name(node.func) == "type"
        and bool(node.args and _PIPELINE.search(last_name(node.args[0])))
    )


def _is_plain(value: ast.expr) -> bool:
    """Whether the value is a setting or arithmetic on settings, and not what a model computes from it."""
    for node in walk(value):
        if isinstance(node, ast.Call):
            name = dotted(node.func)
            plain = name in _PLAIN_CALLS or last_name(node.func) in _PLAIN_METHODS | {"getattr", "hasattr", "getenv"}
            if not plain and not (isinstance(node.func, ast.Name) and len(node.args) <= 2 and not node.keywords):
                return False
        elif isinstance(node, ast.Lambda | ast.ListComp | ast.GeneratorExp | ast.DictComp | ast.Await):
            return False
    return True
