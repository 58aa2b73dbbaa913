"""What the engines' own documentation tells people to run is understood, and survives the way through our format."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from omni_config import engines
from omni_config.checking.document import CheckResult
from omni_config.checking.export import export
from omni_config.checking.files import check_bytes
from omni_config.cli.exchange import as_yaml
from omni_config.engines import ENGINES
from omni_config.schema.settings import FIELDS

FILES = {name: Path(engines.__file__).parent / engine.folder / "examples.yaml" for name, engine in ENGINES.items()}
TABLES: dict[str, list[dict[str, Any]]] = {name: yaml.safe_load(file.read_text()) for name, file in FILES.items()}
TABLE = [entry for table in TABLES.values() for entry in table]
NAMES = [f"{number}-{entry['source'].rpartition('/')[2]}" for number, entry in enumerate(TABLE)]
ROUND = [
    entry
    for name, table in TABLES.items()
    for entry in table
    if ENGINES[name].exported and not {"no_round_trip", "not_exported"} & entry.keys()
]
MODEL = {"model": "Qwen/Qwen-Image"}
SERVER = {"server", "host", "port"}


def read(text: str, **assume: str) -> CheckResult:
    (checked,) = check_bytes("file", text.encode(), assume=assume)
    return checked


def said(checked: CheckResult) -> dict[str, Any]:
    assert checked.node is not None
    found = {name: checked.node.find(path) for name, path in FIELDS.items()}
    values = {name: isinstance(node.value, dict) or node.value for name, node in found.items() if node is not None}
    return values | {"engine": values["engine"].partition("==")[0]}  # the newest version judges, today this one


@pytest.mark.parametrize("entry", TABLE, ids=NAMES)
def test_a_documented_command_is_understood(entry: dict[str, Any]) -> None:
    checked = read(entry["text"])
    assert checked.foreign
    expected = entry["understood"]
    assert {name: value for name, value in said(checked).items() if name in expected} == expected
    left = said(checked).keys() - expected.keys() - {"version", "prompt", "negative_prompt"}
    assert left - SERVER <= ({"model"} if entry.get("model_unknown") else set())
    for name in left & {"host", "port"}:
        assert re.search(rf"(?i)\b{name}\b.*\b{said(checked)[name]}\b", entry["text"])
    assert sorted({f.code for f in checked.findings if f.severity != "advice"}) == entry["findings"]
    passed = [f.message.removeprefix("not judged: ") for f in checked.findings if f.code == "OMNI605"]
    assert passed == ([entry["passed_by"]] if "passed_by" in entry else [])
    assert any(f.code == "OMNI604" for f in checked.findings) == bool(entry.get("model_unknown"))
    assert all(finding.span and finding.span.source.line(finding.span.line) for finding in checked.findings)


def test_a_documented_command_has_one_of_the_words_of_its_engine() -> None:
    for name, table in TABLES.items():
        for entry in table:
            assert any(word in entry["text"] for word in ENGINES[name].words), entry["source"]


def test_the_table_is_large_and_has_every_engine() -> None:
    assert len(TABLE) >= 100
    assert len({entry["text"] for entry in TABLE}) == len(TABLE)
    for name, table in TABLES.items():
        assert {entry["understood"]["engine"].partition("==")[0] for entry in table} == {name}


def is_script(text: str) -> bool:
    """Whether it is Python that imports something: a command is none."""
    try:
        body = ast.walk(ast.parse(text))
    except SyntaxError:
        return False
    return any(isinstance(node, ast.Import | ast.ImportFrom) for node in body)


def test_the_tables_have_sixty_entries_of_each_engine_and_scripts_of_many_projects() -> None:
    assert {name: len(table) for name, table in TABLES.items() if len(table) < 60} == {}
    scripts = [entry for entry in TABLE if is_script(entry["text"])]
    projects = {entry["source"].partition("@")[0] for entry in scripts}
    assert len(scripts) >= 50
    assert len(projects) >= 8, projects


def named(entry: dict[str, Any]) -> dict[str, str]:
    """A model for a file that names none."""
    return {} if "model" in entry["understood"] else MODEL


def has_plan(checked: CheckResult) -> bool:
    return (
        checked.resolution is not None and checked.resolution.plan is not None and checked.resolution.card.sources != ()
    )


@pytest.mark.parametrize("entry", TABLE, ids=NAMES)
def test_what_has_no_plan_says_why_in_the_table(entry: dict[str, Any]) -> None:
    assert has_plan(read(entry["text"], **named(entry))) != ("no_round_trip" in entry)


@pytest.mark.parametrize("entry", ROUND, ids=[entry["source"] for entry in ROUND])
def test_import_export_import_is_equal(entry: dict[str, Any]) -> None:
    first = read(entry["text"], **named(entry))
    assert first.resolution is not None
    ours = read(as_yaml(first))
    assert not ours.foreign
    assert ours.resolution is not None
    assert {name: ours.resolution.settings[name] for name in FIELDS} == {
        name: first.resolution.settings[name] for name in FIELDS
    }
    engine = ours.resolution.settings["engine"]
    of_cache_dit = engine.partition("==")[0] == "cache-dit"
    text, findings = export(ours)
    assert text is not None, [finding.message for finding in findings]
    assume = {"engine": engine, "model": first.resolution.settings["model"]}
    again = read(text, **assume)
    assert again.foreign
    assert again.resolution is not None
    written = {"prompt"} if of_cache_dit else set()
    different = {
        name
        for name in FIELDS
        if again.resolution.settings[name] != first.resolution.settings[name] and name not in written
    }
    if of_cache_dit:  # what its program sets itself stands in a comment
        different -= {name for name in FIELDS if FIELDS[name][0] in ("sampling", "vae", "memory", "hardware")}
        different -= {"compile"}
    if engine.startswith("tensorrt-llm"):  # and so does the command, with its server
        different -= SERVER
    assert different == set()
