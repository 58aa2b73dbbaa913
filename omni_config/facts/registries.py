"""What exists by name: attention backends, cache backends, quantization methods, tables by model. Enums and tables."""

from __future__ import annotations

import ast
import re
from typing import Any

from omni_config.facts.constants import Constants, Unknown
from omni_config.facts.engines import Engine
from omni_config.facts.syntax import last_name, text
from omni_config.facts.wheel import Wheel

_TOPICS = (
    ("attention", re.compile(r"attn|attention|sparse|flash", re.IGNORECASE)),
    ("cache", re.compile(r"cache|coefficient|teacache|taylor|calibrator", re.IGNORECASE)),
    ("quantization", re.compile(r"quant|gemm|fp8|nunchaku", re.IGNORECASE)),
    ("parallelism", re.compile(r"parallel|ulysses|ring|mesh|hsdp", re.IGNORECASE)),
    ("offload", re.compile(r"offload|residen", re.IGNORECASE)),
    ("vae", re.compile(r"vae|tiling", re.IGNORECASE)),
    ("pipelines", re.compile(r"pipeline|model|registry|_stage|task|load_format|scheduler", re.IGNORECASE)),
)
_LONGEST = 6000


def registries(wheel: Wheel, engine: Engine, constants: Constants) -> dict[str, Any]:
    """Enums and tables of constants of the files that guard settings, by topic and name."""
    found: dict[str, Any] = {}
    for file in wheel.files:
        if not engine.is_guarded(file.path):
            continue
        for node in file.tree.body:
            entry: dict[str, Any] | None = None
            name = ""
            if isinstance(node, ast.ClassDef) and any("Enum" in last_name(base) for base in node.bases):
                name, entry = node.name, _enum(node, constants)
            elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
                name = last_name(node.targets[0] if isinstance(node, ast.Assign) else node.target)
                entry = (
                    _table(node.value, file.path, constants) if name.isupper() and name != "_DIFFUSION_MODELS" else None
                )
            topic = _topic(name, file.path)
            if entry and topic and len(str(entry)) < _LONGEST:
                key = f"{topic} {name}"
                if key in found:
                    key = f"{key}@{file.path}"
                found[key] = {**entry, "at": f"{file.path}:{node.lineno}"}
    return found


def _topic(name: str, path: str) -> str:
    for topic, pattern in _TOPICS:
        if pattern.search(name):
            return topic
    for topic, pattern in _TOPICS[:5]:
        if pattern.search(path.rpartition("/")[0].rpartition("/")[2]):
            return topic
    return ""


def _enum(node: ast.ClassDef, constants: Constants) -> dict[str, Any] | None:
    try:
        names = [name for name, _ in constants.enum(node.name)]
        values = constants.members(node.name)
        return {"names": names, "values": values} if names != values else {"values": values}
    except Unknown:
        return None


def _table(node: ast.expr, path: str, constants: Constants) -> dict[str, Any] | None:
    """A collection of names, or a table of names; of a value that is no constant only the name counts."""
    if isinstance(node, ast.Dict):
        result = {}
        for key, value in zip(node.keys, node.values, strict=True):
            try:
                name = str(constants.value(key, path))
            except Unknown:
                name = last_name(key)
            if name:
                try:
                    result[name] = constants.value(value, path)
                except Unknown:
                    result[name] = last_name(value) or None
        return {"values": result} if result else None
    if isinstance(node, ast.Call) and last_name(node.func) not in ("set", "frozenset", "tuple", "list"):
        return None
    try:
        found = constants.value(node, path)
    except Unknown:
        found = [one for item in getattr(node, "elts", ()) if (one := last_name(item) or text(item))]
    if isinstance(found, list) and found and all(isinstance(item, str | int | float) for item in found):
        return {"values": sorted(found, key=str) if isinstance(node, ast.Set | ast.Call) else found}
    return None
