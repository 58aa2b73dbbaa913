"""A first config of a model on some GPUs, with comments: what ``omni init`` writes."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from itertools import islice
from math import prod
from typing import Any

from omni_config.checking.edit import written
from omni_config.mesh import DEGREES
from omni_config.output.described import described
from omni_config.resolving.resolver import resolve_settings
from omni_config.resolving.search import valid
from omni_config.resolving.target import Target
from omni_config.schema.settings import DEFAULTS, FIELDS, Settings

HEAD = "# yaml-language-server: $schema=https://github.com/omni-config/omni-config/raw/main/docs/schema.json"
MOST_SHAPES = 6
#: Features that say how ranks are used, of which the shapes are alternatives, and those that need a file.
_LEFT_OUT = {"ulysses", "ring", "cfg_parallel", "tensor_parallel", "lora"}
#: What is said, whatever the model.
_ALWAYS = ("version", "model", "engine", "prompt")


def first_config(said: Settings, target: Target, gpus: int) -> str | None:
    """The text of a config that checks clean, with what else is possible there in comments; None where no way to use
    so many GPUs is without an error. ``said`` are settings with the names of model and engine.
    """
    start = _start(said, target)
    shapes = sorted(valid(start, target, gpus), key=lambda shape: _order(shape, target))
    if not shapes:
        return None
    chosen, others = shapes[0], shapes[1 : MOST_SHAPES + 1]
    possible = {
        name: value
        for feature in target.features.values()
        if feature.name not in _LEFT_OUT and _fits(chosen, feature.switch_on, target)
        for name, value in feature.switch_on.items()
    }
    said = {name: value for name, value in chosen.items() if name in _ALWAYS or value != DEFAULTS[name]}
    lines = [HEAD, "# Written by `omni init`. What stands in comments is possible here, too, one at a time."]
    for section in dict.fromkeys(path[0] for path in FIELDS.values()):
        lines += _section(section, said, possible)
        if section == "parallel" and others:
            lines += ["  # Other ways to use the GPUs:", *(f"  #   {_shape(shape)}" for shape in others)]
    return "\n".join(lines) + "\n"


def numbers_of_gpus(said: Settings, target: Target, near: int) -> list[int]:
    """Up to three numbers of GPUs that can be used, the nearest to one that cannot; smallest first."""
    start = _start(said, target)
    tried = sorted(range(1, 2 * near + 1), key=lambda gpus: (abs(gpus - near), gpus))
    return sorted(islice((gpus for gpus in tried if next(valid(start, target, gpus), None)), 3))


def _start(said: Settings, target: Target) -> Settings:
    asked = {"prompt": "a mountain landscape"}
    if target.card.task.startswith("image_to_"):
        asked["image"] = "input.png"
    plain = said | asked
    guided = plain | {"negative_prompt": ""}  # some models have no guidance without one
    return min(plain, guided, key=lambda start: len(resolve_settings(start, target).findings))


def _section(section: str, said: Settings, possible: Settings) -> Iterator[str]:
    """The lines of a section, or of a key at the top; a section in which nothing is said is a comment itself."""
    here = {name: path for name, path in FIELDS.items() if path[0] == section and len(path) <= 2}
    kept = {name: path for name, path in here.items() if name in said}
    if not kept and not any(name in possible for name in here):
        return
    if FIELDS.get(section) == (section,):
        if section in kept:
            yield from _key((section,), said[section], "", "")
        return
    yield f"{section}:" if kept else f"# {section}:"
    for name, path in here.items():
        if name in kept:
            yield from _key(path, said[name], "  ", "")
        elif name in possible:
            yield from _key(path, possible[name], "  ", "# ")


def _key(path: tuple[str, ...], value: Any, indent: str, mark: str) -> Iterator[str]:
    about = str(described()[path].get("description", "")) if path != ("version",) else ""
    yield from textwrap.wrap(about, 118, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")
    yield f"{indent}{mark}{path[-1]}: {value if path[-1] in ('model', 'engine') else written(value)}"


def _order(shape: Settings, target: Target) -> tuple[int, ...]:
    """What least is said of first; of those CFG, which sends the least, a rank a branch; then Ulysses, ring, tensor."""
    found = resolve_settings(shape, target)
    remarks = {one.code for one in found.findings if one.severity != "advice"}
    size, branches = shape["cfg_parallel_size"], target.quantities(found.settings)["cfg_branches"] or 1
    return len(remarks), int(size > branches), shape["tensor_parallel_size"], shape["ring_degree"], -size


def _fits(chosen: Settings, switch_on: Settings, target: Target) -> bool:
    """Whether settings can be added without a finding, and without other ranks."""
    if any(name not in FIELDS or len(FIELDS[name]) > 2 for name in switch_on):
        return False
    before, after = resolve_settings(chosen, target), resolve_settings(chosen | switch_on, target)
    known = {one.code for one in before.findings}
    return all(one.severity == "advice" or one.code in known for one in after.findings) and not any(
        dict(one.changes).keys() & switch_on.keys() for one in after.findings
    )


def _shape(shape: Settings) -> str:
    degrees = {name: shape[name] for name in reversed(DEGREES) if shape[name] > 1}
    assert prod(degrees.values()) == shape["gpus"]
    return ", ".join(f"{name}: {size}" for name, size in degrees.items())
