"""A config of ours in the words of another engine: a command, or a file. What the engine cannot do is refused."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from omni_config.checker import Checked, check_node, documented
from omni_config.findings import Finding
from omni_config.overrides import with_engine
from omni_config.plan import EMBEDDED
from omni_config.resolver import Resolution
from omni_config.settings import DEFAULTS, FIELDS, SWITCHES, Settings
from omni_config.source import Node

ENGINES = ("vllm-omni", "sglang", "xdit", "cache-dit")

#: Settings that are no business of an engine's command: the format itself, who runs it, where pictures go.
#: The last three describe the machine.
_OWN = {"version", "engine", "output", "memory", "gpu", "gpus_per_node"}


@dataclass
class Said:
    """The settings that a config says. A writer takes what it has words for; what is left is refused."""

    settings: Settings
    resolution: Resolution

    def take(self, name: str) -> Any:
        """The value of a setting, which is then written; None where the config does not say it."""
        return self.settings.pop(name, None)

    def flags(self, names: Mapping[str, str]) -> list[list[str]]:
        """Settings by their flags: a switch alone, anything else with its value."""
        result = []
        for name, flag in names.items():
            value = self.take(name)
            if value is not None and value is not False:
                result.append([flag] if value is True else [flag, str(value)])
        return result

    @property
    def world_size(self) -> int:
        """Ranks of the deployment."""
        return self.resolution.accepted_plan().mesh.world_size


def export(checked: Checked, engine: str) -> tuple[str | None, list[Finding]]:
    """The command or file of an engine (a version may be named: ``vllm-omni==0.30``), and what there is to say of it.

    The text is None where a finding is an error.
    """
    from omni_config.exporters import cache_dit, sglang, vllm_omni, xdit

    assert checked.node is not None
    moved = with_engine(checked.node, engine)
    again = check_node(checked.source, moved)
    findings = list(again.findings)
    if again.exit_code or again.resolution is None:
        return None, findings
    said = Said(_written(moved), again.resolution)
    writers = {"vllm-omni": vllm_omni, "sglang": sglang, "xdit": xdit, "cache-dit": cache_dit}
    text = writers[engine.partition("==")[0]].write(said)
    left = [
        name
        for name, value in said.settings.items()
        if name not in _OWN and value != DEFAULTS[name] and not _is_default_dtype(name, value, again.resolution)
    ]
    if moved.value["model"] in EMBEDDED:  # which only the built-in runtime has
        left.append("model")
    for name in left:
        place = moved.find(FIELDS[name])
        span = (place.key_span or place.span) if place else None
        findings.append(
            documented(Finding("OMNI503", f"{engine} has no {'.'.join(FIELDS[name])} like this", span=span))
        )
    return (None if any(finding.severity == "error" for finding in findings) else text), findings


def _is_default_dtype(name: str, value: Any, resolution: Resolution) -> bool:
    return name == "dtype" and value == resolution.card.dtype


def _written(node: Node) -> Settings:
    found = {name: node.find(path) for name, path in FIELDS.items()}
    return {
        name: bool(place.value is not False) if name in SWITCHES else place.value
        for name, place in found.items()
        if place is not None
    }


def command_line(groups: list[list[str]]) -> str:
    """A command on several lines, each flag with its value on its own."""
    return " \\\n  ".join(shlex.join(group) for group in groups) + "\n"
