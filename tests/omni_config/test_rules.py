"""The catalog: every rule runs its own examples, and every name that it speaks of exists."""

from __future__ import annotations

import re

import pytest

from omni_config.catalog.load import FOLDER, catalog, read
from omni_config.checking.files import check_bytes
from omni_config.resolving.target import target_of
from omni_config.rules.expressions import parse
from omni_config.rules.kinds import Reading
from omni_config.rules.quantities import DERIVED, DIMS
from omni_config.rules.rule import Rule
from omni_config.schema.document import Document
from omni_config.schema.settings import FIELDS, settings_of, tree_of

RULES = catalog().rules
NAMES = {*FIELDS, *DERIVED, *DIMS, *catalog().features}


def found(text: str) -> set[str]:
    return {finding.code for checked in check_bytes("example.yaml", text.encode()) for finding in checked.findings}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_the_bad_example_breaks_the_rule_and_the_good_one_is_clean(rule: Rule) -> None:
    assert rule.code in found(rule.bad)
    assert rule.code not in found(rule.good)
    assert not any(checked.exit_code for checked in check_bytes("good.yaml", rule.good.encode()))


@pytest.mark.parametrize("rule", [rule for rule in RULES if not isinstance(rule, Reading)], ids=lambda rule: rule.code)
def test_a_repair_satisfies_its_rule(rule: Rule) -> None:
    (checked,) = check_bytes("bad.yaml", rule.bad.encode())
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
    assert [name for name, kind in rule.names() if name not in among[kind]] == []
    assert re.fullmatch(r"OMNI[1-9]\d\d", rule.code)
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
    text = (FOLDER.parent / "rules" / "rules.yaml").read_text().replace("factors:", "factor:", 1)
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "rules.yaml").write_text(text)
    with pytest.raises(ValueError, match="unknown key factor"):
        read([tmp_path / "rules" / "rules.yaml"])


@pytest.mark.parametrize(
    "text", ["__import__('os')", "a.b", "[x for x in y]", "f(1)", "a[0]", "'a' * 9", "lambda: 1", "("]
)
def test_conditions_hold_nothing_but_comparisons(text: str) -> None:
    with pytest.raises(ValueError, match=r"condition|expression|numbers"):
        parse(text)
