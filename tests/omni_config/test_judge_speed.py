"""The judge of a calibrated machine: what it counts, on runs that are made up, and that it uses nothing twice."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from test_runs import H100, PLANS, TRUE, plan, runs_of

from omni_config.checking.files import check_bytes
from omni_config.planner.fit import fit
from omni_config.planner.runs import Recorded

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))

import judge_speed
from judge_speed import JUDGED, LEARNED, Row, judged, summary, table


def test_nothing_that_judges_was_learned_from() -> None:
    learned = {(one.model, one.pixels, tuple(one.parallel.items()), one.guided) for one in LEARNED}
    others = {(one.model, one.pixels, tuple(one.parallel.items()), one.guided) for one in JUDGED}
    assert not learned & others
    assert len(others) == len(JUDGED) >= 20
    assert {one.model for one in LEARNED} < {one.model for one in JUDGED}
    assert {degree for one in JUDGED for degree in one.parallel} == {
        "ulysses_degree",
        "ring_degree",
        "tensor_parallel_size",
        "cfg_parallel_size",
    }


def test_errors_ranges_and_order_are_counted() -> None:
    rows = [Row("a", 1.0, 1.1, 0.9, 1.3), Row("b", 2.0, 1.6, 1.5, 1.9), Row("c", 3.0, 3.0, 2.7, 3.3)]
    found = summary(rows)
    assert found["median_error"] == pytest.approx(0.1)
    assert found["largest_error"] == pytest.approx(0.2)
    assert found["inside"] == pytest.approx(2 / 3)
    assert found["rank_correlation"] == pytest.approx(1)
    assert "| b | 2000 ms | 1600 ms | 1500 ms | 1900 ms | -20%, outside |" in table(rows)


def test_runs_make_the_estimate_of_others_better() -> None:
    others = runs_of([plan(1280), plan(1792, ulysses_degree=2), plan(768)], TRUE)
    before = summary(judged(others, H100))
    after = summary(judged(others, fit(runs_of(PLANS, TRUE), H100).gpu))
    assert after["median_error"] < 0.5 * before["median_error"]
    assert after["inside"] == 1


def test_every_run_is_a_config_that_can_be_launched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without launching: each command's config is checked, and the report of another run stands in."""
    seen: list[str] = []

    def launch(config: dict[str, Any], file: Path) -> Path:
        (checked,) = check_bytes("c.yaml", json.dumps(config).encode())
        assert checked.exit_code == 0, checked.findings
        seen.append(config["model"])
        return file

    (run,) = runs_of([plan()], H100)
    monkeypatch.setattr(judge_speed, "launch", launch)
    monkeypatch.setattr(judge_speed, "runs_in", lambda path: Recorded((run,)))
    embedded = [one for one in (*LEARNED, *JUDGED) if one.model.startswith("tiny")]
    runs = list(judge_speed._launched(embedded, tmp_path / "runs", tmp_path))
    assert seen == [one.model for one in embedded]
    assert runs[0].name == "tiny, 128 px, one rank"
    assert "tiny, 320 px, guided, cfg 2" in [run.name for run in runs]
