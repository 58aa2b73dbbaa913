"""Evidence is of real runs, says what it is about, and goes stale with it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest

from matrix import diff as differ
from matrix import evidence
from omni_config.catalog.load import catalog

ENTRIES = [
    (name, pipeline, entry)
    for name, by_pipeline in evidence.everything().items()
    for pipeline, entry in by_pipeline.items()
]
#: What configs fail of that are run in spite of a rule.
FAILURES = {
    "OMNI130": "does not support context parallelism",
    "OMNI503": "TeaCache does not know the modulated input",
}


def test_every_cell_of_the_built_in_runtime_is_proven_by_this_code_and_none_refuted() -> None:
    features, pipelines = list(catalog().features), catalog().engine("native").pipelines
    cells = {evidence.key(names) for size in (1, 2) for names in combinations(features, size)}
    assert len(pipelines) == 6
    for pipeline in pipelines:
        found = {name: entry.status() for name, of, entry in ENTRIES if of == pipeline}
        assert found == dict.fromkeys(sorted(cells), "proven"), pipeline


def test_a_refused_config_that_was_run_failed_of_what_its_rule_says() -> None:
    ran = [entry.why for _, _, entry in ENTRIES if "run all the same" in entry.why]
    assert len(ran) > 20
    for why in ran:
        refused, _, failed = why.partition("run all the same")
        assert any(code in refused and words in failed for code, words in FAILURES.items()), why


def test_what_is_proven_kept_its_bound_and_its_controls_did_not() -> None:
    assert sum(entry.proven and entry.difference is not None for _, _, entry in ENTRIES) > 10
    for name, pipeline, entry in ENTRIES:
        assert catalog().model(entry.model).pipeline == pipeline
        assert {"torch", "diffusers", "cache-dit"} == set(entry.versions)
        if entry.verdict == "no":
            assert "refused by OMNI" in entry.why
        elif entry.proven:
            assert entry.code, name
            within = [_keeps(entry.difference, entry.psnr, entry.bound)]
            within += [
                _keeps(control["difference"], control["psnr"], entry.bound) for control in entry.controls.values()
            ]
            assert within == [True] + [False] * len(entry.controls), name
            assert entry.controls, name
        else:
            assert entry.why != "computes what the plain pipeline computes", name


def _keeps(difference: float, psnr: float | None, bound: dict[str, float | None]) -> bool:
    """JSON has no infinity: None is equal pictures, or a bound that allows anything."""
    return difference <= (bound["difference"] or math.inf) and (math.inf if psnr is None else psnr) >= bound["psnr"]


def test_evidence_of_a_cell_that_the_rules_decide_otherwise_now_is_not_shown() -> None:
    name, _, entry = next(item for item in ENTRIES if item[2].verdict == "yes")
    assert not entry.outdated(name.split("+"))
    assert replace(entry, verdict="no").outdated(name.split("+"))


def test_evidence_goes_stale_with_code_and_versions() -> None:
    _, _, entry = next(item for item in ENTRIES if item[2].code)
    fresh = replace(entry, code={name: evidence.digest(evidence.ROOT / name) for name in entry.code}, versions={})
    assert fresh.status() == "proven"
    (name, *_) = entry.code
    assert replace(fresh, code={name: "0" * 16}).status() == f"proven (stale: {name} changed)"
    assert replace(fresh, versions={"pydantic": "0.1"}).stale() == "stale: pydantic changed"
    assert replace(fresh, versions={"not-installed-here": "1"}).stale() == ""


def test_a_cell_that_was_proven_is_listed_where_the_published_table_had_not_verified_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = ("Tongyi-MAI/Z-Image", ("cfg_parallel",))
    assert cell in [found[:2] for found in differ.proven_unverified()]
    entry = evidence.read("ZImagePipeline")["cfg_parallel"]
    monkeypatch.setattr(evidence, "FOLDER", tmp_path)
    evidence.read.cache_clear()
    evidence.add("ZImagePipeline", {"cfg_parallel": replace(entry, proven=False)})
    assert json.loads((tmp_path / "ZImagePipeline.json").read_text()).keys() == {"cfg_parallel"}
    assert differ.proven_unverified() == []
    evidence.read.cache_clear()


@pytest.mark.timeout(600)
def test_a_cell_is_proven_by_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    from matrix.prove import prove

    monkeypatch.setattr(evidence, "FOLDER", tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    evidence.read.cache_clear()
    found = prove(["tiny"], ["cfg_parallel", "layerwise_offload"])["tiny"]
    (entry,) = found.values()
    assert (entry.proven, entry.verdict) == (True, "yes")
    assert entry.difference <= 1e-4 < entry.controls["transformer"]["difference"]
    assert {"runtime/features/cfg_parallel.py", "runtime/features/offload.py"} == set(entry.code)
    assert evidence.read("ZImagePipeline") == found
    evidence.read.cache_clear()
    for model, cells in prove(["tiny", "FluxPipeline"], ["tea_cache", "cache_dit"]).items():
        refused = cells["cache_dit+tea_cache"]
        assert (refused.proven, refused.verdict) == (True, "no"), model
        assert "OMNI201" in refused.why
    evidence.read.cache_clear()
