"""What engine cards claim of models: taken over from the card that one extends, or declared by an engine's classes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def inherited(cards: dict[str, Any], name: str, below: tuple[str, ...] = ()) -> dict[str, Any]:
    """An engine card with what it takes over from the one that it extends."""
    card = dict(cards[name])
    base = card.pop("extends", None)
    if base is None:
        return card
    if base not in cards or base in (name, *below):
        raise ValueError(f"{name}: extends {base}, which is no other card")
    taken = inherited(cards, base, (name, *below))
    taken.pop("aliases", None)
    pipelines = taken.get("pipelines", {}) | {
        pipeline: claim and _changed_claim(taken.get("pipelines", {}).get(pipeline, {}), claim)
        for pipeline, claim in card.get("pipelines", {}).items()
    }
    effects = taken.get("effects", {}) | card.get("effects", {})
    merged = taken | card
    for key, value in (("pipelines", pipelines), ("effects", effects)):
        merged[key] = {entry: said for entry, said in value.items() if said is not None}
    return merged


def declared(capabilities: dict[str, Any], facts: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """What the classes of an engine declare of each model that they are registered for, by the names of capabilities;
    of step caches, those that their settings list. A feature may have a capability for each of its values.
    """
    unsaid = {
        field.partition(".")[2]: entry.get("default")
        for field, entry in facts["fields"].items()
        if field.startswith("ModelCapabilities.")
    }
    for entry in facts["pipelines"].values():
        declared = unsaid | entry.get("capabilities", {})
        caches = entry.get("settings", {}).get("step_cache_config")
        listed = {*caches} if isinstance(caches, dict) and declared["supports_step_caching"] else set()
        named = {capability for capability, yes in declared.items() if yes} | listed
        claim: dict[str, Any] = {"source": entry["at"], "supported": [], "only": {}}
        for feature, capability in capabilities.items():
            by_value = capability if isinstance(capability, dict) else {None: capability}
            values = [value for value, name in by_value.items() if name in named]
            if len(values) == len(by_value):
                claim["supported"].append(feature)
            elif values:
                claim["only"][feature] = f"{feature} in {tuple(values)}"
        yield from ((name, claim) for name in entry["names"] if "/" in name)


def _changed_claim(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """A claim about a pipeline, changed: a feature that the new one names leaves its old place, all others stay."""
    lists = ("supported", "unsupported", "unverified")
    named = {*(feature for verdict in lists for feature in new.get(verdict, ())), *new.get("only", ())}
    merged = {**old, **new}
    for verdict in lists:
        merged[verdict] = [feature for feature in old.get(verdict, ()) if feature not in named] + new.get(verdict, [])
    for key in ("only", "effects"):
        kept = {feature: said for feature, said in old.get(key, {}).items() if feature not in named}
        merged[key] = kept | new.get(key, {})
    return merged
