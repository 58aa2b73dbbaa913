"""Every guard of a shipped version has one answer; the coverage, the steps between versions, and their pages."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from omni_config.catalog.load import catalog
from omni_config.cli import app
from omni_config.engines import answers as module
from omni_config.engines.answers import Answer, Answers, answers_of, read_answers
from omni_config.engines.coverage import coverage
from omni_config.engines.facts import facts_of, shipped
from omni_config.engines.registered import registered

GUARDS = {"p/a.py::f#1", "p/a.py::f#2", "p/a.py::g#1", "p/b.py::h#1"}
CODES = {"OMNI1101"}
GOOD = {
    "p/a.py": {"f": {"1": {"reason": "weights"}, "*": {"rule": "OMNI1101"}}},
    "p/b.py": {"*": {"reason": "request", "because": "It reads a prompt."}},
}
CASES = [("OMNI1101", ("p/a.py::g#1",))]


def answers(stated=GOOD, cases=CASES, guards=GUARDS):
    return Answers(stated, cases, guards, CODES)


class TestAnswers:
    def test_each_guard_has_the_answer_that_is_nearest(self):
        found = answers()
        assert found.faults == []
        assert found.of("p/a.py::f#1") == Answer(reason="weights")
        assert found.of("p/a.py::f#2") == Answer(rule="OMNI1101")
        assert found.of("p/a.py::g#1") == Answer(rule="OMNI1101")
        assert found.of("p/b.py::h#1") == Answer(reason="request", because="It reads a prompt.")
        assert found.of("p/b.py::h#2") is None

    @pytest.mark.parametrize(
        ("entry", "said"),
        [
            ({"reason": "weights", "rule": "OMNI1101"}, "one of them"),
            ({"because": "Why not."}, "one of them"),
            ({"reason": "unknown"}, "no reason 'unknown'"),
            ({"rule": "OMNI999"}, "no rule OMNI999"),
            ({"reason": "weights", "text": "x"}, "expected a reason, or a rule"),
            ("weights", "expected a reason, or a rule"),
        ],
    )
    def test_an_answer_that_is_none(self, entry, said):
        faults = answers({"p/a.py": {"f": {"1": entry, "2": {"reason": "machine"}}}, "p/b.py": GOOD["p/b.py"]}).faults
        assert [fault.partition(": ")[0] for fault in faults] == ["p/a.py::f#1", "p/a.py::f#1"]
        assert said in faults[0]
        assert faults[1].endswith("not answered")

    def test_no_answer(self):
        assert answers(cases=()).faults == ["p/a.py::g#1: not answered"]

    def test_two_answers(self):
        assert answers(cases=CASES * 2).faults == ["p/a.py::g#1: answered 2 times"]
        both = GOOD | {"p/a.py": GOOD["p/a.py"] | {"g": {"1": {"reason": "machine"}}}}
        assert answers(both).faults == ["p/a.py::g#1: answered 2 times"]

    def test_an_answer_to_nothing(self):
        assert answers(cases=[*CASES, ("OMNI1101", ("p/a.py::gone#1",))]).faults == [
            "p/a.py::gone#1: no shipped version has it"
        ]
        stated = GOOD | {"p/c.py": {"*": {"reason": "machine"}}}
        assert answers(stated).faults == ["p/c.py::*: covers no guard that has no answer of its own"]

    def test_a_hash_that_looks_like_a_number_is_text(self, tmp_path):
        path = tmp_path / "guards.yaml"
        path.write_text("p/a.py:\n  f:\n    01234567: {reason: weights}\n")
        assert read_answers(path) == {"p/a.py": {"f": {"01234567": {"reason": "weights"}}}}
        assert read_answers(tmp_path / "none.yaml") == {}


@pytest.mark.parametrize("family", sorted({engine.partition("==")[0] for engine in shipped()}))
def test_every_guard_of_a_shipped_version_has_one_answer(family):
    assert answers_of(family).faults == []


@pytest.fixture
def _few(monkeypatch):
    """Answers of a known size, whatever is answered in truth."""
    known = facts_of("xdit==0.7").guards
    first, second, *_ = sorted(known)
    path, _, rest = first.partition("::")
    function, _, mark = rest.rpartition("#")
    found = Answers({path: {function: {mark: {"reason": "machine"}}}}, [("OMNI101", (second,))], known, {"OMNI101"})
    monkeypatch.setattr("omni_config.engines.coverage.answers_of", lambda family: found)


class TestCoverage:
    @pytest.mark.usefixtures("_few")
    def test_guards_are_counted_by_answer(self):
        found = coverage("xdit==0.7")
        assert (found.reasons, found.rules) == ({"machine": 1}, {"OMNI101": 1})
        assert found.guards == len(facts_of("xdit==0.7").guards) == len(found.unanswered) + 2

    def test_flags_and_pipelines_are_counted_once(self):
        for engine in shipped():
            found, facts = coverage(engine), facts_of(engine)
            assert found.flags_read + found.flags_judged + found.flags_known == len(facts.flags)
        omni = coverage("vllm-omni==0.30")
        explained = sum(map(len, omni.pipelines_explained.values()))
        assert omni.pipelines_with_card + explained == len(facts_of("vllm-omni==0.30").pipelines)
        assert min(omni.flags_read, omni.flags_judged, omni.flags_known, omni.pipelines_with_card) > 30
        assert coverage("cache-dit==1.5.3").flags_known == len(facts_of("cache-dit==1.5.3").flags)
        assert coverage("diffusers==0.42.1").pipelines_with_card > 20

    @pytest.mark.parametrize("engine", shipped())
    def test_every_pipeline_has_a_card_or_a_reason(self, engine):
        assert coverage(engine).pipelines_without_card == []

    def test_every_reason_is_of_a_pipeline(self):
        known = {one.name.rpartition(" ")[2] for engine in shipped() for one in registered(facts_of(engine))}
        stated = yaml.safe_load((Path(module.__file__).parent / "no_model.yaml").read_text())
        assert {name for group in stated for name in group["pipelines"]} <= known

    def test_a_pipeline_of_no_card_and_no_reason_is_counted(self, monkeypatch):
        monkeypatch.setattr("omni_config.engines.registered._reasons", dict)
        assert "Pi0Pipeline" in coverage("vllm-omni==0.30").pipelines_without_card

    def test_families_with_a_parallel_plan_have_a_card(self):
        """Of diffusers its own plans, and those that cache-dit has for its classes."""
        theirs, ours = facts_of("diffusers==0.42.1").pipelines, facts_of("cache-dit==1.5.3").pipelines
        planned = tuple(name.partition(" ")[2] for name in ours if "ParallelismPlannerRegister" in name.split()[0])
        transformers = {
            kind.partition(" ")[2]
            for kind, entry in theirs.items()
            if kind.startswith("model ")
            and ({"_cp_plan", "_tp_plan"} & entry["markers"].keys() or kind.partition(" ")[2].startswith(planned))
        }
        cards = {one.name for one in registered(facts_of("diffusers==0.42.1")) if one.card}
        split = {kind for name in cards for kind in theirs[name].get("components", {}).values()}
        assert len(transformers) > 30
        modular = {"MiniMaxH3Transformer3DModel", "WanAnimate2Transformer3DModel"}  # their pipelines are not registered
        assert transformers - split == modular
        assert all(catalog().model_of_pipeline(name) for name in ("MiniMaxH3ModularPipeline", "WanAnimate2Pipeline"))

    def test_an_engine_without_facts(self):
        with pytest.raises(ValueError, match="no facts of engine 'native'"):
            coverage("native")

    def test_versions_come_in_order(self):
        assert shipped("vllm-omni") == [f"vllm-omni=={v}" for v in ("0.26", "0.28", "0.30", "0.32.0rc1")]


class TestCommand:
    def run(self, *args: str):
        return CliRunner().invoke(app(["engine"]), ["engine", "coverage", *args])

    def test_all_of_a_name_or_one_version(self):
        assert re.findall(r"xdit==[\d.]+", self.run("xdit").stdout) == ["xdit==0.6", "xdit==0.7"]
        shown = self.run("xdit==0.7.0", "cache-dit").stdout
        assert re.findall(r"[a-z-]+==[\d.]+", shown) == ["xdit==0.7", "cache-dit==1.5.3"]
        assert all(engine in self.run().stdout for engine in shipped())

    @pytest.mark.usefixtures("_few")
    def test_json_names_the_guards_without_an_answer(self):
        (found,) = json.loads(self.run("xdit==0.7", "--json").stdout)
        assert found["guards"] == len(found["unanswered"]) + 2
        assert found["rules"] == {"OMNI101": 1}

    def test_a_version_without_facts(self):
        result = self.run("xdit==0.1")
        assert result.exit_code == 2
        assert "xdit==0.1: no facts of it" in result.stderr


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    result = CliRunner().invoke(app(), ["docs", str(folder), "--all"])
    assert result.exit_code == 0, result.output
    return folder


class TestPages:
    def test_the_index_leads_to_them(self, site):
        overview = (site / "engines/README.md").read_text()
        steps = re.findall(r"\]\(([\w.-]+-to-[\w.-]+\.md)\)", overview)
        assert len(steps) == 7
        assert {f"{page}" for page in steps} == {path.name for path in (site / "engines").glob("*-to-*.md")}
        for engine in shipped():
            assert f"| {engine} |" in overview

    def test_a_step_says_flags_pipelines_and_guards_with_their_answers(self, site):
        page = (site / "engines/vllm-omni-0.28-to-0.30.md").read_text()
        assert "- new: `--vae-fast-path`" in page
        assert "- gone: `--enable-bf16x3-router-gemm`" in page
        assert "vllm==0.28.0 -> vllm==0.30.0" not in page
        assert re.search(r"^## Pipelines: \d+ new", page, re.M)
        new, gone = map(int, re.search(r"^## Guards: (\d+) new, (\d+) gone", page, re.M).groups())
        assert (new, gone) == tuple(
            len(facts_of(a).guards.keys() - facts_of(b).guards.keys())
            for a, b in (("vllm-omni==0.30", "vllm-omni==0.28"), ("vllm-omni==0.28", "vllm-omni==0.30"))
        )
        row = next(line for line in page.splitlines() if "cache_backend`" in line and line.startswith("| new"))
        assert re.match(r"\| new \| `vllm_omni/[\w/]+\.py:[\d, ]+` \| `[\w.]+` \| `.*` \| .+ \|$", row)
        assert not re.search(r"#[0-9a-f]{8}", page)

    def test_links_of_the_engines_pages_lead_somewhere(self, site):
        for page in (site / "engines").glob("*.md"):
            for link in set(re.findall(r"\]\(([^)]+)\)", page.read_text())):
                assert (page.parent / link).is_file(), (page.name, link)

    def test_an_answer_is_a_link_or_a_sentence(self, monkeypatch):
        from omni_config.output import published

        known = sorted(facts_of("xdit==0.7").guards)[:3]
        stated = {}
        for guard, entry in zip(
            known[:2], ({"reason": "machine"}, {"reason": "request", "because": "A | b."}), strict=True
        ):
            path, _, rest = guard.partition("::")
            function, _, mark = rest.rpartition("#")
            stated.setdefault(path, {}).setdefault(function, {})[mark] = entry
        found = Answers(stated, [("OMNI101", (known[2],))], known, {"OMNI101"})
        monkeypatch.setattr(published, "answers_of", lambda family: found)
        assert [published._answer(guard, "xdit") for guard in [*known, "x"]] == [
            module.REASONS["machine"],
            "A \\| b.",
            "[OMNI101](../rules/OMNI101.md)",
            "none yet",
        ]
