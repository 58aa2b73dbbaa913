"""Matrices as text, Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic_core import to_json as to_indented  # json's own takes ten times as long
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from matrix.cell import VERDICTS, Cell, Verdict
from matrix.compatibility import Matrix
from matrix.diff import Difference
from matrix.engines.evidence import everything as engine_runs
from matrix.evidence import Evidence, everything
from omni_config.catalog.load import catalog

COLORS: dict[Verdict, str] = {"yes": "green", "warned": "yellow", "only": "cyan", "adjusted": "magenta", "no": "red"}
SHORT: dict[Verdict, str] = {"yes": "yes", "warned": "warn", "only": "only", "adjusted": "adj", "no": "no"}


def to_text(tables: Sequence[Matrix]) -> RenderableType:
    """Both tables of each engine for a terminal, and beneath them the reason of each cell that is not a plain yes."""
    shown = [table for table in tables if table.engine.id == "native"]
    parts = [part for table in tables for part in (_pairs_text(table), _models_text(table))]
    legend = Text("  ").join(Text(f"{SHORT[name]} {words}", COLORS[name]) for name, words in VERDICTS.items())
    runs = [_runs_text(table.engine.id) for table in tables]
    return Group(*parts, *(_evidence_text() for _ in shown), *(text for text in runs if text.plain), legend)


def _runs_text(engine: str) -> Text:
    """What runs of another engine itself have shown, by model, and each cell that refutes a rule or is stale."""
    text = Text()
    for name, model, entries in engine_runs():
        if name != engine:
            continue
        if not text.plain:
            text.append(f"Evidence of runs, engine {engine} itself\n", "bold")
        counts = Counter(entry.status().partition(" (")[0] for entry in entries.values())
        text.append(f"  {model}: {', '.join(f'{number} cells {word}' for word, number in counts.most_common())}\n")
        for cell, entry in entries.items():
            if not entry.agrees or entry.stale():
                text.append(f"    {cell}: {entry.status()}, {entry.outcome}: {entry.why}\n")
    return text


def _evidence_text() -> Text:
    """How many cells of the built-in runtime are proven, and each that a run refuted or that is stale."""
    text = Text("Evidence of runs, engine native\n", "bold")
    pipelines: dict[str, list[tuple[str, Evidence]]] = {}
    for name, by_pipeline in everything().items():
        for pipeline, entry in by_pipeline.items():
            pipelines.setdefault(pipeline, []).append((name, entry))
    for pipeline, entries in pipelines.items():
        proven = sum(entry.proven for _, entry in entries)
        text.append(f"  {pipeline}: {proven} of {len(entries)} cells proven\n")
        for name, entry in entries:
            if not entry.proven or entry.stale():
                text.append(f"    {name}: {entry.status()}, {entry.spoken()}\n")
    return text


def _grid(title: str, rows: Iterable[tuple[str, Iterable[Cell]]], columns: int) -> Table:
    grid = Table(title=title, title_justify="left", box=None, padding=(0, 1), pad_edge=False)
    grid.add_column()
    for number in range(1, columns + 1):
        grid.add_column(str(number), justify="right")
    for name, cells in rows:
        grid.add_row(name, *(Text(SHORT[cell.verdict], COLORS[cell.verdict]) for cell in cells))
    return grid


def _pairs_text(table: Matrix) -> Group:
    features = table.features
    rows = [
        (
            f"{number:2} {catalog().features[name].title}",
            [table.pair(other, name) for other in features[: number - 1]],
        )
        for number, name in enumerate(features, start=1)
    ]
    reasons = Text()
    for number, name in enumerate(features):
        for other in features[:number]:
            cell = table.pair(other, name)
            if cell.verdict != "yes" and table.pairs[other, name]:
                line = f"  {catalog().features[other].title} + {catalog().features[name].title}: "
                reasons.append(line).append(cell.verdict, COLORS[cell.verdict])
                reasons.append(f", {cell.words} [{', '.join(cell.all_codes)}]\n")
    title = f"Pairs of features, engine {table.engine.id}"
    return Group(_grid(title, rows, len(features) - 1), reasons)


def _models_text(table: Matrix) -> Group:
    rows = [(name, row.values()) for name, row in table.models.items()]
    reasons = Text("\n")
    for name, row in table.models.items():
        for feature, cell in row.items():
            if cell.verdict not in ("yes", "no"):
                reasons.append(f"  {name}, {catalog().features[feature].title}: ")
                reasons.append(cell.verdict, COLORS[cell.verdict])
                reasons.append(f", {cell.words} [{', '.join(cell.all_codes)}]\n")
    return Group(_grid(f"Models, engine {table.engine.id}", rows, len(table.features)), reasons)


def to_json(tables: Sequence[Matrix]) -> str:
    """All cells by engine, with the settings that were asked."""
    return to_indented({table.engine.id: _as_dict(table) for table in tables}, indent=1).decode()


def _as_dict(table: Matrix) -> dict[str, Any]:
    pairs = [
        {"features": list(pair)}
        | table.pair(*pair).to_dict()
        | {"models": {model: cell.to_dict() for model, cell in cells.items()}}
        for pair, cells in table.pairs.items()
    ]
    models = {name: {feature: cell.to_dict() for feature, cell in row.items()} for name, row in table.models.items()}
    return {"features": list(table.features), "pairs": pairs, "models": models}


def to_csv(tables: Sequence[Matrix]) -> str:
    """A line a cell; pairs of all models together have no model, features by themselves no second feature."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["engine", "model", "feature", "with", "verdict", "rules", "words"])
    for table in tables:
        for first, second in table.pairs:
            writer.writerow(_line(table, "", first, second, table.pair(first, second)))
        for name, row in table.models.items():
            for feature, cell in row.items():
                writer.writerow(_line(table, name, feature, "", cell))
    return file.getvalue()


