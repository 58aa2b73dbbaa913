"""The catalog: features, rules, model cards and engine cards, read from the YAML beside this file.

Reading and validating it takes longer than a check, so the result is kept compiled (``compiled_data.py``).
"""

from __future__ import annotations

import json
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from omni_config.cards import Claim, Disagreement, EngineCard, Feature, Guidance, ModelCard
from omni_config.compiled_data import cached
from omni_config.rules.kinds import KINDS
from omni_config.rules.rule import Rule

FOLDER = Path(__file__).parent
T = TypeVar("T")


class Catalog:
    """All that is known, by name. Cards are built when they are asked for."""

    def __init__(self, data: dict[str, Any]) -> None:
        self._data = data
        self._models: dict[str, ModelCard] = {}
        self._engines: dict[str, EngineCard] = {}
        self.features: dict[str, Feature] = {name: _build(Feature, item) for name, item in data["features"].items()}
        self.rules: tuple[Rule, ...] = tuple(_rule(item) for item in data["rules"])
        self.by_code = {rule.code: rule for rule in self.rules}

    @property
    def model_ids(self) -> list[str]:
        """Every id that a config may name in ``model``."""
        return list(self._data["models"])

    @property
    def engine_ids(self) -> list[str]:
        """Every id that a config may name in ``engine``."""
        return list(self._data["engines"])

    @property
    def disagreements(self) -> tuple[Disagreement, ...]:
        """Where the sources of the catalog contradict each other."""
        return tuple(_build(Disagreement, item) for item in self._data["disagreements"])

    def model(self, name: str) -> ModelCard | None:
        """The card of a model id, or None."""
        if name not in self._models and name in self._data["models"]:
            item = dict(self._data["models"][name])
            item["guidance"] = item.get("guidance") and _build(Guidance, item["guidance"])
            item["claims"] = _claims(item["claims"])
            self._models[name] = _build(ModelCard, item)
        return self._models.get(name)

    def engine(self, name: str) -> EngineCard | None:
        """The card of an engine id, or None."""
        if name not in self._engines and name in self._data["engines"]:
            item = dict(self._data["engines"][name])
            item["pipelines"] = _claims(item.get("pipelines", {}))
            self._engines[name] = _build(EngineCard, item)
        return self._engines.get(name)


@cache
def catalog() -> Catalog:
    """The catalog of this installation."""
    rules = FOLDER.parent / "rules"
    code = [FOLDER.parent / "cards.py", rules / "rule.py", rules / "kinds.py", Path(__file__)]
    files = sources()
    return Catalog(cached("catalog", [*code, *files], lambda: read(files)))


def sources() -> list[Path]:
    """The YAML files that the catalog is read from."""
    root = FOLDER.parent
    found = [*FOLDER.rglob("*.yaml"), *(root / "rules").glob("*.yaml"), *(root / "engines").glob("*/card*.yaml")]
    return sorted(found)


def read(files: list[Path]) -> dict[str, Any]:
    """The YAML files as one validated mapping.

    Raises:
        ValueError: a file is not valid, names an unknown key, or repeats a code or an id.
    """
    from omni_config.reading.nodes import Unreadable, decode, parse

    data: dict[str, Any] = {"features": {}, "rules": [], "models": {}, "engines": {}, "disagreements": []}
    for path in files:
        try:
            content = parse(decode(path.name, path.read_bytes()))[0].value
        except Unreadable as error:
            raise ValueError(f"{error.finding.span}: {error}") from None
        if path.parent.name == "models":
            _add(data["models"], _cards_of(content), path)
        elif path.name.startswith("card"):
            _add(data["engines"], {content["id"]: content}, path)
        elif path.name == "features.yaml":
            _add(data["features"], {item["name"]: item for item in content}, path)
        elif path.parent.name == "rules":
            data["rules"] += content
        elif path.name == "disagreements.yaml":
            data["disagreements"] += content
        else:
            raise ValueError(f"{path.name}: the catalog has no place for it")
    _validate([(Feature, item) for item in data["features"].values()])
    _validate([(ModelCard, item) for item in data["models"].values()])
    _validate([(EngineCard, item) for item in data["engines"].values()])
    _validate([(Disagreement, item) for item in data["disagreements"]])
    rules_of(data["rules"])
    return data


def _cards_of(family: dict[str, Any]) -> dict[str, Any]:
    """A family's file as one card a model: an entry under ``models`` overrides and extends what the family says."""
    shared = {key: value for key, value in family.items() if key != "models"}
    cards = {}
    for entry in family["models"]:
        merged = shared | entry
        for key in ("defaults", "dims", "claims"):
            merged[key] = shared.get(key, {}) | entry.get(key, {})
        cards[entry["id"]] = merged
    return cards


def _add(target: dict[str, Any], items: dict[str, Any], path: Path) -> None:
    for name, item in items.items():
        if name in target:
            raise ValueError(f"{path.name}: {name} is there twice")
        target[name] = item


def rules_of(items: list[dict[str, Any]]) -> tuple[Rule, ...]:
    """Rules from their YAML form, validated.

    Raises:
        ValueError: a kind or key is unknown, a key is missing or of the wrong type, or a code is there twice.
    """
    for item in items:
        if item.get("kind") not in KINDS:
            raise ValueError(f"{item.get('code')}: kind must be one of {', '.join(KINDS)}")
    _validate([(KINDS[item["kind"]], _without_kind(item)) for item in items])
    codes = [item["code"] for item in items]
    if len(set(codes)) < len(codes):
        raise ValueError("a code is there twice")
    return tuple(_rule(item) for item in items)


def _validate(items: list[tuple[type[Any], dict[str, Any]]]) -> None:
    from pydantic import TypeAdapter, ValidationError

    adapters: dict[type[Any], TypeAdapter[Any]] = {}
    for kind, item in items:
        name = item.get("code") or item.get("id") or item.get("name") or item.get("topic")
        unknown = set(item) - {entry.name for entry in fields(kind)}
        if unknown:
            raise ValueError(f"{name}: unknown key {sorted(unknown)[0]}")
        if kind not in adapters:
            adapters[kind] = TypeAdapter(kind)
        try:
            adapters[kind].validate_json(json.dumps(item), strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise ValueError(f"{name}: {'.'.join(map(str, first['loc']))}: {first['msg'].lower()}") from None


def _rule(item: dict[str, Any]) -> Rule:
    return _build(KINDS[item["kind"]], _without_kind(item))


def _without_kind(item: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in item.items() if key != "kind"}


def _claims(items: dict[str, Any]) -> dict[str, Claim]:
    return {name: _build(Claim, item) for name, item in items.items()}


def _build(kind: type[T], item: dict[str, Any]) -> T:
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in item.items()})
