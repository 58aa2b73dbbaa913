"""The matrix says what the check says, cell by cell; nothing in it is a verdict of its own."""

from __future__ import annotations

import csv
import io
import json
from importlib.util import module_from_spec, spec_from_file_location
from itertools import combinations, product
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from matrix import diff, formats, pages
from matrix.cell import Cell, ask, asked_of
from matrix.compatibility import Matrix, compile_matrix, usable
from omni_config.catalog.load import catalog
from omni_config.checking.files import check_bytes
from omni_config.cli import app
from omni_config.output import published
from omni_config.output.pages import drift
from omni_config.output.pages import pages as rule_pages
from omni_config.schema.settings import DEFAULTS, tree_of

ROOT = Path(__file__).parents[2]
MODELS = ("Qwen/Qwen-Image-Edit", "Tongyi-MAI/Z-Image", "Tongyi-MAI/Z-Image-Turbo")
runner = CliRunner()
_SPEC = spec_from_file_location("build_site", ROOT / "docs" / "build_site.py")
assert _SPEC
assert _SPEC.loader
build_site = module_from_spec(_SPEC)
_SPEC.loader.exec_module(build_site)


@pytest.fixture(scope="module")
def tables() -> dict[str, Matrix]:
    return {engine: compile_matrix(engine) for engine in catalog().matrix_engines}


def checked(cell: Cell, model: str, engine: str, **settings: object) -> tuple[int, set[str], bool]:
    """Exit code, codes, and whether all that was written holds, by ``omni check`` on the YAML of a cell."""
    written = dict(cell.settings) | settings
    tree = tree_of(DEFAULTS | {"version": 1, "model": model, "engine": engine} | written)
    (result,) = check_bytes("cell.yaml", yaml.safe_dump(json.loads(json.dumps(tree))).encode())
    assert result.resolution is not None
    kept = all(result.resolution.settings[name] == value for name, value in written.items() if name != "lora")
    return result.exit_code, {finding.code for finding in result.findings if finding.severity != "advice"}, kept


def test_every_cell_says_what_the_check_says(tables: dict[str, Matrix]) -> None:
    for engine, table in tables.items():
        for model in {*MODELS} & {*table.models}:
            cells = [*table.models[model].values(), *(row[model] for row in table.pairs.values() if model in row)]
            for cell in cells:
                code, codes, kept = checked(cell, model, engine)
                assert (code == 1) == (cell.verdict == "no"), (engine, model, cell)
                assert kept or cell.verdict in ("no", "adjusted"), (engine, model, cell)
                if cell.verdict != "only":
                    assert {*cell.codes} <= codes, (engine, model, cell)
                if cell.verdict == "yes":
                    assert codes == {*cell.codes}, (engine, model, cell)


def test_what_is_refused_alone_is_refused_with_anything() -> None:
    for engine in catalog().matrix_engines:
        card, model = catalog().engine(engine), catalog().model("Tongyi-MAI/Z-Image")
        target = asked_of(model, card)
        alone = {name: ask([name], target) for name in catalog().features}
        for pair in combinations(catalog().features, 2):
            if not {*pair} <= {*usable(alone)}:
                assert ask(pair, target).verdict in ("no", "adjusted"), (engine, pair)


@pytest.mark.parametrize("model", ["Tongyi-MAI/Z-Image", "Qwen/Qwen-Image", "OmniGen2/OmniGen2"])
def test_a_pair_of_degrees_against_every_pair_of_sizes(model: str) -> None:
    """Where 2 x 2 works the cell is yes; else "only" if any sizes up to 8 work, and then those that it names do."""
    engine = "vllm-omni==0.30"
    for first, second in combinations(("ulysses", "tensor_parallel", "ring"), 2):
        cell = ask((first, second), asked_of(catalog().model(model), catalog().engine(engine)))
        fields = [catalog().features[name].fields[0] for name in (first, second)]
        works = {
            sizes
            for sizes in product(range(2, 9), repeat=2)
            if not checked(Cell("yes"), model, engine, **dict(zip(fields, sizes, strict=True)))[0]
        }
        if (2, 2) in works:
            assert cell.verdict in ("yes", "warned")
        else:
            assert (cell.verdict == "only") == bool(works)
        if works:
            assert tuple(dict(cell.settings)[field] for field in fields) in works


def test_sizes_of_a_degree_are_named(tables: dict[str, Matrix]) -> None:
    row = tables["vllm-omni"].models["Tongyi-MAI/Z-Image-Turbo"]
    assert (row["tensor_parallel"].verdict, row["tensor_parallel"].words) == ("only", "tensor_parallel_size = 2")
    assert "OMNI102" in row["tensor_parallel"].all_codes
    assert row["ulysses"].words == "ulysses_degree = 2, 3, 5 or 6"
    assert tables["vllm-omni"].models["Qwen/Qwen-Image"]["tensor_parallel"].verdict == "yes"


