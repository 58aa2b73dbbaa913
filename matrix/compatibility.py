"""The matrix of an engine: every model with every feature, and every pair of features."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations

from matrix.cell import Cell, ask, ask_sizes, asked_of
from omni_config.cards import EngineCard, ModelCard
from omni_config.catalog.load import catalog
from omni_config.mesh import DEGREES

Pair = tuple[str, str]


#: Of a rare feature that the engine has for no model.
NOT_ASKED = Cell("no", ("OMNI503",), "the engine has none")


@dataclass(frozen=True)
class Matrix:
    """``models``: by model and feature. ``pairs``: by pair of features, the cells of the models that have both.

    ``alone`` are the answers for single features, as ``models`` has them before other sizes and other features are
    looked at.
    """

    engine: EngineCard
    features: tuple[str, ...]
    alone: dict[str, dict[str, Cell]]
    models: dict[str, dict[str, Cell]]
    pairs: dict[Pair, dict[str, Cell]]

    def pair(self, first: str, second: str) -> Cell:
        """The cell of a pair for all models together, in either order of the features.

        What a feature is denied or asked for by itself stands in the model's row and is not repeated here, so this is
        what the pair adds. A feature that the engine was not asked about is one that it lacks.
        """
        key = (first, second) if (first, second) in self.pairs else (second, first)
        if key not in self.pairs:
            return NOT_ASKED
        cells = self.pairs[key]
        if not cells:
            alone = [cell for row in self.models.values() for name in key if (cell := row[name]).verdict == "no"]
            return Cell("no", _union(alone), "no model has both")
        if len(self.models) == 1:
            return next(iter(cells.values()))
        return overall({model: self.added(key, model, cell) for model, cell in cells.items()})

    def added(self, key: Pair, model: str, cell: Cell) -> Cell:
        """The cell of a pair on a model, without what each feature by itself already says there."""
        alone = [self.alone[model][name] for name in key]
        known = {code for other in alone for code in other.all_codes}
        while cell.within and {*cell.codes} <= known:
            cell = cell.within
        said = {*cell.all_codes} <= known and cell.rank <= max(other.rank for other in alone)
        return replace(cell, verdict="yes", codes=(), words="") if said else cell


@cache
def compile_matrix(engine: str, models: tuple[str, ...] = ()) -> Matrix:
    """Ask about every model and every pair; ``models`` limits it to some.

    Raises:
        ValueError: the engine or a model has no card, or the engine runs none of the models.
    """
    card = catalog().engine(engine)
    if card is None:
        raise ValueError(f"no card for engine '{engine}'; known: {', '.join(catalog().engine_ids)}")
    features = features_of(card)
    cards: dict[str, ModelCard] = {}
    for name in models or catalog().charted_ids:
        model = catalog().model(name)
        if model is None:
            raise ValueError(f"no card for model '{name}'; see omni matrix --format csv")
        if card.claim(model) is not None:
            cards[name] = model
    if not cards:
        raise ValueError(f"engine {engine} runs none of these models")
    alone = {
        name: {feature: ask([feature], asked_of(model, card)) for feature in features} for name, model in cards.items()
    }
    pairs: dict[Pair, dict[str, Cell]] = {pair: {} for pair in combinations(features, 2)}
    for name, model in cards.items():
        for pair in combinations(usable(alone[name]), 2):
            pairs[pair][name] = ask(pair, asked_of(model, card))
    rows = {
        name: {
            feature: _single_gpu(feature, ask_sizes(feature, cell, asked_of(cards[name], card)), name, pairs)
            for feature, cell in row.items()
        }
        for name, row in alone.items()
    }
    return Matrix(card, features, alone, rows, pairs)


def features_of(engine: EngineCard) -> tuple[str, ...]:
    """The features that an engine is asked about: all but the rare ones that it has for no model."""
    return tuple(name for name, item in catalog().features.items() if not item.rare or engine.has_for_some(name))


def usable(row: dict[str, Cell]) -> list[str]:
    """Features that are not refused by themselves: those that are, in every way to set them, are so with any other."""
    return [feature for feature, cell in row.items() if cell.verdict not in ("no", "adjusted")]


def together(names: Sequence[str], engine: str, models: tuple[str, ...] = ()) -> dict[str, dict[str, Cell]]:
    """A set of features with each other feature, by feature and model; the set alone is under ``""``.

    Raises:
        ValueError: the engine or a model is unknown.
    """
    table = compile_matrix(engine, models)
    result: dict[str, dict[str, Cell]] = {}
    for other in ("", *(feature for feature in table.features if feature not in names)):
        wanted = [*names, *([other] if other else [])]
        result[other] = {
            model: ask(wanted, asked_of(catalog().model(model), table.engine))
            for model, row in table.alone.items()
            if {*wanted} <= {*usable(row)}
        }
    return result


def overall(cells: dict[str, Cell]) -> Cell:
    """One cell for several models: theirs where they agree, else "only", with the models that differ."""
    best = min(cells.values(), key=lambda cell: cell.rank)
    others = [model for model, cell in cells.items() if cell.verdict != best.verdict]
    if others:
        return Cell("only", _union(cells.values()), f"differs on {_listed(others)}", best.settings)
    alike = len({cell.words for cell in cells.values()}) == 1
    words = best.words if alike or best.verdict == "no" else f"{best.words}, by model"
    return Cell(best.verdict, _union(cells.values()), words, best.settings)


def _union(cells: Iterable[Cell]) -> tuple[str, ...]:
    return tuple(sorted({code for cell in cells for code in cell.all_codes}))


def _listed(models: list[str]) -> str:
    short = [name.rpartition("/")[2] for name in models]
    return ", ".join(short[:3]) + (f" and {len(short) - 3} more" if len(short) > 3 else "")


def _single_gpu(feature: str, cell: Cell, model: str, pairs: dict[Pair, dict[str, Cell]]) -> Cell:
    """The cell of a feature; "only on a single GPU" where each degree that the model has is refused beside it."""
    degrees = [name for name, item in catalog().features.items() if {*item.fields} <= {*DEGREES}]
    if feature in degrees or catalog().features[feature].beside or cell.verdict not in ("yes", "warned"):
        return cell
    beside = [
        cells[model] for pair, cells in pairs.items() if feature in pair and {*pair} & {*degrees} and model in cells
    ]
    if not beside or any(other.verdict != "no" for other in beside):
        return cell
    codes = (code for other in beside for code in other.codes)
    return Cell("only", tuple(dict.fromkeys(codes)), "on a single GPU", cell.settings, cell)
