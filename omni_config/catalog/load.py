"""The catalog: features and model cards, read from the YAML beside this file, rules and engine cards from theirs.

Reading and validating it takes longer than a check, so the result is kept compiled (``compiled_data.py``).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import fields
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

from omni_config.cards import Claim, Disagreement, EngineCard, Feature, Guidance, ModelCard, Retired, TeaCacheFit
from omni_config.catalog import versions
from omni_config.catalog.claims import declared, inherited
from omni_config.compiled_data import TEXTS, cached
from omni_config.rules.kinds import KINDS, Refuses
from omni_config.rules.quantities import THEIRS
from omni_config.rules.rule import Rule

FOLDER = Path(__file__).parent
T = TypeVar("T")
_TEXTS = ("models", "engines")


class Catalog:
    """All that is known, by name. Cards and rules are built when they are asked for."""

    def __init__(self, data: dict[str, Any]) -> None:
        self._data = data
        self._models: dict[str, ModelCard] = {}
        self._engines: dict[str, EngineCard] = {}
        self._rules: dict[str, Rule] = {}
        self._rules_for: dict[str, tuple[Rule, ...]] = {}
        self.features: dict[str, Feature] = {name: _build(Feature, item) for name, item in data["features"].items()}
        #: What the first digit of a code stands for.
        self.areas: dict[str, str] = data["areas"]

    @cached_property
    def rules(self) -> tuple[Rule, ...]:
        """Every rule, in the order of their codes."""
        return tuple(self._rule(item) for item in self._data["rules"])

    @cached_property
    def by_code(self) -> dict[str, Rule]:
        """The same by their codes."""
        return {rule.code: rule for rule in self.rules}

    def _rule(self, item: dict[str, Any]) -> Rule:
        """The rule of this form; its cases are read when they are asked for."""
        code = item["code"]
        if code not in self._rules:
            if KINDS[item["kind"]] is Refuses:
                item = item | {"cases": partial(self._data[TEXTS].__getitem__, _text_of("cases", code))}
            self._rules[code] = _rule(item)
        return self._rules[code]

    @property
    def model_ids(self) -> list[str]:
        """Every id that a config may name in ``model``."""
        return list(self._data["models"])

    @property
    def model_aliases(self) -> dict[str, str]:
        """Other names of models, each with the id that has a card."""
        found: dict[str, str] = self._data["model_aliases"]
        return found

    @property
    def charted_ids(self) -> list[str]:
        """The models of the matrix where none is named: those of the guide's table and those that the runtime runs."""
        return list(self._data["charted"])

    @property
    def engine_ids(self) -> list[str]:
        """The id of every engine card; a config may name its aliases, too."""
        return list(self._data["engines"])

    @property
    def matrix_engines(self) -> list[str]:
        """Those of them whose cards tell models apart."""
        return [name for name in self.engine_ids if (card := self.engine(name)) and card.tells_models_apart]

    @property
    def engine_aliases(self) -> dict[str, list[str]]:
        """The other names of every engine card, by its id."""
        return _names(self._data)

    @property
    def retired(self) -> tuple[Retired, ...]:
        """Codes that are no rules any more."""
        return tuple(_build(Retired, item) for item in self._data["retired"])

    @property
    def disagreements(self) -> tuple[Disagreement, ...]:
        """Where the sources of the catalog contradict each other."""
        return tuple(_build(Disagreement, item) for item in self._data["disagreements"])

    def model(self, name: str) -> ModelCard | None:
        """The card of a model id, or None."""
        if name not in self._models and name in self._data["models"]:
            item = json.loads(self._data[TEXTS][_text_of("models", name)])
            item["guidance"] = item.get("guidance") and _build(Guidance, item["guidance"])
            item["teacache_fit"] = item.get("teacache_fit") and _build(TeaCacheFit, item["teacache_fit"])
            item["claims"] = _claims(item["claims"])
            self._models[name] = _build(ModelCard, item)
        return self._models.get(name)

    def model_of_pipeline(self, pipeline: str) -> ModelCard | None:
        """The first card of the hub with this pipeline class, or else of any place; or None."""
        return self.model(self._data["pipelines"].get(pipeline, ""))

    def engine(self, name: str) -> EngineCard | None:
        """The card of an engine: by its id, by an alias, or by its version written differently; or None.

        An engine without a version is the newest that is known, unless a card has that name.
        """
        known, aliases = self._data["engines"], self._data["aliases"]
        name = aliases.get(name, name)
        if name not in known:
            same = versions.same(name, [*known, *aliases])
            if same is None:
                return None
            name = aliases.get(same, same)
        if name not in self._engines:
            item = json.loads(self._data[TEXTS][_text_of("engines", name)])
            item["pipelines"] = _claims(item.get("pipelines", {}))
            self._engines[name] = _build(EngineCard, item)
        return self._engines[name]

    def rules_for(self, engine: EngineCard) -> tuple[Rule, ...]:
        """The rules that speak of an engine."""
        if engine.id not in self._rules_for:
            spoken = (item for item in self._data["rules"] if not item["engine_ids"] or engine.id in item["engine_ids"])
            self._rules_for[engine.id] = tuple(self._rule(item) for item in spoken)
        return self._rules_for[engine.id]

    def versions(self, family: str) -> list[str]:
        """The ids of an engine's versions, newest first; release candidates last."""
        return versions.newest_first(name for name in self.engine_ids if versions.family(name) == family)

    def nearest_engines(self, name: str) -> list[str]:
        """The ids of the nearest versions of an engine whose version has no card, the older one first."""
        return versions.neighbours(name, self.engine_ids)


