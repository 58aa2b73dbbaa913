"""Which of the pipelines that an engine registers have a model card, and why the others have none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from omni_config.catalog.load import catalog
from omni_config.engines.facts import Facts

RELATIVE = "has the transformer of a pipeline that has a card"
NO_TRANSFORMER = "has no transformer: a U-Net, or a decoder or an upsampler alone"


@dataclass(frozen=True)
class Registered:
    """A pipeline of an engine. ``reason`` says why it has no card of its own; empty where it has one, or should."""

    name: str
    card: bool
    reason: str = ""

    @property
    def state(self) -> Literal["with card", "explained", "without card"]:
        """What the coverage counts it as."""
        return "with card" if self.card else "explained" if self.reason else "without card"


def registered(facts: Facts) -> list[Registered]:
    """The pipelines that a deployment may name. The facts of some engines hold their models and helpers beside them."""
    names = [name for name in facts.pipelines if name.partition(" ")[0] in ("pipeline", "BlockAdapterRegister", name)]
    with_card = {name for name in names if _has_card(name, facts)}
    known = {kind for name in with_card for kind in _transformers(facts.pipelines[name])}
    return [Registered(name, name in with_card, _reason(name, facts, known, with_card)) for name in names]


def _reason(name: str, facts: Facts, known: set[str], with_card: set[str]) -> str:
    if name in with_card:
        return ""
    kind, _, last = name.rpartition(" ")
    if said := _reasons().get(last):
        return said
    entry = facts.pipelines[name]
    if kind == "BlockAdapterRegister":  # an adapter is named for the beginning of the classes that it takes
        longest = (one.rpartition(" ")[2] for one in with_card)
        return RELATIVE if any(last.startswith(one) for one in longest) else ""
    if "components" not in entry:
        return ""
    transformers = _transformers(entry)
    if not transformers:
        return NO_TRANSFORMER
    return RELATIVE if transformers & known else ""


def _transformers(entry: dict[str, Any]) -> set[str]:
    return {kind for name, kind in entry.get("components", {}).items() if name.startswith("transformer")}


@cache
def _reasons() -> dict[str, str]:
    import yaml

    path = Path(__file__).with_name("no_model.yaml")
    groups = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {name: group["reason"] for group in groups for name in group["pipelines"]}


@cache
def _cards() -> tuple[set[str], set[str]]:
    """The pipeline classes of all cards, and the names of all models, whole and by their last part."""
    cards = [card for model in catalog().model_ids if (card := catalog().model(model)) is not None]
    models = {card.id for card in cards}
    return {card.pipeline for card in cards}, models | {model.rpartition("/")[2] for model in models}


def _has_card(name: str, facts: Facts) -> bool:
    """Whether a model card has its class; cache-dit registers the beginnings of such names, xDiT the models."""
    classes, models = _cards()
    kind, _, last = name.rpartition(" ")
    if kind == "BlockAdapterRegister":
        return any(one.startswith(last) for one in classes)
    return bool((classes | models).intersection([last, *_texts(facts.pipelines[name])]))


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)
