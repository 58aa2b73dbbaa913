"""The effective configuration: every setting of a deployment as its engine runs it, and where that comes from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from omni_config.checking.document import UNNAMED, CheckResult
from omni_config.findings import Decision, Finding, Mark, Span
from omni_config.reading.nodes import YamlNode
from omni_config.resolving.resolver import Resolution
from omni_config.rules.quantities import THEIRS, UNKNOWN
from omni_config.schema.settings import DEFAULTS, FIELDS, SWITCHES

#: Sections and settings that say nothing of what runs.
_ASIDE = {"version", "engine", "output", "server", "given_by", "given_to_others", "used_gpus"}
#: Words of an effect by which an engine goes on without what it was asked for.
_WITHOUT = ("ignores", "drops", "switches", "goes on", "has no", "keeps")


def effective(checked: CheckResult) -> list[Decision]:
    """What runs, setting by setting: first what is said, then what the engine chooses, then the defaults.

    Empty where the document could not be resolved.
    """
    if checked.resolution is None or checked.document is None:
        return []
    rows = [*_settings(checked, checked.resolution), *_options(checked)]
    order: dict[Mark, int] = {"default": 2, "inferred": 1, "switched on": 1}
    return sorted(rows, key=lambda row: order.get(row.mark, 0))


def _settings(checked: CheckResult, resolution: Resolution) -> Iterator[Decision]:
    """Our settings: as they are said, as rules change them, and as the engine or the model chooses them."""
    assert checked.document is not None
    assert checked.node is not None
    chosen = {decision.setting: decision for decision in checked.document.decisions}
    changed = {name: finding for finding in resolution.findings for name, _ in finding.changes}
    refused = {name: item for item in reversed(resolution.findings) for name in item.fields if item.severity == "error"}
    for name, path in FIELDS.items():
        if path[0] in _ASIDE or (name == "model" and resolution.settings[name] == UNNAMED.id):
            continue
        value = resolution.settings[name]
        node, decision, finding = checked.node.find(path), chosen.pop(name, None), changed.get(name)
        if finding is not None and value != (node.value if node is not None and name not in SWITCHES else None):
            said = node is not None and decision is None
            yield _of_rule(name, value, _mark(DEFAULTS[name] if not said else _value(node), value, said), finding, node)
        elif decision is not None:
            yield decision
        elif node is not None:
            yield _said(
                name, _value(node) if name in SWITCHES else value, node.key_span or node.span, refused.get(name)
            )
        elif name == "cfg_scale" and "guidance_scale" in chosen:
            continue  # of which the engine has its own default
        elif value != DEFAULTS[name] and value is not None and name in {**resolution.card.defaults, "dtype": 0}:
            yield Decision(name, value, "default", "the model's card")
    yield from chosen.values()


def _value(node: Any) -> Any:
    return True if isinstance(node.value, dict) else node.value


def _said(name: str, value: Any, span: Span, refused: Finding | None) -> Decision:
    if refused is None:
        return Decision(name, value, "said", span=span)
    without = any(word in refused.message for word in _WITHOUT)
    return Decision(name, value, "dropped" if without else "refused", refused.code, refused.message, span)


def _mark(before: Any, value: Any, said: bool) -> Mark:
    """What became of a value that a rule has changed."""
    if value in (False, None) and said:
        return "dropped"
    if isinstance(value, bool):
        return "switched on" if value else "inferred"
    if said and isinstance(before, int | float) and isinstance(value, int | float) and value < before:
        return "lowered"
    return "inferred"


def _of_rule(name: str, value: Any, mark: Mark, finding: Finding, node: Any) -> Decision:
    span = (node.key_span or node.span) if node is not None else finding.span
    return Decision(name, value, mark, finding.code, finding.message, span)


def _options(checked: CheckResult) -> Iterator[Decision]:
    """The engine's own settings, which the deployment says in its words; those that are ours are told as ours."""
    assert checked.document is not None
    assert checked.node is not None
    taken = {_spot(node) for path in FIELDS.values() if (node := checked.node.find(path)) is not None}
    about = {name: item for item in reversed(checked.findings) for name in item.fields}
    for name, node in checked.document.options.items():
        if name in _ASIDE:
            continue
        if name.endswith("_count") or _spot(node) in taken:
            continue
        item = about.get(THEIRS + name)
        value = "known only to a run" if node.value is UNKNOWN else node.value
        if item is None:
            yield Decision(name, value, "said", span=node.span)
        else:
            mark: Mark = "refused" if item.severity == "error" else "said"
            yield Decision(name, value, mark, item.code, item.message, node.span)


def _spot(node: YamlNode) -> tuple[int, int]:
    """Where something stands."""
    span = node.key_span or node.span
    return span.line, span.column