def _line(table: Matrix, model: str, feature: str, other: str, cell: Cell) -> list[str]:
    return [table.engine.id, model, feature, other, cell.verdict, " ".join(cell.all_codes), cell.words]


def to_markdown(tables: Sequence[Matrix], rules: str = "docs/rules/") -> str:
    """Both tables of each engine; ``rules`` is where the rules' pages are."""
    parts = []
    for table in tables:
        parts += [f"## Pairs of features: `{table.engine.id}`", "", pairs_markdown(table, rules), ""]
        parts += [f"## Models: `{table.engine.id}`", "", models_markdown(table, rules), ""]
    return "\n".join(parts)


def pairs_markdown(table: Matrix, rules: str, row_link: str = "") -> str:
    """The triangle of pairs; ``row_link`` is a format of the link of a row's name."""
    features = table.features
    lines = ["| | " + " | ".join(catalog().features[name].title for name in features[:-1]) + " |"]
    lines.append("|" + "---|" * len(features))
    for number, name in enumerate(features):
        cells = [marked(table.pair(other, name), rules) for other in features[:number]]
        blanks = [""] * (len(features) - 1 - len(cells))
        if number:
            lines.append("| " + " | ".join([_linked(name, row_link), *cells, *blanks]) + " |")
    return "\n".join(lines)


def models_markdown(table: Matrix, rules: str, row_link: str = "") -> str:
    """A row a model, a column a feature."""
    lines = ["| | " + " | ".join(catalog().features[name].title for name in table.features) + " |"]
    lines.append("|" + "---|" * (len(table.features) + 1))
    for name, row in table.models.items():
        label = f"[{name}]({row_link.format(slug(name))})" if row_link else name
        lines.append(f"| {label} | " + " | ".join(marked(cell, rules) for cell in row.values()) + " |")
    return "\n".join(lines)


def marked(cell: Cell, rules: str) -> str:
    """A cell in Markdown: its verdict, which links to the page of the first rule that decides it."""
    codes = cell.all_codes
    return f"[{cell.verdict}]({rules}{codes[0]}.md)" if codes else cell.verdict


def explained(cell: Cell, rules: str) -> str:
    """Three cells of a Markdown table: verdict, rules, words."""
    linked = ", ".join(f"[{code}]({rules}{code}.md)" for code in cell.all_codes)
    return f"{cell.verdict} | {linked} | {cell.words}"


def slug(model: str) -> str:
    """A model's id as the name of a file."""
    return model.replace("/", "--")


def _linked(feature: str, link: str) -> str:
    title = catalog().features[feature].title
    return f"[{title}]({link.format(feature)})" if link else title


def sets_text(names: Sequence[str], answers: dict[str, dict[str, dict[str, Cell]]]) -> Text:
    """``--with``: for each engine, the set by itself and with each other feature, where models have them all."""
    text = Text()
    together = " + ".join(catalog().features[name].title for name in names)
    for engine, by_feature in answers.items():
        text.append(f"{together}, engine {engine}\n", "bold")
        for other, cells in by_feature.items():
            label = f"+ {catalog().features[other].title}" if other else "by themselves"
            if not cells:
                text.append(f"  {label}: ").append("no", COLORS["no"]).append(", no model has them all\n")
                continue
            by_words: dict[tuple[Verdict, str, tuple[str, ...]], list[str]] = {}
            for model, cell in cells.items():
                by_words.setdefault((cell.verdict, cell.words, cell.all_codes), []).append(model)
            for (verdict, words, codes), models in by_words.items():
                text.append(f"  {label}: ").append(verdict, COLORS[verdict])
                text.append((f", {words}" if words else "") + (f" [{', '.join(codes)}]" if codes else ""))
                text.append(f" ({len(models)} models)\n" if len(models) > 3 else f" ({', '.join(models)})\n")
    return text


def sets_json(names: Sequence[str], answers: dict[str, dict[str, dict[str, Cell]]]) -> str:
    """``--with`` as JSON: by engine, further feature ("" for none) and model."""
    cells = {
        engine: {
            other: {model: cell.to_dict() for model, cell in by_model.items()} for other, by_model in found.items()
        }
        for engine, found in answers.items()
    }
    return to_indented({"features": list(names), "engines": cells}, indent=1).decode()


def diff_text(parts: dict[str, list[Difference]], proven: list[tuple[str, tuple[str, ...], str]]) -> Text:
    """Differing cells, each with both verdicts and the reasons; then the cells that a run has proven."""
    text = Text()
    for title, found in parts.items():
        text.append(f"{title}: {len(found)} cells differ\n", "bold")
        for item in found:
            features = " + ".join(catalog().features[name].title for name in item.features)
            text.append(f"  {item.model + ', ' if item.model else ''}{features}: ")
            text.append(item.first, COLORS[item.first]).append(" -> ").append(item.second, COLORS[item.second])
            if item.words:
                text.append(f"\n      {item.words}")
            for code in item.codes:
                text.append(f"\n      {code} {catalog().by_code[code].name}")
            for topic in item.disagreements:
                text.append(f"\n      see Disagreements: {topic}")
            text.append("\n")
        text.append("\n")
    text.append(f"published as not verified, proven by our runtime: {len(proven)} cells\n", "bold")
    for model, names, words in proven:
        features = " + ".join(catalog().features[name].title for name in names)
        text.append(f"  {model + ', ' if model else ''}{features}: {words}\n")
    return text
