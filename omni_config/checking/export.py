"""A config of ours in the words of another engine: a command, or a file. What the engine cannot do is refused."""

from __future__ import annotations

from typing import Any

from omni_config.checking.files import Checked, check_node, documented
from omni_config.engines import ENGINES
from omni_config.engines.formats.unwritten import Unwritten
from omni_config.findings import Finding
from omni_config.plan import EMBEDDED
from omni_config.reading.nodes import Node
from omni_config.resolving.resolver import Resolution
from omni_config.schema.overrides import with_engine
from omni_config.schema.settings import DEFAULTS, FIELDS, SWITCHES, Settings

#: Settings that are no business of an engine's command: the format itself, who runs it, where pictures go.
#: The last three describe the machine.
_OWN = {"version", "engine", "output", "memory", "gpu", "gpus_per_node"}


def export(checked: Checked, engine: str) -> tuple[str | None, list[Finding]]:
    """The command or file of an engine (a version may be named: ``vllm-omni==0.30``), and what there is to say of it.

    The text is None where a finding is an error.
    """
    assert checked.node is not None
    moved = with_engine(checked.node, engine)
    again = check_node(checked.source, moved)
    findings = list(again.findings)
    if again.exit_code or again.resolution is None:
        return None, findings
    said = Unwritten(_written(moved), again.resolution)
    text = ENGINES[again.resolution.engine.family].write(said)
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