def test_what_the_guide_says_of_pairs(tables: dict[str, Matrix]) -> None:
    table = tables["vllm-omni"]
    assert table.pair("tea_cache", "cache_dit").verdict == "no"
    assert table.pair("cache_dit", "tea_cache").all_codes == ("OMNI201",)
    offload = table.pair("layerwise_offload", "model_offload")
    assert (offload.verdict, offload.words, offload.all_codes) == ("adjusted", "enable_cpu_offload off", ("OMNI301",))
    assert table.models["Qwen/Qwen-Image"]["layerwise_offload"].words == "on a single GPU"
    assert table.pair("ulysses", "ring").verdict == "yes"


def test_the_diff_finds_what_the_code_drops(tables: dict[str, Matrix]) -> None:
    found = list(diff.against(tables["vllm-omni"], tables["vllm-omni==0.30"]))
    (edit,) = [d for d in found if (d.model, d.features) == ("Qwen/Qwen-Image-Edit", ("vae_patch_parallel",))]
    assert (edit.first, edit.second, edit.codes) == ("yes", "no", ("OMNI503",))
    assert edit.disagreements == ("VAE patch parallelism of the Qwen-Image editing and layered models",)
    assert not list(diff.against(tables["vllm-omni"], tables["vllm-omni"]))


def test_the_diff_names_every_cell_that_differs_from_the_published_table(tables: dict[str, Matrix]) -> None:
    table = tables["vllm-omni"]
    found = {(d.model, d.features): d for d in diff.against_published(table)}
    words = {"supported": "yes", "unverified": "warned", "unsupported": "no"}
    for row in diff.published()["models"]:
        for key, verdict in words.items():
            for feature in row.get(key, []):
                cell = table.models[row["ids"][0]][feature]
                assert (cell.verdict != verdict) == ((row["ids"][0], (feature,)) in found)
    for second, row in diff.published()["pairs"].items():
        for key, verdict in words.items():
            for first in row.get(key, []):
                assert (table.pair(first, second).verdict != verdict) == (("", (first, second)) in found)
    assert all(difference.codes and difference.words for difference in found.values())


def test_the_pages_in_docs_are_up_to_date(tables: dict[str, Matrix]) -> None:
    assert drift(ROOT / "docs", pages.kept([tables[engine] for engine in sorted(tables)]), pages.OWNED) == ""


def test_the_site_has_every_page_and_file_that_it_links_to(tables: dict[str, Matrix]) -> None:
    of_matrix = pages.pages([tables[engine] for engine in sorted(tables)])
    assert len(of_matrix) > 3 + len(catalog().features) + len(catalog().charted_ids)
    built = build_site.site(rule_pages() | of_matrix | published.pages())
    assert {"index.md", "rules/README.md", "matrix/models.md", "engines/README.md", "estimates.md"} <= built.keys()
    assert build_site.dead_links(built) == []
    without = {name: text for name, text in built.items() if name not in ("ci.md", "matrix/models.md")}
    assert {"index.md: ci.md", "matrix/README.md: ../matrix/models.md"} <= set(build_site.dead_links(without))


def test_pages_that_differ_are_shown(tmp_path: Path) -> None:
    result = runner.invoke(app(), ["matrix", "--check", str(tmp_path)])
    assert result.exit_code == 1
    assert "+# Compatibility matrix" in result.stdout


def test_formats_hold_the_same_cells(tables: dict[str, Matrix]) -> None:
    table = tables["native"]
    rows = list(csv.DictReader(io.StringIO(formats.to_csv([table]))))
    data = json.loads(formats.to_json([table]))["native"]
    assert len(rows) == len(table.pairs) + len(table.models) * len(table.features)
    for row in rows:
        if row["model"]:
            assert data["models"][row["model"]][row["feature"]]["verdict"] == row["verdict"]
        else:
            (pair,) = [item for item in data["pairs"] if item["features"] == [row["feature"], row["with"]]]
            assert pair["verdict"] == row["verdict"]
    assert formats.to_markdown([table]).count("](docs/rules/OMNI") > 10


def test_the_command() -> None:
    shown = runner.invoke(app(), ["matrix", "--engine", "vllm-omni", "--model", "Tongyi-MAI/Z-Image-Turbo"])
    assert shown.exit_code == 0
    assert "tensor_parallel_size = 2" in shown.stdout
    sets = ["matrix", "--with", "ulysses,cfg_parallel", "--model", "Qwen/Qwen-Image", "--engine", "vllm-omni"]
    answer = json.loads(runner.invoke(app(), [*sets, "--json"]).stdout)["engines"]["vllm-omni"]
    assert answer[""]["Qwen/Qwen-Image"]["verdict"] == "yes"
    assert answer["layerwise_offload"]["Qwen/Qwen-Image"]["codes"] == ["OMNI302"]
    assert "+ Layerwise Offload: no" in runner.invoke(app(), sets).stdout
    for wrong in (["--engine", "x"], ["--model", "x"], ["--with", "x"]):
        result = runner.invoke(app(), ["matrix", *wrong])
        assert result.exit_code == 2
        assert result.stderr.startswith("omni: no ")
