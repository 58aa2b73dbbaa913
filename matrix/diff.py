"""Where two matrices differ, and why: the documented engine against the published table, and against its source."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import yaml

from matrix.cell import Cell, Verdict
from matrix.compatibility import NOT_ASKED, Matrix
from matrix.evidence import everything, key
from omni_config.cards import Disagreement
from omni_config.catalog.load import catalog
from omni_config.rules.kinds import Supported

PUBLISHED = Path(__file__).with_name("published.yaml")


@dataclass(frozen=True, slots=True)
class Difference:
    """One cell: what each side says, and the reasons of the second. ``model`` is empty for a pair of features."""

    model: str
    features: tuple[str, ...]
    first: Verdict
    second: Verdict
    codes: tuple[str, ...]
    words: str
    disagreements: tuple[str, ...]  # topics in catalog/disagreements.yaml

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {name: list(v) if isinstance(v := getattr(self, name), tuple) else v for name in self.__slots__}


@cache
def published() -> dict[str, Any]:
    """The published table."""
    content: dict[str, Any] = yaml.safe_load(PUBLISHED.read_text(encoding="utf-8"))
    return content


def against_published(table: Matrix) -> Iterator[Difference]:
    """Cells in which the published table and a compiled matrix differ."""
    said = published()
    for second, row in said["pairs"].items():
        for first, verdict in _cells(row).items():
            cell = table.pair(first, second)
            if cell.verdict != verdict:
                yield _difference("", (first, second), verdict, cell)
    for row in said["models"]:
        model = row["ids"][0]
        for feature, verdict in _cells(row).items():
            if model in table.models and table.models[model][feature].verdict != verdict:
                yield _difference(model, (feature,), verdict, table.models[model][feature])


def against(first: Matrix, second: Matrix) -> Iterator[Difference]:
    """Cells in which two compiled matrices differ, for what both engines run."""
    features = tuple(dict.fromkeys((*first.features, *second.features)))
    for pair in combinations(features, 2):
        mine, other = first.pair(*pair), second.pair(*pair)
        if mine.verdict != other.verdict:
            yield _difference("", pair, mine.verdict, other, mine)
    for model in first.models:
        if model not in second.models:
            continue
        for feature in features:
            mine, other = (table.models[model].get(feature, NOT_ASKED) for table in (first, second))
            if mine.verdict != other.verdict:
                yield _difference(model, (feature,), mine.verdict, other, mine)


def proven_unverified() -> list[tuple[str, tuple[str, ...], str]]:
    """Cells that the published table calls not verified and a run has proven, each with what the run showed.

    By model (empty for pairs) and features. A model's cell is proven by a run of its pipeline class.
    """
    said, shown = published(), everything()
    cells: list[tuple[str, tuple[str, ...]]]
    cells = [("", (first, second)) for second, row in said["pairs"].items() for first in row.get("unverified", [])]
    cells += [(row["ids"][0], (name,)) for row in said["models"] for name in row.get("unverified", [])]
    found = []
    for model, features in cells:
        card = catalog().model(model)
        for pipeline, entry in shown.get(key(features), {}).items():
            if entry.proven and entry.verdict != "no" and (card is None or card.pipeline == pipeline):
                found.append((model, features, f"{pipeline}: {entry.spoken()}"))
    return found


def _cells(row: dict[str, Any]) -> dict[str, Verdict]:
    """A row of the published table in our verdicts."""
    ours: dict[str, Verdict] = {"supported": "yes", "unverified": "warned", "unsupported": "no"}
    cells = {feature: verdict for key, verdict in ours.items() for feature in row.get(key, [])}
    only: dict[str, Verdict] = dict.fromkeys(row.get("only", {}), "only")
    return cells | only


def _difference(
    model: str, features: tuple[str, ...], first: Verdict, cell: Cell, other: Cell | None = None
) -> Difference:
    codes = cell.all_codes or (other.all_codes if other else ())
    words = cell.words or (f"there: {other.words}" if other and other.words else "")
    return Difference(model, features, first, cell.verdict, codes, words, _topics(model, features, codes))


def _topics(model: str, features: tuple[str, ...], codes: tuple[str, ...]) -> tuple[str, ...]:
    """Disagreements of the catalog that are about this cell."""
    return tuple(item.topic for item in catalog().disagreements if _about(item, model, {*features}, {*codes}))


def _about(item: Disagreement, model: str, features: set[str], codes: set[str]) -> bool:
    if item.models:
        return model in item.models and (not item.features or features <= {*item.features})
    if item.features:
        return {*item.features} <= features
    # Which features a model has is decided by one rule for all of them, so that rule's code says nothing.
    followed = {word.strip("().,;") for word in item.we_follow.split()} & catalog().by_code.keys()
    return any(code in codes and not isinstance(catalog().by_code[code], Supported) for code in followed)
