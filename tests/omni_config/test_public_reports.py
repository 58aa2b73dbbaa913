"""Inputs of public reports on which a check was wrong or silent: each is judged by what the engine does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from omni_config.checking.files import check_bytes

REPORTS: list[dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("public_reports.yaml").read_text())


@pytest.mark.parametrize("report", REPORTS, ids=lambda report: report["source"].rpartition("/")[2])
def test_what_is_found_is_true_and_all_of_it(report: dict[str, Any]) -> None:
    results = check_bytes(report["file"], report["text"].encode())
    found = {
        f"{finding.span.line} {finding.code}"
        for result in results
        for finding in result.findings
        if finding.severity != "advice" and finding.span
    }
    assert found == {*report["found"]}


def test_half_of_them_are_deployments_that_work() -> None:
    assert len(REPORTS) == 22
    assert sum(not report["found"] for report in REPORTS) >= 11
