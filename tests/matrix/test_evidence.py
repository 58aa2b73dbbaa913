"""Evidence is of real runs, says what it is about, and goes stale with it."""

from __future__ import annotations

import ast
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest

from matrix import diff, evidence
from matrix.cell import ask, asked_of
from matrix.compatibility import features_of
from omni_config.catalog.load import catalog

ENTRIES = [
    (name, pipeline, entry)
    for name, by_pipeline in evidence.everything().items()
    for pipeline, entry in by_pipeline.items()
]
#: What configs fail of that are run in spite of a rule.
FAILURES = {
    "OMNI104": ("Cannot concatenate overlapping meshes",),
    "OMNI109": ("tuple index out of range", "no call of the transformer was shared", "no progress for 180 s"),
    "OMNI130": ("does not support context parallelism",),
    "OMNI140": ("AssertionError",),
    "OMNI203": ("TeaCache needs coefficients",),
    "OMNI309": ("shards of HSDP cannot be offloaded",),
    "OMNI310": ("HSDP cannot shard quantized weights",),
    "OMNI503": (
        "TeaCache does not know the modulated input",
        "cache-dit cannot split",
        "cache-dit cannot share the decoding",
        "computes its attention by itself",
        "has no attribute 'language_model'",
        "has no attribute 'single_transformer_blocks'",
        "has no attribute '_cp_config'",
        "unexpected keyword argument 'sigma'",
        "takes no LoRA adapters",
        "AssertionError",  # of cache-dit's plan for another transformer
        "out of bounds for dimension 0",  # of a scheduler that steps more often than the others
        "out of bounds for output of length",  # of cache-dit's plan for blocks that return two
    ),
}


def test_every_cell_of_the_built_in_runtime_is_proven_by_this_code_and_none_refuted() -> None:
    features = features_of(catalog().engine("native"))
    cells = {evidence.key(names) for size in (1, 2) for names in combinations(features, size)}
    pipelines = {*catalog().engine("native").pipelines}
    assert {path.stem for path in evidence.FOLDER.iterdir()} == pipelines
    for pipeline in sorted(pipelines):
        found = {name: entry.status() for name, of, entry in ENTRIES if of == pipeline}
        model = next(entry.model for _, of, entry in ENTRIES if of == pipeline)
        target = asked_of(catalog().model(model), catalog().engine("native"))
        expected = {name for name in cells if evidence.is_of_a_plan(ask(name.split("+"), target))}
        assert found == dict.fromkeys(sorted(expected), "proven"), pipeline


def test_a_refused_config_that_was_run_failed_of_what_its_rule_says() -> None:
    ran = [entry.why for _, _, entry in ENTRIES if "run all the same" in entry.why]
    assert len(ran) > 20
    for why in ran:
        refused, _, failed = why.partition("run all the same")
        expected = [words for code, all_ in FAILURES.items() if code in refused for words in all_]
        assert any(words in failed for words in expected), why


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
                _keeps(control["difference"], _below(control["psnr"]), entry.bound)
                for control in entry.controls.values()
            ]
            assert within == [True] + [False] * len(entry.controls), name
            assert entry.controls, name
        else:
            assert entry.why != "computes what the plain pipeline computes", name


def _below(psnr: float | None) -> float | None:
    """What is written is rounded to a tenth: a control as written at the bound was below it."""
    return None if psnr is None else psnr - 0.05


def _keeps(difference: float, psnr: float | None, bound: dict[str, float | None]) -> bool:
    """JSON has no infinity: None is equal pictures, or a bound that allows anything."""
    return difference <= (bound["difference"] or math.inf) and (math.inf if psnr is None else psnr) >= bound["psnr"]


def test_evidence_of_a_cell_that_the_rules_decide_otherwise_now_is_not_shown() -> None:
    name, _, entry = next(item for item in ENTRIES if item[2].verdict == "yes")
    assert not entry.outdated(name.split("+"))
    assert replace(entry, verdict="no").outdated(name.split("+"))


def fresh(entry: evidence.Evidence) -> evidence.Evidence:
    """The entry as if it had run with the code and the versions of now."""
    now = {name: evidence.digest(evidence.ROOT / name) for name in (*evidence.SHARED, *entry.code)}
    shared = {name: now[name] for name in entry.shared}
    return replace(entry, shared=shared, code={name: now[name] for name in entry.code}, versions={})


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the runtime's code, which evidence then is about."""
    shutil.copytree(evidence.ROOT / "runtime", tmp_path / "runtime", ignore=shutil.ignore_patterns("*.safetensors"))
    monkeypatch.setattr(evidence, "ROOT", tmp_path)
    evidence.digest.cache_clear()
    yield tmp_path / "runtime"
    evidence.digest.cache_clear()


