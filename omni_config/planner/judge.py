"""The estimate held against published measurements: scaling inside each table, and the order of its rows.

python -m omni_config.planner.judge
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from statistics import correlation, median
from typing import Any

from omni_config.cards import Guidance, ModelCard
from omni_config.catalog.load import catalog
from omni_config.estimate.data import Bound, gpus
from omni_config.estimate.estimate import seconds
from omni_config.mesh import AXES
from omni_config.resolving.target import target_of
from omni_config.rules.quantities import Quantities
from omni_config.schema.settings import validate

_INITIALS = {axis.name[0]: axis.setting for axis in AXES}  # by which a table names its columns
_UNSTATED = ("taken", "estimated as", "seconds a step")  # words of a source that leaves something open
_NOT_DENOISING = ("text encoder", "VAE decode")


@dataclass(frozen=True)
class Judged:
    """One table: measured and estimated seconds, row by row. The first row is what the others are compared with.

    ``ends`` are the estimate's at best and at worst. ``is_stated``: its source says all that seconds depend on, which
    are those of a whole call or of all its steps.
    """

    id: str
    use: str
    source: str
    rows: tuple[str, ...]
    measured: tuple[float, ...]
    estimated: tuple[float, ...]
    ends: tuple[tuple[float, float], ...]
    is_stated: bool

    @property
    def errors(self) -> list[float]:
        """Relative error of each row's speed-up over the first row."""
        speedups = [
            (self.estimated[0] / ours) / (self.measured[0] / theirs)
            for ours, theirs in zip(self.estimated[1:], self.measured[1:], strict=True)
        ]
        return [abs(ratio - 1) for ratio in speedups]

    @property
    def rank_correlation(self) -> float:
        """Spearman's coefficient of the rows' order; 1 is the same order."""
        return correlation(ranks(self.measured), ranks(self.estimated))


@cache
def tables() -> list[Judged]:
    """Every published table, estimated."""
    import yaml

    published = yaml.safe_load(Path(__file__).with_name("published.yaml").read_text(encoding="utf-8"))
    return [_judge(table) for table in published]


def summary(use: str) -> dict[str, float]:
    """Median error of all speed-ups, and mean and median rank correlation of tables with three rows or more."""
    chosen = [table for table in tables() if table.use == use]
    order = [table.rank_correlation for table in chosen if len(table.rows) > 2]
    return {
        "tables": len(chosen),
        "rows": sum(len(table.errors) for table in chosen),
        "median_error": median(error for table in chosen for error in table.errors),
        "mean_rank_correlation": sum(order) / len(order),
        "median_rank_correlation": median(order),
    }


def absolute(use: str) -> dict[str, float]:
    """Errors of the seconds themselves, of tables whose sources state all, and how many rows lie in their range."""
    chosen = [table for table in tables() if table.use == use and table.is_stated]
    rows = [row for one in chosen for row in zip(one.measured, one.estimated, one.ends, strict=True)]
    return {
        "rows": len(rows),
        "median_error": median(abs(ours / theirs - 1) for theirs, ours, _ in rows),
        "largest_error": max(abs(ours / theirs - 1) for theirs, ours, _ in rows),
        "inside": sum(low <= theirs <= high for theirs, _, (low, high) in rows),
    }


def _judge(table: dict[str, Any]) -> Judged:
    names, ours, ends = [], [], []
    for row in table["rows"]:
        q = _quantities(table, row)
        ours.append(_seconds(table, q, "value"))
        ends.append((_seconds(table, q, "best"), _seconds(table, q, "worst")))
        names.append(" ".join(f"{key}{value}" for key, value in row.items() if key != "seconds") or "1 GPU")
    measured = tuple(row["seconds"] for row in table["rows"])
    is_stated = not any(word in table["source"] for word in _UNSTATED)
    return Judged(
        table["id"], table["use"], table["source"], tuple(names), measured, tuple(ours), tuple(ends), is_stated
    )


def _seconds(table: dict[str, Any], q: Quantities, bound: Bound) -> float:
    terms = seconds(q, gpus()[table["gpu"]], bound)
    left_out = _NOT_DENOISING if table.get("what") == "denoising" else ()
    return sum(value for name, value in terms.items() if name not in left_out)


def _quantities(table: dict[str, Any], row: dict[str, Any]) -> Quantities:
    engine = catalog().engine(table.get("engine", "vllm-omni"))
    assert engine is not None
    card = _card(table)
    settings = validate({"version": 1, "model": card.id, "engine": engine.id}) | table["settings"]
    settings |= {_INITIALS.get(key, key): value for key, value in row.items() if key != "seconds"}
    target = target_of(card, engine).by(())
    return target.quantities(target.applied(settings)[0])


def _card(table: dict[str, Any]) -> ModelCard:
    card = catalog().model(table["model"])
    if card is None:  # a model that the catalog has no card for: its dimensions stand in the table
        flux = catalog().model("black-forest-labs/FLUX.1-dev")
        assert flux is not None
        guidance = Guidance("guidance_scale", 1.0, needs_negative_prompt=False, calls="batched")
        card = replace(flux, id=table["model"], dims=table["dims"], vae=None, guidance=guidance)
    return card


def ranks(values: Sequence[float]) -> list[float]:
    """The rank of each value; those that are equal share theirs."""
    return [sum(other < value for other in values) + 0.5 * sum(other == value for other in values) for value in values]


def report() -> str:
    """All tables as Markdown."""
    lines = ["| table | use | rows | median error | rank correlation |", "|---|---|---:|---:|---:|"]
    for table in tables():
        order = f"{table.rank_correlation:.2f}" if len(table.rows) > 2 else ""
        lines.append(f"| {table.id} | {table.use} | {len(table.rows)} | {median(table.errors):.0%} | {order} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print all tables, the summary of those that calibrate and judge, and every row."""
    print(report())
    for use in ("calibrate", "judge"):
        print(use, {name: round(value, 3) for name, value in summary(use).items()})
        print(use, "seconds", {name: round(value, 3) for name, value in absolute(use).items()})
    for table in tables():
        print(f"\n{table.id} ({table.source})")
        for name, theirs, ours in zip(table.rows, table.measured, table.estimated, strict=True):
            print(f"  {name:<16} measured {theirs:9.3f}  estimated {ours:9.3f}")


if __name__ == "__main__":
    main()
