"""A document that does not fit the schema: where each fault stands, and what was probably meant."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from omni_config.findings import Finding, spoken
from omni_config.reading.nodes import YamlNode, decode, parse
from omni_config.schema.settings import FIELDS, Settings, keys_of, validate


def validated(node: YamlNode) -> tuple[Settings | None, list[Finding]]:
    """The settings of a document, or None and what is wrong with it."""
    if not isinstance(node.value, dict):
        return None, [Finding("OMNI905", "a config is a mapping of keys to values", span=node.span)]
    try:
        return validate(node.value), []
    except ValueError as error:
        found: Any = error  # pydantic_core.ValidationError, of a package that a clean document does without
        errors = [item for item in found.errors(include_url=False, include_input=False) if _is_meant(item, node)]
        places = {item["loc"][:-1] for item in errors}  # a list without what is wrong in it would be too short
        return None, [_schema_finding(item, node) for item in errors if item["loc"] not in places]


def _is_meant(error: Mapping[str, Any], node: YamlNode) -> bool:
    """Whether an error of a value that may be text or a list is of the one that it is."""
    form = next((place for place, part in enumerate(error["loc"]) if _is_form(error, part)), None)
    if form is None:
        return True
    found = node.find(error["loc"][:form])
    return found is not None and isinstance(found.value, list) == (error["loc"][form] != "str")


def _is_form(error: Mapping[str, Any], part: object) -> bool:
    """Whether a part of the place of an error is pydantic's name for one of several types."""
    return str(part).startswith("tuple[") or (part == "str" and error["type"] == "string_type")


def _schema_finding(error: Mapping[str, Any], node: YamlNode) -> Finding:
    path = tuple(part for part in error["loc"] if not (str(part).startswith("function-") or _is_form(error, part)))
    place, depth = node, 0
    for part in path:
        if part not in place.children:
            break
        place, depth = place.children[part], depth + 1
    dotted = ".".join(map(str, path))
    if error["type"] == "extra_forbidden":
        return _unknown_key(path, place)
    if error["type"] == "missing":
        return Finding("OMNI906", f"{dotted} is missing", next_step=f"add {dotted}", span=place.key_span or place.span)
    return Finding("OMNI905", f"{dotted}: {_reason(error, place)}", fields=(dotted,), span=place.span)


_TYPES = {
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "model_type": "must be a mapping of keys to values",
    "model_attributes_type": "must be a mapping of keys to values",
    "dict_type": "must be a mapping of keys to values",
    "tuple_type": "must be a list",
}


def _reason(error: Mapping[str, Any], place: YamlNode) -> str:
    kind, value = error["type"], place.value
    if kind in _TYPES:
        reason = _TYPES[kind]
        if isinstance(value, str) and place.plain is None and kind in ("int_type", "float_type", "bool_type"):
            return f"{reason}, not text: remove the quotes"
        if kind == "string_type" and place.plain is not None:
            return f"{reason}; YAML reads {place.plain or 'an empty value'} as {spoken(value)}: quote it"
        if isinstance(value, int | float | str | bool | None):
            return f"{reason}, not {spoken(value)}"
        return f"{reason}, not a {'list' if isinstance(value, list) else 'mapping'}"
    message = str(error["msg"]).removeprefix("Value error, ").replace("Input should", "must")
    message = message.replace("Tuple should have", "must have").replace(" after validation", "")
    return message[0].lower() + message[1:]


def _unknown_key(path: tuple[Any, ...], place: YamlNode) -> Finding:
    *section, key = path
    near = key_suggestion(path)
    message = f"unknown key '{spoken(key)}'" + (f" in {'.'.join(map(str, section))}" if section else "")
    if near:
        next_step = f"did you mean '{near}'?"
    elif str(key) in FIELDS:
        next_step = f"it belongs in {'.'.join(FIELDS[str(key)][:-1]) or 'the top level'}"
    elif str(key) in (other := instead()):
        next_step = f"write {other[str(key)]}"
    else:
        import difflib

        nearest = difflib.get_close_matches(str(key), FIELDS, 1, 0.8)
        belongs = ".".join(FIELDS[nearest[0]]) if nearest else ""
        next_step = f"did you mean '{belongs}'?" if belongs else f"known here: {', '.join(keys_of(path[:-1]))}"
    return Finding(
        "OMNI904", message, next_step=next_step, fields=(".".join(map(str, path)),), span=place.key_span or place.span
    )


@cache
def instead() -> dict[str, str]:
    """What to write instead of keys that are retired, or that are other engines'."""
    path = Path(__file__).parents[1] / "schema" / "instead.yaml"
    return dict(parse(decode(path.name, path.read_bytes()))[0].value)


def key_suggestion(path: tuple[Any, ...]) -> str | None:
    """The key that an unknown one was probably meant to be, among those of its section."""
    import difflib

    return next(iter(difflib.get_close_matches(str(path[-1]), keys_of(path[:-1]), 1, 0.6)), None)