@cache
def catalog() -> Catalog:
    """The catalog of this installation."""
    rules = FOLDER.parent / "rules"
    code = [
        FOLDER.parent / "cards.py",
        rules / "rule.py",
        rules / "kinds.py",
        FOLDER / "versions.py",
        FOLDER / "claims.py",
        Path(__file__),
    ]
    files = sources()
    return Catalog(cached("catalog", [*code, *files], lambda: read(files)))


def sources() -> list[Path]:
    """The YAML files that the catalog is read from."""
    root = FOLDER.parent
    engines = [path for name in ("card.yaml", "rules.yaml") for path in (root / "engines").glob(f"*/{name}")]
    facts = (root / "engines").glob("*/facts/*.json")  # the places of guards
    return sorted([*FOLDER.rglob("*.yaml"), *(root / "rules").glob("*.yaml"), *engines, *facts])


def read(files: list[Path]) -> dict[str, Any]:
    """The YAML files as one validated mapping.

    Raises:
        ValueError: a file is not valid, names an unknown key, or repeats a code or an id.
    """
    from omni_config.reading.nodes import Unreadable, decode, parse

    lists: dict[str, Any] = {"rules": [], "disagreements": [], "retired": []}
    data: dict[str, Any] = {"features": {}, "models": {}, "engines": {}, "areas": {}} | lists
    guards: dict[str, dict[str, str]] = {}
    same_model: list[list[str]] = []
    registered: dict[str, list[str]] = {}
    known_of: dict[str, dict[str, Any]] = {}
    for path in files:
        if path.suffix == ".json":
            known = json.loads(path.read_text(encoding="utf-8"))
            same_model += [entry["names"] for entry in known["pipelines"].values() if "names" in entry]
            engine = f"{path.parents[1].name.replace('_', '-')}=={path.stem}"
            registered[engine] = list(known["pipelines"])
            known_of[engine] = known
            for guard, fact in known["guards"].items():
                guards.setdefault(guard, {})[engine] = f"{guard.partition('::')[0]}:{fact['line']}"
            continue
        try:
            contents = [node.value for node in parse(decode(path.name, path.read_bytes()))]
        except Unreadable as error:
            raise ValueError(f"{error.finding.span}: {error}") from None
        content, folder = contents[0], path.parent.name
        if folder == "models":
            _add(data["models"], _cards_of(content), path)
        elif path.name == "card.yaml":
            _add(data["engines"], {item["id"]: item for item in contents}, path)
        elif path.name == "features.yaml":
            _add(data["features"], {item["name"]: item for item in content}, path)
        elif path.stem in ("disagreements", "retired"):
            data[path.stem] += content
        elif folder == "rules":
            digit, area = path.stem.split("_", 1)
            data["areas"][digit] = (area[0].upper() + area[1:]).replace("_", " ")
            data["rules"] += content
        elif path.name == "rules.yaml":
            data["rules"] += [{"engines": [folder.replace("_", "-")]} | item for item in content]
        else:
            raise ValueError(f"{path.name}: the catalog has no place for it")
    data["engines"] = {
        name: inherited(data["engines"], name) | {"registered": _registered(name, registered)}
        for name in data["engines"]
    }
    data["model_aliases"] = _model_aliases(data["models"], same_model)
    ours = {name.lower(): name for name in data["models"]} | data["model_aliases"]
    for name, card in data["engines"].items():
        if "capabilities" in card:
            claims = declared(card["capabilities"], known_of[name])
            card["pipelines"] = {ours.get(model) or ours.get(model.lower(), model): claim for model, claim in claims}
    data["aliases"] = _aliases(data["engines"])
    for kind, key in ((Feature, "features"), (ModelCard, "models"), (EngineCard, "engines")):
        _validate([(kind, item) for item in data[key].values()])
    _validate([(Disagreement, item) for item in data["disagreements"]])
    _validate([(Retired, item) for item in data["retired"]])
    data["rules"].sort(key=lambda item: str(item.get("code")))
    data["rules"] = [_placed(item, guards) for item in _resolved(data["rules"], _names(data))]
    # What has no place on the hub is small or embedded, and no example of its class.
    by_place = sorted(data["models"], key=lambda name: "/" not in name)
    data["pipelines"] = {data["models"][name]["pipeline"]: name for name in reversed(by_place)}
    runtime = data["engines"].get("native", {}).get("pipelines", {})
    data["charted"] = [name for name, card in data["models"].items() if card["claims"] or card["pipeline"] in runtime]
    # Texts, so that a check reads only the cards and the cases that it asks for.
    data[TEXTS] = {_text_of(part, name): json.dumps(card) for part in _TEXTS for name, card in data[part].items()}
    for part in _TEXTS:
        data[part] = dict.fromkeys(data[part], 0)
    for rule in data["rules"]:
        if "cases" in rule:
            data[TEXTS][_text_of("cases", rule["code"])] = rule.pop("cases")
    return data


