"""A config of ours in the words of another engine: a command, or a file. What the engine cannot do is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from omni_config.checking.document import UNNAMED, CheckResult, documented, unknown_model
from omni_config.engines import ENGINES
from omni_config.engines.formats.unwritten import Unwritten
from omni_config.findings import Finding
from omni_config.plan import EMBEDDED
from omni_config.reading.nodes import YamlNode
from omni_config.resolving.resolver import Resolution
from omni_config.schema.settings import DEFAULTS, FIELDS, SWITCHES, Settings

#: Settings that are no business of an engine's command: the format itself, who runs it, where images go.
#: The last four describe the machine.
_OWN = {"version", "engine", "output", "memory", "gpu", "machine", "gpus_per_node"}


def export(checked: CheckResult) -> tuple[str | None, list[Finding]]:
    """The command or file of the engine that a document was judged for, and what there is to say of it.

    The text is None where a finding is an error.
    """
    assert checked.node is not None
    findings = list(checked.findings)
    if checked.exit_code or checked.resolution is None:
        return None, findings
    if checked.resolution.card is UNNAMED:
        return None, [*findings, documented(unknown_model(checked.node.value["model"], checked.node))]
    text, left = _written_by(checked.resolution, checked.node)
    for name in left:
        place = checked.node.find(FIELDS[name])
        span = (place.key_span or place.span) if place else None
        message = f"{checked.resolution.engine.id} has no {'.'.join(FIELDS[name])} like this"
        findings.append(documented(Finding("OMNI503", message, span=span)))
    refused = [] if left else _refused(text, checked)
    return (None if left or refused else text), [*findings, *refused]


def _refused(text: str, checked: CheckResult) -> list[Finding]:
    """What the engine refuses of the text that was written for it, and not of the config: it may say more."""
    from omni_config.checking.files import check_bytes

    assert checked.resolution is not None
    assert checked.node is not None
    assume = {"engine": checked.resolution.engine.id, "model": checked.node.value["model"]}
    again = check_bytes("exported", text.encode(), assume=assume)
    place, accepted = checked.node.children["model"].span, {finding.code for finding in checked.ignored}
    return [
        replace(finding, span=place, related=())
        for result in again
        for finding in result.findings
        if finding.severity == "error" and finding.code not in accepted
    ]


def unwritten(checked: CheckResult) -> list[str]:
    """The settings that a document says and its engine has no words for, so that they would be dropped."""
    if checked.exit_code or checked.resolution is None or checked.node is None:
        return []
    engine = ENGINES.get(checked.resolution.engine.family)
    if checked.resolution.card is UNNAMED or engine is None or not engine.exported:
        return []
    return _written_by(checked.resolution, checked.node)[1]


def said(checked: CheckResult) -> Settings:
    """The settings that a document says, without defaults."""
    assert checked.node is not None
    return _written(checked.node)


def _written_by(resolution: Resolution, node: YamlNode) -> tuple[str, list[str]]:
    """The text that the engine's writer makes, and the settings that it has no words for."""
    said = Unwritten(_written(node), resolution)
    text = ENGINES[resolution.engine.family].write(said)
    left = [
        name
        for name, value in said.settings.items()
        if name not in _OWN and value != DEFAULTS[name] and not _is_default_dtype(name, value, resolution)
    ]
    if node.value["model"] in EMBEDDED:  # which only the built-in runtime has
        left.append("model")
    return text, left


def _is_default_dtype(name: str, value: Any, resolution: Resolution) -> bool:
    return name == "dtype" and value == resolution.card.dtype


def _written(node: YamlNode) -> Settings:
    found = {name: node.find(path) for name, path in FIELDS.items()}
    return {
        name: bool(place.value is not False) if name in SWITCHES else place.value
        for name, place in found.items()
        if place is not None
    }
