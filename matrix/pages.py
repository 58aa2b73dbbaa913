"""Generated pages of the matrix: overview, table of models, a page a feature and a model, an image an engine.

The overview and the images are kept in git; the rest is built where it is published.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import yaml

from matrix.cell import VERDICTS, Cell
from matrix.compatibility import Matrix, compile_matrix
from matrix.engines.pages import page as runs_page
from matrix.evidence import everything
from matrix.formats import explained, models_markdown, pairs_markdown, slug
from matrix.html import to_html
from matrix.svg import to_svg
from omni_config.catalog.load import catalog
from omni_config.output.pages import GENERATED
from omni_config.schema.settings import DEFAULTS, tree_of

#: Files that are generated here, below the folder of the pages.
OWNED = ("matrix/*.md", "matrix/*.svg", "matrix/*.html", "matrix/*/*.md")

_NOT_HERE = "`make site` builds that table, a page for each feature and model, and one page with a configurator."


def kept(tables: Sequence[Matrix] | None = None) -> dict[str, str]:
    """The pages that are kept in git, by their path below ``docs/``: they link to nothing that is not."""
    known = _known(tables)
    return {
        "matrix/README.md": f"{GENERATED}{_overview(known, published=False)}\n",
        "matrix/engines.md": f"{GENERATED}{_engines()}\n",
    } | _images(known)


def pages(tables: Sequence[Matrix] | None = None) -> dict[str, str]:
    """Every page that is published, by its path."""
    known = _known(tables)
    result = {"matrix/README.md": _overview(known, published=True), "matrix/models.md": _models(known)}
    result["matrix/engines.md"] = _engines()
    result |= {f"matrix/features/{name}.md": _feature(name, known) for name in catalog().features}
    result |= {f"matrix/models/{slug(name)}.md": _model(name, known) for name in catalog().charted_ids}
    marked = {path: f"{GENERATED}{text}\n" for path, text in result.items()}
    return marked | _images(known) | {"matrix/page.html": to_html()}


def _engines() -> str:
    return "\n".join(runs_page())


def _known(tables: Sequence[Matrix] | None) -> Sequence[Matrix]:
    return tables or [compile_matrix(engine) for engine in sorted(catalog().matrix_engines)]


def _images(tables: Sequence[Matrix]) -> dict[str, str]:
    return {f"matrix/{table.engine.id.replace('==', '-')}.svg": to_svg(table) for table in tables}


def _overview(tables: Sequence[Matrix], *, published: bool) -> str:
    models = "[table of models](models.md)" if published else "table of models"
    lines = [
        "# Compatibility matrix",
        "",
        "Compiled from the rules: each cell is what `omni check` says of a config with these features on, and links to",
        f"the rule that decides. What one feature is denied by itself stands in the {models} and is",
        "not repeated in the pairs.",
        "",
        "The same as [one page](page.html), with a configurator." if published else _NOT_HERE,
        "",
        *(f"- **{verdict}**: {words}" for verdict, words in VERDICTS.items()),
    ]
    for table in tables:
        lines += ["", f"## `{table.engine.id}`", "", f"{table.engine.title}.", ""]
        lines.append(pairs_markdown(table, "../rules/", "features/{}.md" if published else ""))
        differing = [
            f"| {_title(first)} + {_title(second)} | {explained(cell, '../rules/')} |"
            for first, second in table.pairs
            if table.pairs[first, second] and (cell := table.pair(first, second)).verdict != "yes"
        ]
        lines += ["", "| pair | verdict | rules | in words |", "|---|---|---|---|", *differing]
    return "\n".join([*lines, *_evidence()])


def _evidence() -> list[str]:
    """What runs have shown. Whether that is still so depends on the machine, so `omni matrix` says it and no page."""
    lines = ["", "## Proven by runs", "", "`omni matrix prove` ran these cells of the built-in runtime; every run had"]
    lines += [
        "controls, in which one damaged weight had to be noticed. What other engines did when they were run is",
        "[on a page of its own](engines.md). All other cells are claims.",
        "",
        "| cell | pipeline | | what the run showed | torch | date |",
        "|---|---|---|---|---|---|",
    ]
    for name, by_pipeline in sorted(everything().items()):
        for pipeline, entry in by_pipeline.items():
            if entry.difference is not None or not entry.proven:
                cell = " + ".join(_title(feature) for feature in name.split("+"))
                word = "proven" if entry.proven else "refuted"
                torch = entry.versions["torch"]
                lines.append(f"| {cell} | {pipeline} | {word} | {entry.spoken()} | {torch} | {entry.date} |")
    return lines


def _models(tables: Sequence[Matrix]) -> str:
    lines = ["# Models and features", "", "See the [matrix](README.md) for what the words mean."]
    for table in tables:
        lines += ["", f"## `{table.engine.id}`", "", models_markdown(table, "../rules/", "models/{}.md")]
    return "\n".join(lines)


def _feature(name: str, tables: Sequence[Matrix]) -> str:
    feature = catalog().features[name]
    tree = tree_of(DEFAULTS | {"version": 1, "model": "tiny"} | feature.switch_on)
    wanted = {section: tree[section] for section in tree if section != "version"}
    changed = _only_changed(wanted, tree_of(DEFAULTS | {"version": 1, "model": "tiny"}))
    lines = [f"# {feature.title}", "", feature.summary, "", "```yaml", yaml.safe_dump(changed).rstrip(), "```"]
    for table in (table for table in tables if name in table.features):
        lines += ["", f"## `{table.engine.id}`", ""]
        verdicts = Counter(row[name].verdict for row in table.models.values())
        lines += [", ".join(f"{verdicts[v]} models: {v}" for v in VERDICTS if verdicts[v]) + ".", ""]
        if not any(row[name].verdict != "no" for row in table.models.values()):
            continue
        lines += ["| with | verdict | rules | in words |", "|---|---|---|---|"]
        for other in table.features:
            if other != name:
                lines.append(
                    f"| [{_title(other)}]({other}.md) | {explained(table.pair(name, other), '../../rules/')} |"
                )
        lines += ["", "| model | verdict | rules | in words |", "|---|---|---|---|"]
        for model, row in table.models.items():
            if row[name].verdict != "no":
                lines.append(f"| [{model}](../models/{slug(model)}.md) | {explained(row[name], '../../rules/')} |")
    return "\n".join(lines)


def _model(name: str, tables: Sequence[Matrix]) -> str:
    card = catalog().model(name)
    assert card is not None
    lines = [f"# {name}", "", f"{card.family}, `{card.pipeline}`, {card.task.replace('_', ' ')}."]
    lines += ["", *(f"- {note}" for note in card.notes)] if card.notes else []
    for table in tables:
        if name not in table.models:
            continue
        lines += ["", f"## `{table.engine.id}`", "", "| feature | verdict | rules | in words |", "|---|---|---|---|"]
        for feature, cell in table.models[name].items():
            lines.append(f"| [{_title(feature)}](../features/{feature}.md) | {explained(cell, '../../rules/')} |")
        pairs = [(pair, cells[name]) for pair, cells in table.pairs.items() if name in cells]
        differing = [(pair, cell) for pair, cell in pairs if _says_more(table, name, pair, cell)]
        if differing:
            lines += ["", "| pair | verdict | rules | in words |", "|---|---|---|---|"]
            for (first, second), cell in differing:
                lines.append(f"| {_title(first)} + {_title(second)} | {explained(cell, '../../rules/')} |")
    return "\n".join(lines)


def _says_more(table: Matrix, model: str, pair: tuple[str, str], cell: Cell) -> bool:
    return table.added(pair, model, cell).verdict != "yes"


def _title(feature: str) -> str:
    return catalog().features[feature].title


def _only_changed(tree: dict[str, object], defaults: dict[str, object]) -> dict[str, object]:
    """What a tree says that the defaults do not."""
    result: dict[str, object] = {}
    for key, value in tree.items():
        default = defaults.get(key)
        if isinstance(value, dict):
            inner = _only_changed(value, default if isinstance(default, dict) else {})
            if inner or not isinstance(default, dict):
                result[key] = inner
        elif value != default:
            result[key] = value
    return result
