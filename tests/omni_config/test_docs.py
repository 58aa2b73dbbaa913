"""Pages for people: what is generated is up to date, and every link in git leads somewhere."""

from __future__ import annotations

import re
from pathlib import Path

from omni_config.catalog.load import catalog
from omni_config.output.writing_rules import writing_rules
from omni_config.rules.kinds import KINDS
from omni_config.rules.quantities import DERIVED, DIMS
from omni_config.schema.settings import FIELDS

ROOT = Path(__file__).parents[2]
PAGES = [
    *ROOT.glob("*.md"),
    *(
        page
        for top in ("docs", "runtime", "examples")
        for page in (ROOT / top).rglob("*.md")
        if "node_modules" not in page.parts
    ),
]


def test_every_link_leads_to_a_file() -> None:
    links = [
        (page.relative_to(ROOT).as_posix(), link)
        for page in PAGES
        for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
        if "://" not in link
    ]
    assert len(links) > 500
    assert [(page, link) for page, link in links if not (ROOT / page).parent.joinpath(link).exists()] == []


def test_every_name_that_a_rule_may_speak_of_is_on_the_page_about_writing_rules() -> None:
    text = writing_rules()
    names = re.findall(r"^(?:\| `|### )(\w+)", text, re.M)
    assert sorted(names) == sorted([*KINDS, *FIELDS, *catalog().features, *DIMS, *DERIVED])
    assert not re.search(r"^\| `.*\| +\|$", text, re.M)  # each says what it is