def stale_after(edit: Callable[[str], str], file: Path) -> list[tuple[evidence.Evidence, str]]:
    """All entries of runs, each with what makes it stale once a file is edited."""
    entries = [fresh(entry) for _, _, entry in ENTRIES if entry.shared]
    file.write_text(edit(file.read_text(encoding="utf-8")), encoding="utf-8")
    evidence.digest.cache_clear()
    return [(entry, entry.stale()) for entry in entries]


def module_of(place: Path) -> Path:
    """The file of a module, or one file of a package."""
    return file if (file := place.with_suffix(".py")).is_file() else next(place.glob("[a-z]*.py"))


def test_words_make_no_evidence_stale(runtime: Path) -> None:
    def reworded(code: str) -> str:
        words = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant)]
        docstring = next(node.value for node in words if isinstance(node.value, str) and "\n" in node.value)
        return "# a comment\n" + code.replace(docstring, f"Other words. {docstring}")

    for place in ("compat", "features/tea_cache", "ranks/generate"):
        assert {stale for _, stale in stale_after(reworded, module_of(runtime / place))} == {""}, place


@pytest.mark.parametrize("name", [name for name in evidence.SHARED if evidence.digest(evidence.ROOT / name)])
def test_code_that_decides_every_cell_makes_all_evidence_stale(runtime: Path, name: str) -> None:
    entries = stale_after(lambda code: code + "\nADDED = 1\n", module_of(runtime.parent / name))
    assert {stale for _, stale in entries} == {f"stale: {name} changed"}


def test_the_code_of_a_feature_makes_its_own_cells_stale(runtime: Path) -> None:
    name = "runtime/features/tea_cache"
    entries = stale_after(lambda code: code + "\nADDED = 1\n", module_of(runtime.parent / name))
    assert {bool(stale) for _, stale in entries} == {True, False}
    for entry, stale in entries:
        assert stale == (f"stale: {name} changed" if name in entry.code else "")


def test_evidence_goes_stale_with_versions() -> None:
    entry = fresh(next(entry for _, _, entry in ENTRIES if entry.code))
    assert entry.status() == "proven"
    assert replace(entry, versions={"pydantic": "0.1"}).status() == "proven (stale: pydantic changed)"
    assert replace(entry, versions={"not-installed-here": "1"}).stale() == ""


def test_what_most_cells_have_in_common_stands_once_and_each_keeps_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = dict(list(evidence.read("WanPipeline").items())[:5])
    monkeypatch.setattr(evidence, "FOLDER", tmp_path)
    evidence.read.cache_clear()
    evidence.add("WanPipeline", cells)
    before = (tmp_path / "WanPipeline.jsonl").read_text().splitlines()
    (name, *_) = cells
    later = replace(cells[name], date="2030-01-01", versions={"torch": "3"}, shared={"runtime/compat": "0"})
    evidence.add("WanPipeline", {name: later})
    after = (tmp_path / "WanPipeline.jsonl").read_text().splitlines()
    assert [line for line in after if line not in before] == [after[1]]
    assert evidence.read("WanPipeline") == cells | {name: later}
    evidence.read.cache_clear()


def test_a_cell_that_was_proven_is_listed_where_the_published_table_had_not_verified_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = ("Tongyi-MAI/Z-Image", ("cfg_parallel",))
    assert cell in [found[:2] for found in diff.proven_unverified()]
    entry = evidence.read("ZImagePipeline")["cfg_parallel"]
    monkeypatch.setattr(evidence, "FOLDER", tmp_path)
    evidence.read.cache_clear()
    evidence.add("ZImagePipeline", {"cfg_parallel": replace(entry, proven=False)})
    assert evidence.read("ZImagePipeline").keys() == {"cfg_parallel"}
    assert diff.proven_unverified() == []
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
    assert {"runtime/models/z_image", "runtime/features/cfg_parallel", "runtime/features/offload"} == set(entry.code)
    assert entry.status() == "proven"
    assert evidence.read("ZImagePipeline") == found
    evidence.read.cache_clear()
    for model, cells in prove(["tiny", "FluxPipeline"], ["tea_cache", "cache_dit"]).items():
        refused = cells["cache_dit+tea_cache"]
        assert (refused.proven, refused.verdict) == (True, "no"), model
        assert "OMNI201" in refused.why
    evidence.read.cache_clear()
