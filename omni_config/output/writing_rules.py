"""The page for who writes rules: every kind, and every name that a rule may speak of, from the code itself."""

from __future__ import annotations

import inspect
from collections.abc import Collection
from dataclasses import MISSING, fields
from typing import Any

from omni_config.catalog.load import catalog
from omni_config.rules import expressions
from omni_config.rules.kinds import KINDS
from omni_config.rules.quantities import DERIVED, DIMS
from omni_config.rules.rule import Rule
from omni_config.schema.document import Document
from omni_config.schema.settings import FIELDS

_START = """# Writing rules

A rule is a few lines of YAML in `omni_config/rules/`, or in a policy of your own (`omni check --rules policy.yaml`). It
is of one *kind*, which can decide, explain and repair, and it speaks of settings, features and quantities by name. Copy
the rule that is nearest to yours; `omni explain CODE` shows what becomes of it. Tests run its `bad` example, which must
break it, its `good` one, which must not, and its repairs, which must satisfy it.

- An **error** is what the engine, in that version, refuses, drops silently or computes wrongly; `source` says where.
- `why` is for people who do not know the engine. `message` says what is wrong in the numbers of the config, `fix` the
  next step; both are format strings over all names below.
- What a card does not state is `None`, and a rule that needs it must say nothing then: `ffn_dim is not None and ...`.
"""


_BOUNDS = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to"}


def writing_rules() -> str:
    """The page in Markdown."""
    document = Document.model_json_schema(mode="validation")
    settings = [_setting(name, path, document) for name, path in FIELDS.items()]
    features = [f"| `{name}` | `{_cell(item.active)}` | {item.title} |" for name, item in catalog().features.items()]
    parts = [
        _START,
        f"## What every rule states\n\n{_doc(Rule)}\n\nKeys, in brackets those that may be left out: {_keys(Rule)}.\n",
        "## Kinds\n",
        *(_kind(name, kind) for name, kind in KINDS.items()),
        f"## Conditions\n\n{_doc(expressions)}\n",
        _table("Settings", "What a config may say.", "| name | in the config | values | |", settings),
        _table("Features", "True where the feature is on.", "| name | on where | |", features),
        _table(
            "Dimensions",
            "Of the model's card; `None` where it does not state them.",
            "| name | |",
            [f"| `{name}` | {words} |" for name, words in DIMS.items()],
        ),
        _table(
            "Derived quantities",
            "Computed when a rule first asks for them.",
            "| name | |",
            [f"| `{name}` | {_cell(_doc(function))} |" for name, function in sorted(DERIVED.items())],
        ),
    ]
    return "\n".join(parts)


def _kind(name: str, kind: type[Rule]) -> str:
    text = f"### {name}\n\n{_doc(kind)}\n"
    own = _keys(kind, {field.name for field in fields(Rule)})
    text += f"\nIts own keys: {own}.\n" if own else ""
    example = next((rule for rule in catalog().rules if type(rule) is kind), None)
    return text + (f"\nFor example [{example.code}](rules/{example.code}.md).\n" if example else "")


def _keys(kind: type[Any], known: Collection[str] = ()) -> str:
    """Keys of a kind beside the known ones, those in brackets with a default."""
    own = [field for field in fields(kind) if field.name not in known]
    return ", ".join(f"`{field.name}`" if field.default is MISSING else f"[`{field.name}`]" for field in own)


def _setting(name: str, path: tuple[str, ...], document: dict[str, Any]) -> str:
    found = document
    for key in path:
        found = next(one for one in _choices(found, document) if key in one.get("properties", {}))["properties"][key]
    values = ", ".join(filter(None, (_values(choice) for choice in _choices(found, document))))
    return f"| `{name}` | `{'.'.join(path)}` | {_cell(values)} | {_cell(found.get('description', ''))} |"


def _values(schema: dict[str, Any]) -> str:
    """What one alternative of a schema takes, in words."""
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    if schema.get("type") in ("null", "object"):  # left out; or parameters, which have lines of their own
        return ""
    bounds = [f"{words} {schema[key]}" for key, words in _BOUNDS.items() if key in schema]
    return " ".join([schema.get("type", "anything"), *bounds])


def _choices(schema: dict[str, Any], document: dict[str, Any]) -> list[dict[str, Any]]:
    """The alternatives of a schema, with references followed."""
    if "$ref" in schema:
        schema = document["$defs"][schema["$ref"].rpartition("/")[2]]
    inner = [found for choice in schema.get("anyOf", ()) for found in _choices(choice, document)]
    return inner or [schema]


def _table(title: str, words: str, head: str, rows: list[str]) -> str:
    return "\n".join([f"## {title}", "", words, "", head, "|" + "---|" * (head.count("|") - 1), *rows, ""])


def _doc(item: object) -> str:
    return (inspect.getdoc(item) or "").replace("``", "`")


def _cell(text: str) -> str:
    """Text as a cell of a table, on one line."""
    return " ".join(text.split()).replace("|", "\\|")
