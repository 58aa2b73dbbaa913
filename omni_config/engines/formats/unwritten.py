"""What a writer has not written yet: the settings of a config, until each has found its flag or key."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from omni_config.engines.facts import facts_of
from omni_config.resolving.resolver import Resolution
from omni_config.schema.settings import Settings


@dataclass
class Unwritten:
    """The settings that a config says. A writer takes what it has words for; what is left is refused."""

    settings: Settings
    resolution: Resolution
    own_parser: bool = True  # whether the engine's own parser reads the flags, rather than that of an example script

    def take(self, name: str) -> Any:
        """The value of a setting, which is then written; None where the config does not say it."""
        return self.settings.pop(name, None)

    def flags(self, names: Mapping[str, str]) -> list[list[str]]:
        """Settings by their flags: a switch alone, anything else with its value. Several values stay unwritten."""
        result = []
        for name, flag in names.items():
            several = isinstance(self.settings.get(name), tuple | list)
            value = self.take(name) if self.has(flag) and not several else None
            if value is not None and value is not False:
                result.append([flag] if value is True else [flag, str(value)])
        return result

    def has(self, flag: str) -> bool:
        """Whether the parser of this version has a flag, as far as that is known."""
        facts = facts_of(self.resolution.engine.id) if self.own_parser else None
        return facts is None or not facts.closed or facts.flag(flag) is not None

    @property
    def world_size(self) -> int:
        """Ranks of the deployment."""
        return int(self.resolution.target.quantities(self.resolution.settings)["world_size"])


def command_line(groups: list[list[str]]) -> str:
    """A command on several lines, each flag with its value on its own."""
    return " \\\n  ".join(shlex.join(group) for group in groups) + "\n"


def guidance(unwritten: Unwritten, true_cfg: str) -> list[list[str]]:
    """The scale of guidance by the name that the model's pipeline has for it."""
    guidance = unwritten.resolution.card.guidance
    groups = []
    # A scale that the pipeline has no argument for stays, and is refused: it would be taken for another one.
    both = guidance is not None and guidance.argument == guidance.distilled_argument
    if not both and (scale := unwritten.take("cfg_scale")) is not None:
        own = guidance is not None and guidance.argument == "guidance_scale"
        groups.append(["--guidance-scale" if own else true_cfg, str(scale)])
    if guidance and guidance.distilled_argument and (distilled := unwritten.take("guidance_scale")) is not None:
        groups.append(["--guidance-scale", str(distilled)])
    return groups


def lora(unwritten: Unwritten, *, scale: bool) -> list[list[str]]:
    """One adapter; several, or a scale where the engine takes none, stay with the config and are refused."""
    adapters = unwritten.settings.get("lora") or []
    if len(adapters) != 1 or not unwritten.has("--lora-path") or (not scale and adapters[0].get("scale", 1.0) != 1.0):
        return []
    (adapter,) = unwritten.take("lora")
    words = [["--lora-path", adapter["path"]]]
    return words + ([["--lora-scale", str(adapter["scale"])]] if "scale" in adapter and scale else [])
