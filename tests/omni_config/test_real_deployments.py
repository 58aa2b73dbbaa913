"""Files of public repositories that start an engine, or something else: the table says what is understood and found."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from omni_config.checking.document import CheckResult
from omni_config.checking.files import check_bytes
from omni_config.output.run_check import is_config
from omni_config.schema.settings import FIELDS

TABLE: list[dict[str, Any]] = yaml.load(  # ours, and the C loader is ten times as fast
    Path(__file__).with_name("real_deployments.yaml").read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader)
)


def deployments(entry: dict[str, Any]) -> list[CheckResult]:
    return [result for result in check_bytes(entry["file"], entry["text"].encode()) if is_config(result)]


def said(result: CheckResult) -> dict[str, Any]:
    assert result.node is not None
    found = {name: node for name, path in FIELDS.items() if (node := result.node.find(path)) is not None}
    values = {name: isinstance(node.value, dict) or node.value for name, node in found.items()}
    return values | {"engine": values["engine"].partition("==")[0]}


@pytest.mark.parametrize("entry", TABLE, ids=lambda entry: entry["source"])
def test_it_is_understood_and_all_that_is_found_is_true(entry: dict[str, Any]) -> None:
    results = deployments(entry)
    assert len(results) == len(entry["understood"])
    for result, expected in zip(results, entry["understood"], strict=True):
        assert {name: said(result).get(name) for name in expected} == expected
    findings = [finding for result in results for finding in result.findings]
    assert sorted(f"{f.span.line} {f.code}" for f in findings if f.severity != "advice" and f.span) == entry["found"]


@pytest.mark.parametrize(("kind", "least"), [("command", 40), ("manifest", 30)])
def test_the_table_is_large_and_of_many_projects(kind: str, least: int) -> None:
    of_kind = [entry for entry in TABLE if entry["kind"] == kind]
    assert len(of_kind) >= least
    assert len({re.split("[@:]", entry["source"])[0] for entry in of_kind}) >= 8
    assert len({entry["text"] for entry in TABLE}) == len(TABLE)


def with_fewer_gpus(entry: dict[str, Any]) -> dict[str, Any]:
    text = entry["text"].replace("nvidia.com/gpu: 1", "nvidia.com/gpu: 0").replace('gpu: "1"', 'gpu: "0"')
    return entry | {"text": text.replace("DEVICES:-0,1,2,3}", "DEVICES:-0,1}").replace("--gpus 1 ", "--gpus 0 ")}


FEWER = [changed for entry in TABLE if entry["understood"] and (changed := with_fewer_gpus(entry)) != entry]


@pytest.mark.parametrize("entry", FEWER, ids=lambda entry: entry["source"])
def test_fewer_gpus_than_it_takes_are_found_wherever_it_says_them(entry: dict[str, Any]) -> None:
    codes = {finding.code for result in deployments(entry) for finding in result.findings}
    assert codes & {"OMNI810", "OMNI812"}


def test_several_of_them_say_their_gpus() -> None:
    assert len(FEWER) >= 10
