"""The document as flat settings: the leaf names of all sections, which rules speak of.

``document.py`` says what a document may hold. Building its pydantic models takes longer than a whole check, so their
validation is compiled once into a plain schema for pydantic-core, which yields dictionaries instead of models.
"""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omni_config.compiled_data import cached
from omni_config.schema.switch import switch

if TYPE_CHECKING:
    from omni_config.schema.document import Document

Settings = dict[str, Any]


def validate(document: Any) -> Settings:
    """The settings of a parsed document, with the defaults of all that it does not say.

    Raises:
        pydantic_core.ValidationError: a key is unknown or missing, or a value has the wrong type or range.
    """
    return _flat(_validator().validate_python(document))


def _flat(document: dict[str, Any]) -> Settings:
    result = dict(DEFAULTS)
    for name, value in document.items():
        if name in SWITCHES:
            result[name] = value is not None
        if isinstance(value, dict):
            for inner, leaf in value.items():
                if inner in SWITCHES:
                    result[inner] = leaf is not None
                    result.update(leaf or {})
                else:
                    result[inner] = leaf
        elif name not in SWITCHES:
            result[name] = value
    return result


@cache
def _validator() -> Any:
    return _core().SchemaValidator(_live(_COMPILED["schema"]))


def _core() -> Any:
    """pydantic-core without the types of its schemas, which take a seventh of a check to import and are for authors of
    schemas. Whoever imports all of it later gets this part of it; where it is laid out otherwise, all is imported.
    """
    name = "pydantic_core._pydantic_core"
    if "pydantic_core" not in sys.modules and name not in sys.modules:
        from importlib.machinery import PathFinder
        from importlib.util import module_from_spec

        package = PathFinder.find_spec("pydantic_core")
        inner = PathFinder.find_spec(name, package.submodule_search_locations) if package else None
        if inner is not None and inner.loader is not None:
            module = sys.modules[name] = module_from_spec(inner)
            try:
                inner.loader.exec_module(module)
                return module
            except ImportError:
                del sys.modules[name]
    import pydantic_core

    return pydantic_core


def _live(node: Any) -> Any:
    """The compiled schema with its functions in place."""
    if isinstance(node, list):
        return [_live(item) for item in node]
    if not isinstance(node, dict):
        return node
    if node.get("type") == "switch":
        inner = {"type": "nullable", "schema": _live(node["schema"])}
        return {"type": "function-before", "function": {"type": "no-info", "function": switch}, "schema": inner}
    return {key: _live(value) for key, value in node.items()}


def _compile() -> dict[str, Any]:
    from omni_config.schema.document import Document

    Document.model_rebuild()
    fields: dict[str, list[str]] = {}
    defaults: Settings = {}
    switches: list[str] = []
    definitions: dict[str, Any] = {}

    def plain(node: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
        kind = node["type"]
        if kind == "definitions":
            definitions.update({item["ref"]: item for item in node["definitions"]})
            return plain(node["schema"], path)
        if kind == "definition-ref":
            return plain(definitions[node["schema_ref"]], path)
        if kind == "model":
            members = node["schema"]["fields"].items()
            return {
                "type": "typed-dict",
                "extra_behavior": "forbid",
                "fields": {name: member(item["schema"], (*path, name)) for name, item in members},
            }
        if kind == "function-before":  # the one function that documents use
            switches.append(path[-1])
            return {"type": "switch", "schema": plain(node["schema"]["schema"], path)}
        inner = ("metadata", "ref", "schema", "items_schema", "choices")
        kept = {key: value for key, value in node.items() if key not in inner}
        if kind in ("int", "float", "str", "bool"):  # what the models' configuration says of all of them
            kept |= {"strict": True} | ({"allow_inf_nan": False} if kind == "float" else {})
        if "schema" in node:
            kept["schema"] = plain(node["schema"], path)
        if "choices" in node:
            kept["choices"] = [plain(item, ("",)) for item in node["choices"]]
        if "items_schema" in node:
            kept["items_schema"] = [plain(item, ("",)) for item in node["items_schema"]]
        return kept

    def member(node: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
        required = node["type"] != "default"
        inner = node if required else node["schema"]
        schema = plain(inner, path)
        if not path[0] and not required:
            schema = {"type": "default", "schema": schema, "default": node["default"]}
        if schema["type"] != "typed-dict" and path[0]:  # a section is no setting, nor is what a list holds
            fields[path[-1]] = list(path)
            defaults[path[-1]] = False if schema["type"] == "switch" else node.get("default")
        return {"type": "typed-dict-field", "required": required, "schema": schema}

    schema = plain(Document.__pydantic_core_schema__, ())  # type: ignore[arg-type]
    order = [name for name in fields if name not in switches]
    return {
        "schema": schema,
        "fields": {name: fields[name] for name in [*order, *switches]},
        "defaults": defaults,
        "switches": switches,
    }


_COMPILED = cached("document", [Path(__file__), Path(__file__).with_name("document.py")], _compile)

#: Path in the document of each setting, by its leaf name.
FIELDS: dict[str, tuple[str, ...]] = {name: tuple(path) for name, path in _COMPILED["fields"].items()}

#: Value of each setting that a document does not say.
DEFAULTS: Settings = {
    name: tuple(value) if isinstance(value, list) else value for name, value in _COMPILED["defaults"].items()
}

#: Features that are sections: a switch is a bool among the settings, and its parameters stand beside it.
SWITCHES: tuple[str, ...] = tuple(_COMPILED["switches"])


#: Names of a switch's parameters.
PARAMETERS: dict[str, tuple[str, ...]] = {
    name: tuple(inner for inner, path in FIELDS.items() if path[:-1] == FIELDS[name]) for name in SWITCHES
}


def keys_of(path: tuple[str | int, ...]) -> list[str]:
    """The keys that the mapping at a path of the document may hold; numbers in the path are places in lists."""
    node = _COMPILED["schema"]
    for part in (*path, None):
        while "fields" not in node and ("schema" in node or "items_schema" in node):
            node = node["schema"] if "schema" in node else node["items_schema"][0]
        fields = node.get("fields", {})
        if part is None or (isinstance(part, str) and part not in fields):
            break
        node = fields[part]["schema"] if isinstance(part, str) else node
    return list(fields)


def settings_of(document: Document) -> Settings:
    """The settings of a document that is at hand as a model."""
    return validate(document.model_dump(exclude_none=True, exclude_unset=True))


def tree_of(settings: Settings) -> dict[str, Any]:
    """The document that says these settings, as plain values: the inverse of ``validate``."""
    tree: dict[str, Any] = {}
    for name, path in FIELDS.items():
        if any(part in SWITCHES and not settings[part] for part in path[:-1]):
            continue
        *sections, leaf = path
        place = tree
        for section in sections:
            place = place.setdefault(section, {})
        if name not in SWITCHES:
            place[leaf] = settings[name]
        elif settings[name]:
            place.setdefault(leaf, {})
    return tree
