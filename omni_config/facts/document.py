"""All facts of a wheel as one document, one line an entry, so that two versions can be compared by ``diff``."""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omni_config.facts.constants import Constants
from omni_config.facts.engines import Engine
from omni_config.facts.environment import environment
from omni_config.facts.fields import fields
from omni_config.facts.flags import by_hand, flags, flags_of, foreign_parsers, join, read_by_parser
from omni_config.facts.guards import guards
from omni_config.facts.modules import Modules
from omni_config.facts.pipelines import pipelines
from omni_config.facts.registries import registries
from omni_config.facts.wheel import Wheel, WheelError, read_wheel

Facts = dict[str, Any]


def compile_facts(engine: Engine, wheel_path: Path, version: str, others: Sequence[Path] = ()) -> Facts:
    """The facts of an engine's wheel. ``others`` are the wheels of packages whose flags its parser takes as well.

    Raises:
        WheelError: It cannot be read, or is another package or version.
    """
    collecting = gc.isenabled()
    gc.disable()  # millions of nodes that all live to the end; looking through them again and again takes minutes
    try:
        wheel = read_wheel(wheel_path, engine.roots, engine.without)
        if wheel.name.replace("_", "-").lower() != engine.distribution:
            raise WheelError(f"{wheel_path}: holds {wheel.name}, not {engine.distribution}")
        if _without_zeros(wheel.version) != _without_zeros(version):
            raise WheelError(f"{wheel_path}: is version {wheel.version}, not {version}")
        constants = Constants(wheel.files)
        classes, class_fields = fields(wheel, engine, constants)
        found = _flags(wheel, engine, constants, others)
        return {
            "name": engine.name,
            "version": short_version(wheel.version),
            "sha256": wheel.sha256,
            "unread": dict(wheel.unread),
            **found,
            "environment": environment(wheel, constants),
            "classes": classes,
            "fields": class_fields,
            "pipelines": pipelines(wheel, engine.name, constants),
            "registries": registries(wheel, engine, constants),
            "guards": {
                guard.id: {
                    "line": guard.line,
                    "kind": guard.kind,
                    **({"exception": guard.exception} if guard.kind == "raise" else {}),
                    "reads": list(guard.reads),
                }
                for guard in guards(wheel, engine)
            },
        }
    finally:
        if collecting:
            gc.enable()


def _flags(wheel: Wheel, engine: Engine, constants: Constants, others: Sequence[Path]) -> Facts:
    """The flags of an engine and of the packages whose wheels are at hand; what stays open is named with its places."""
    declared, open_places = flags(wheel, engine, constants)
    hand = by_hand(wheel, declared)
    foreign = foreign_parsers(wheel)
    packages = {}
    for path in others:
        modules = Modules(path)
        package = f"{modules.name}=={modules.version}"
        packages[package] = {"sha256": modules.sha256}
        for function in sorted(foreign):
            if function.partition(".")[0] == modules.name.replace("-", "_"):
                more, unknown = flags_of(modules, function)
                places = {name: [{**entry, "of": package} for entry in entries] for name, entries in more.items()}
                declared, hand = join(declared, places), hand | read_by_parser(modules, function)
                if unknown:
                    foreign[function] = unknown
                else:
                    del foreign[function]
    if open_places:
        foreign[f"{wheel.name}, named at run time"] = open_places
    return {"others": packages, "flags": declared, "flags_by_hand": hand, "flags_of_others": foreign}


def short_version(version: str) -> str:
    """A version as it is written here: ``0.30.0`` is 0.30, and a candidate such as ``0.32.0rc1`` stays as it is."""
    return _without_zeros(version) if version.replace(".", "").isdigit() else version


def _without_zeros(version: str) -> str:
    release = re.match(r"\d+(\.\d+)*", version)
    if release is None:
        return version
    parts = release[0].split(".")
    while len(parts) > 2 and parts[-1] == "0":
        parts.pop()
    return ".".join(parts) + version[release.end() :]


def to_json(facts: Facts) -> str:
    """The document: sorted, one line an entry."""
    lines = ["{"]
    for index, (section, value) in enumerate(facts.items()):
        comma = "," if index < len(facts) - 1 else ""
        if isinstance(value, dict) and value:
            lines.append(f" {json.dumps(section)}: {{")
            entries = [f"  {json.dumps(key)}: {_line(value[key])}" for key in sorted(value)]
            lines.append(",\n".join(entries))
            lines.append(f" }}{comma}")
        else:
            lines.append(f" {json.dumps(section)}: {_line(value)}{comma}")
    return "\n".join([*lines, "}", ""])


def _line(value: object) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
