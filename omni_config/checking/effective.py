"""The effective configuration: every setting of a deployment as its engine runs it, and where that comes from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from omni_config.checking.document import UNNAMED, CheckResult
from omni_config.findings import Decision, Finding, Mark
from omni_config.reading.nodes import YamlNode
from omni_config.resolving.resolver import Resolution
from omni_config.rules.quantities import THEIRS, UNKNOWN
from omni_config.schema.settings import DEFAULTS, FIELDS, SWITCHES

#: Sections and settings that say nothing of what runs.
_ASIDE = {"version", "engine", "output", "server", "given_by", "given_to_others", "used_gpus"}
#: What a reader has found to have no effect: keys that are dropped, flags of language models.
_WITHOUT_EFFECT = ("OMNI608", "OMNI618")
#: In the names of rules about what an engine goes on without.
_GOES_ON = ("-drops-", "-ignores-", "-without-effect", "-cache-off")


def effective(checked: CheckResult) -> list[Decision]:
    """What runs, setting by setting: first what is said, then what the engine chooses, then the defaults.

    Empty where the document could not be resolved.
    """
    if checked.resolution is None or checked.document is None:
        return []
    rows = [*_settings(checked, checked.resolution), *_options(checked), *_without_effect(checked)]
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
            yield _said(name, _value(node) if name in SWITCHES else value, node, refused.get(name), resolution)
        elif name == "cfg_scale" and "guidance_scale" in chosen:
            continue  # of which the engine has its own default
        elif value != DEFAULTS[name] and value is not None and name in {**resolution.card.defaults, "dtype": 0}:
            yield Decision(name, value, "default", "the model's card")
    yield from chosen.values()


def _value(node: Any) -> Any:
    return True if isinstance(node.value, dict) else node.value


def _said(name: str, value: Any, node: YamlNode, refused: Finding | None, resolution: Resolution) -> Decision:
    span = node.key_span or node.span
    if refused is None:
        return Decision(name, value, "said", span=span)
    mark: Mark = "dropped" if refused.code == "OMNI503" and _goes_on(name, resolution) else "refused"
    return Decision(name, value, mark, refused.code, refused.message, span)


def _goes_on(name: str, resolution: Resolution) -> bool:
    """Whether the engine goes on without a setting that it lacks for the model, by the effects of its card."""
    features = (feature for feature in resolution.target.features.values() if name in feature.fields)
    effects = [resolution.engine.effect(feature.name, resolution.card) for feature in features]
    return any(effects) and not any("refuse" in effect for effect in effects)


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
            goes_on: Mark = "dropped" if any(part in item.name for part in _GOES_ON) else "said"
            mark: Mark = "refused" if item.severity == "error" else goes_on
            yield Decision(name, value, mark, item.code, item.message, node.span)


def _without_effect(checked: CheckResult) -> Iterator[Decision]:
    """What is said in words that the engine reads and does nothing with, by the word itself."""
    for finding in checked.findings:
        if finding.code in _WITHOUT_EFFECT and (span := finding.span) is not None:
            word = span.source.line(span.line)[span.column - 1 : span.end - 1]
            yield Decision(word, None, "dropped", finding.code, finding.message, span)


def _spot(node: YamlNode) -> tuple[int, int]:
    """Where something stands."""
    span = node.key_span or node.span
    return span.line, span.column