def _registered(name: str, known: dict[str, list[str]]) -> list[str]:
    """The pipelines that a version registers; of an engine without one, such as its guide, those of all versions."""
    if "==" in name:
        return known.get(name, [])
    return list(dict.fromkeys(one for engine in known if versions.family(engine) == name for one in known[engine]))


def _text_of(part: str, name: str) -> str:
    return f"{part} {name}"


def _placed(rule: dict[str, Any], guards: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """A rule whose cases know, by engine version, where the source refuses them; the cases as text.

    Raises:
        ValueError: no version has a guard that a case names.
    """
    if "cases" not in rule:
        return rule
    for case in rule["cases"]:
        if unknown := [guard for guard in case.get("guards", ()) if guard not in guards]:
            raise ValueError(f"{rule['code']}: no version has the guard {unknown[0]}")
        case["places"] = {
            engine: place for guard in reversed(case.get("guards", ())) for engine, place in guards[guard].items()
        }
    spoken_of = [
        engine
        for engine in rule["engine_ids"]
        if any(engine in case["places"] or not case.get("guards") for case in rule["cases"])
    ]
    cases = json.dumps([(*_demands(case["when"]), json.dumps(case)) for case in rule["cases"]])
    return rule | {"cases": cases, "engine_ids": spoken_of}


def _demands(when: str) -> tuple[list[str], list[str]]:
    """What a condition asks for: the pipelines of which alone it is true, and the settings of the engine one of which
    must be said. Empty: of any, and none.
    """
    import ast

    def equals(node: ast.expr) -> tuple[str, list[Any]]:
        """The name and the values of ``name == 1`` and ``name in (1, 2)``."""
        if not isinstance(node, ast.Compare) or not isinstance(node.ops[0], ast.Eq | ast.In):
            return "", []
        value = node.comparators[0]
        constants = value.elts if isinstance(value, ast.Tuple) else [value]
        if isinstance(node.left, ast.Name) and all(isinstance(constant, ast.Constant) for constant in constants):
            return node.left.id, [constant.value for constant in constants if isinstance(constant, ast.Constant)]
        return "", []

    def of(node: ast.expr, pipelines: bool) -> list[str]:
        if isinstance(node, ast.BoolOp):
            each = [of(part, pipelines) for part in node.values]
            if isinstance(node.op, ast.And):
                return next(filter(None, each), [])
            return [name for names in each for name in names] if all(each) else []
        name, values = equals(node)
        if pipelines:
            return values if name == "pipeline_name" else []
        if isinstance(node, ast.Compare) and isinstance(node.left, ast.Name):
            constant = node.comparators[0]
            said = isinstance(node.ops[0], ast.IsNot) and isinstance(constant, ast.Constant) and constant.value is None
            ordered = isinstance(node.ops[0], ast.Lt | ast.LtE | ast.Gt | ast.GtE)
            name = node.left.id if said or ordered or (name and None not in values) else ""
        elif isinstance(node, ast.Name):
            name = node.id
        return [name] if name.startswith(THEIRS) else []

    tree = ast.parse(when.strip(), mode="eval").body
    return of(tree, True), of(tree, False)


def _names(data: dict[str, Any]) -> dict[str, list[str]]:
    """The aliases of every engine card."""
    return {name: [alias for alias, meant in data["aliases"].items() if meant == name] for name in data["engines"]}


def _aliases(cards: dict[str, Any]) -> dict[str, str]:
    """Other names of engine cards: those that they state, and of an engine without its version, the newest."""
    found = {alias: name for name, card in cards.items() for alias in card.get("aliases", ())}
    for name in versions.newest_first(cards):
        if versions.family(name) not in cards:
            found.setdefault(versions.family(name), name)
    return found


def _model_aliases(cards: dict[str, Any], same: Iterable[list[str]]) -> dict[str, str]:
    """Other names of model cards: those that they state, and those that an engine has for one of its models.

    Of the names that an engine has for one model, those that are no card stand for the first that is one.
    """
    found = {alias: name for name, card in cards.items() for alias in card.get("aliases", ())}
    for names in same:
        known = [name for name in names if name in cards]
        found = {name: known[0] for name in names if known and name not in cards} | found
    return found


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


def rules_of(items: list[dict[str, Any]], engines: Mapping[str, Iterable[str]]) -> tuple[Rule, ...]:
    """Rules from their YAML form, validated; ``engines`` are the ids that they may speak of, each with its aliases.

    Raises:
        ValueError: a kind, key or engine is unknown, a key is missing or of the wrong type, or a code is there twice.
    """
    return tuple(_rule(item) for item in _resolved(items, engines))


def _resolved(items: list[dict[str, Any]], engines: Mapping[str, Iterable[str]]) -> list[dict[str, Any]]:
    """Rules in their YAML form, validated, with the ids of the engines that they hold for."""
    for item in items:
        if item.get("kind") not in KINDS:
            raise ValueError(f"{item.get('code')}: kind must be one of {', '.join(KINDS)}")
        if "engine_ids" in item:
            raise ValueError(f"{item.get('code')}: unknown key engine_ids")
    _validate([(KINDS[item["kind"]], _without_kind(item)) for item in items])
    codes = [item["code"] for item in items]
    if len(set(codes)) < len(codes):
        raise ValueError("a code is there twice")
    result = []
    for item in items:
        try:
            meant = [name for stated in item.get("engines", ()) for name in versions.resolve(stated, engines)]
        except ValueError as error:
            raise ValueError(f"{item['code']}: {error}") from None
        result.append(item | {"engine_ids": list(dict.fromkeys(meant))})
    return result


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
