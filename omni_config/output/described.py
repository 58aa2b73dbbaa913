"""What each key of a config means, by its path."""

from __future__ import annotations

from functools import cache
from typing import Any

from omni_config.output.pages import schema


@cache
def described() -> dict[tuple[str, ...], dict[str, Any]]:
    """Every key of our format by its path, as the JSON Schema has it; sections have their keys under ``keys``."""
    whole = schema()
    found: dict[tuple[str, ...], dict[str, Any]] = {}

    def walk(node: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
        merged = dict(node)
        for part in (node, *node.get("anyOf", ())):
            if "$ref" in part:
                merged |= {k: v for k, v in whole["$defs"][part["$ref"].rpartition("/")[2]].items() if k not in merged}
            elif part is not node and part.get("type") != "null":
                merged |= {k: v for k, v in part.items() if k not in merged}
        if "properties" in merged:
            merged["keys"] = {key: walk(inner, (*path, key)) for key, inner in merged["properties"].items()}
        found[path] = merged
        return merged

    walk(whole, ())
    return found
