"""The catalog: every rule runs its own examples, and every name that it speaks of exists."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from omni_config.catalog.load import FOLDER, catalog, read, rules_of
from omni_config.checking.files import check_bytes
from omni_config.resolving.target import target_of
from omni_config.rules.expressions import parse
from omni_config.rules.kinds import Reading, Refuses
from omni_config.rules.quantities import DERIVED, DIMS, THEIRS
from omni_config.rules.rule import Rule, examples
from omni_config.schema.document import Document
from omni_config.schema.settings import FIELDS, settings_of, tree_of

RULES = catalog().rules
NAMES = {*FIELDS, *DERIVED, *DIMS, *catalog().features}


def found(text: str) -> set[str]:
    return {finding.code for checked in check_bytes("example.yaml", text.encode()) for finding in checked.findings}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_the_bad_examples_break_the_rule_and_the_good_ones_are_clean(rule: Rule) -> None:
    for text in examples(rule.bad):
        assert rule.code in found(text)
    for text in examples(rule.good):
        assert rule.code not in found(text)
        assert not any(checked.exit_code for checked in check_bytes("good.yaml", text.encode()))


@pytest.mark.parametrize("path", sorted((FOLDER.parent / "rules").glob("[0-9]_*.yaml")), ids=lambda path: path.name)
def test_a_file_of_rules_has_the_codes_of_its_area(path: Path) -> None:
    items = yaml.safe_load(path.read_text())
    assert {item["code"][4] for item in items} == {path.name[0]}
    assert all(len(resolved(item)) != 1 for item in items)  # of one engine only: that engine's folder has it


def resolved(item: dict[str, Any]) -> set[str]:
    return {catalog().engine(name).family for name in catalog().by_code[item["code"]].engine_ids}


def test_an_engines_rules_are_of_that_engine_only() -> None:
    for path in (FOLDER.parent / "engines").glob("*/rules.yaml"):
        for item in yaml.safe_load(path.read_text()):
            assert {family.replace("-", "_") for family in resolved(item)} == {path.parent.name}, item["code"]


def test_a_retired_code_is_never_used_again() -> None:
    codes = [entry.code for entry in catalog().retired]
    assert codes
    assert len(set(codes)) == len(codes)
    assert not set(codes) & set(catalog().by_code)
    for entry in catalog().retired:
        assert entry.why.endswith(".")
        assert not entry.replaced_by or set(re.findall(r"OMNI\d{3,4}", entry.replaced_by)) <= set(catalog().by_code)


def test_a_rule_may_have_several_examples_and_a_range_of_engines() -> None:
    item = {
        "code": "ACME001", "name": "few-steps", "kind": "requires", "needs": "num_inference_steps < 9",
        "fields": ["num_inference_steps"], "message": "m", "why": "w", "fix": "f", "source": "s",
        "bad": ["a", "b"], "good": "c", "engines": ["vllm-omni>=0.28,<0.32", "sglang"],
    }  # fmt: skip
    engines = {
        "vllm-omni": ["guide"],
        "vllm-omni==0.26": [],
        "vllm-omni==0.28": [],
        "vllm-omni==0.30": [],
        "vllm-omni==0.32.0rc1": ["vllm-omni==0.32"],
        "sglang==0.5.22": [],
        "sglang==0.5.23": ["sglang"],
    }
    (rule,) = rules_of([item], engines)
    assert rule.engine_ids == ("vllm-omni==0.28", "vllm-omni==0.30", "sglang==0.5.22", "sglang==0.5.23")
    assert (examples(rule.bad), examples(rule.good)) == (("a", "b"), ("c",))
    for stated, ids in {
        "guide": ("vllm-omni",),
        "vllm-omni==0.30.0": ("vllm-omni==0.30",),
        "vllm-omni>=0.32": ("vllm-omni==0.32.0rc1",),
        "vllm-omni": tuple(engines)[:5],
    }.items():
        assert rules_of([item | {"engines": [stated]}], engines)[0].engine_ids == ids
    for stated in ("vllm-omni>=0.40", "vllm", "vllm-omni>>1", "vllm-omni==banana"):
        with pytest.raises(ValueError, match="ACME001: no engine is"):
            rules_of([item | {"engines": [stated]}], engines)


@pytest.mark.parametrize("rule", [rule for rule in RULES if not isinstance(rule, Reading)], ids=lambda rule: rule.code)
def test_a_repair_satisfies_its_rule(rule: Rule) -> None:
    for text in examples(rule.bad):
        repairs_satisfy(rule, text)


def repairs_satisfy(rule: Rule, text: str) -> None:
    (checked,) = check_bytes("bad.yaml", text.encode())
    assert checked.node is not None
    document = Document.model_validate(checked.node.value)
    card, engine = catalog().model(document.model), catalog().engine(document.engine)
    assert card is not None
    assert engine is not None
    target = target_of(card, engine).by([rule])
    settings = target.with_defaults(settings_of(document))
    repairs = rule.repairs_for(target.quantities(settings))
    assert repairs or rule.severity == "advice" or not getattr(rule, "repairs", True)
    for changes in repairs:
        assert rule.code not in {finding.code for finding in target.applied(settings | changes)[1]}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_every_name_in_a_rule_is_a_quantity(rule: Rule) -> None:
    among = {"fields": set(FIELDS), "features": set(catalog().features), "quantities": NAMES}
    names = [(name, kind) for name, kind in rule.names() if not (rule.engine_ids and name.startswith(THEIRS))]
    assert [name for name, kind in names if name not in among[kind]] == []
    assert re.fullmatch(r"OMNI[1-9]\d\d" + r"\d?" * isinstance(rule, Refuses), rule.code)
    assert rule.explain()
    assert rule.why.endswith(".")


def test_leaf_names_are_unique_over_all_sections() -> None:
    assert len(set(FIELDS.values())) == len(FIELDS)
    assert all(path[-1] == name for name, path in FIELDS.items())
    assert not set(FIELDS) & {*DERIVED, *DIMS}


def test_settings_and_document_are_inverse() -> None:
    document = Document.model_validate(
        {"version": 1, "model": "tiny", "cache": {"cache_dit": {"Fn_compute_blocks": 2}}, "sampling": {"prompt": "x"}}
    )
    assert settings_of(Document.model_validate(tree_of(settings_of(document)))) == settings_of(document)
    assert Document.model_validate(tree_of(settings_of(document))).cache.cache_dit == document.cache.cache_dit


def test_the_catalog_rejects_typos(tmp_path) -> None:
    text = (FOLDER.parent / "rules" / "1_parallelism.yaml").read_text().replace("factors:", "factor:", 1)
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "1_parallelism.yaml").write_text(text)
    with pytest.raises(ValueError, match="unknown key factor"):
        read([tmp_path / "rules" / "1_parallelism.yaml"])


@pytest.mark.parametrize(
    "text", ["__import__('os')", "a.b", "[x for x in y]", "f(1)", "a[0]", "'a' * 9", "lambda: 1", "("]
)
def test_conditions_hold_nothing_but_comparisons(text: str) -> None:
    with pytest.raises(ValueError, match=r"condition|expression|numbers"):
        parse(text)
