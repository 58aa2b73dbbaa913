"""The engines whose commands and files are read and written: the one list of them.

All else about an engine is in its folder: ``card.yaml`` (what each version can do), ``rules.yaml`` (rules of it only),
``read.py`` and ``write.py`` (its commands and files, into and out of our settings), ``words.py`` (what they call each),
``examples.yaml`` (those that its documentation shows), ``effective.py`` (what it chooses by itself), ``upgrade.yaml``
(new spellings, and what its changed defaults do).
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omni_config.engines.facts import Facts
    from omni_config.engines.formats.draft import Draft
    from omni_config.engines.formats.python import Script
    from omni_config.engines.formats.shell import Command
    from omni_config.engines.formats.text import File
    from omni_config.engines.formats.unwritten import Unwritten
    from omni_config.engines.formats.way import Way
    from omni_config.reading.nodes import YamlNode


@dataclass(frozen=True)
class Engine:
    """An engine: its folder, and the ``words`` one of which every command or file of it has.

    ``packages`` are the names of its package and images, by which a file says its version; without them its own name.

    ``read.py`` has ``from_command(command, file)`` for an engine with ``commands``, and ``from_yaml(node, file)`` for
    one with ``files``, and ``from_python(script)`` for one with ``scripts``; ``write.py`` has ``write(unwritten)`` for
    one that is ``exported`` to; ``effective.py`` has ``decide(draft, facts)`` for one that ``decides`` by itself. They
    are imported when they are needed.
    """

    folder: str
    words: tuple[str, ...]
    commands: bool = True
    files: bool = True
    packages: tuple[str, ...] = ()
    scripts: bool = True
    exported: bool = True
    decides: bool = False
    server: bool = True
    """Whether its configs have a section ``server``; others are for one where they say nothing to generate."""

    def from_command(self, command: Command, file: File) -> Draft | None:
        """The deployment that a command starts; None where it does not start this engine."""
        draft: Draft | None = import_module(f"{__name__}.{self.folder}.read").from_command(command, file)
        return draft

    def from_yaml(self, node: YamlNode, file: File) -> list[Draft]:
        """The deployments in a YAML document; empty where it is none of this engine's."""
        drafts: list[Draft] = import_module(f"{__name__}.{self.folder}.read").from_yaml(node, file)
        return drafts

    def from_python(self, script: Script) -> list[Draft]:
        """The deployments of a Python script; empty where it has none of this engine's."""
        drafts: list[Draft] = import_module(f"{__name__}.{self.folder}.read").from_python(script)
        return drafts

    def decide(self, draft: Draft, facts: Facts) -> None:
        """Add to a deployment what the engine chooses where nothing is said."""
        import_module(f"{__name__}.{self.folder}.effective").decide(draft, facts)

    def write(self, unwritten: Unwritten) -> str:
        """The command or file of a config."""
        text: str = import_module(f"{__name__}.{self.folder}.write").write(unwritten)
        return text

    def ways(self, draft: Draft) -> list[Way]:
        """How a file of its kind says our settings; of several ways, the engine's own name first."""
        return list(import_module(f"{__name__}.{self.folder}.words").ways(draft))


ENGINES = {
    "vllm-omni": Engine(
        "vllm_omni",
        words=("vllm", "omni", "usp", "stage_id", "text_to_", "image_to_", "image_edit"),
        decides=True,
    ),
    "sglang": Engine("sglang", words=("sglang", "model_path"), decides=True, server=False),
    "xdit": Engine("xdit", words=("xdit", "xfuser", "_example.py"), files=False, packages=("xfuser",), decides=True),
    "tensorrt-llm": Engine(
        "tensorrt_llm",
        words=("trtllm-serve", "_config:", "teacache:", "parallel:"),
        packages=("tensorrt-llm/release", "tensorrt-llm", "tensorrt_llm"),
        scripts=False,
    ),
    "cache-dit": Engine("cache_dit", words=("cache_config", "parallelism_config", "quantize_config", "cache_dit")),
    "diffusers": Engine("diffusers", words=("diffusers",), commands=False, files=False, exported=False),
}
