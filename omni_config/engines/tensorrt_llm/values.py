"""Values of VisualGen's keys, held against the types, choices and ranges that its published schema states."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_NUMBERS = {"int": "a whole number", "float": "a number"}
_ON = ("true", "yes", "on", "1", "t", "y")
_SWITCHES = (*_ON, "false", "no", "off", "0", "f", "n")


def refused(value: Any, field: Mapping[str, Any]) -> str:
    """What the field takes, in words, where it does not take the value; empty where it does.

    Text that reads as a number, and 0 and 1 for a switch, are taken, as pydantic takes them.
    """
    kind = str(field["type"])
    if value is None:
        return "" if field["default"] is None else _words(field)
    if kind in _NUMBERS:
        return "" if _is_number(value, field) else _words(field)
    if kind == "bool":
        return "" if isinstance(value, bool) or str(value).lower() in _SWITCHES else _words(field)
    if kind == "str":
        fits = isinstance(value, str) and value in field.get("choices", (value,))
        return "" if fits else _words(field)
    if kind.startswith("list"):
        fits = isinstance(value, list) and len(value) == field.get("items", len(value))
        if fits and (inner := kind[5:-1]) in _NUMBERS:
            fits = all(_is_number(item, {**field, "type": inner}) for item in value)
        return "" if fits else _words(field)
    return "" if isinstance(value, dict) else _words(field)


def taken(value: Any, field: Mapping[str, Any]) -> Any:
    """The value as the class keeps it, where the field takes it: a number of its kind, or true and false."""
    kind = str(field["type"])
    if kind == "bool" and value is not None:
        return str(value).lower() in _ON
    if kind in _NUMBERS and value is not None:
        number = float(value)
        return int(number) if kind == "int" else number
    return value


def _is_number(value: Any, field: Mapping[str, Any]) -> bool:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return False
    return (
        (field["type"] == "float" or number.is_integer())
        and number >= field.get("minimum", number)
        and number <= field.get("maximum", number)
        and ("exclusive_minimum" not in field or number > field["exclusive_minimum"])
    )


def _words(field: Mapping[str, Any]) -> str:
    kind = str(field["type"])
    if "choices" in field:
        return f"one of {', '.join(field['choices'])}"
    if kind.startswith("list"):
        count = f"{field['items']} " if "items" in field else ""
        least = f" of at least {field['minimum']}" if "minimum" in field else ""
        return f"a list of {count}values{least}"
    if kind not in _NUMBERS:
        return {"bool": "true or false", "str": "text"}.get(kind, "a mapping")
    bounds = [
        f"{words} {field[name]}"
        for name, words in (("exclusive_minimum", "above"), ("minimum", "from"), ("maximum", "to"))
        if name in field
    ]
    return " ".join([_NUMBERS[kind], *bounds])
