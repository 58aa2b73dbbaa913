"""What runs of engines have shown, as pages, and for the web page of the matrix."""

from __future__ import annotations

from collections import Counter

from matrix.engines.evidence import Entry, everything
from matrix.engines.judge import OUTCOMES
from omni_config.catalog.load import catalog

WORDS: dict[str, str] = {
    **dict(OUTCOMES.items()),
    "no words": "cannot be said: the engine's command has no words for it",
}
SHOWN = 110  # characters of an error in a table


def runs_of_engines() -> dict[str, dict[str, list[str]]]:
    """By engine and cell, a line a model."""
    found: dict[str, dict[str, list[str]]] = {}
    for engine, model, entries in everything():
        for cell, entry in entries.items():
            word = "refuted" if not entry.agrees else "claimed" if entry.outcome == "not shown" else "proven"
            line = f"{model}, {word}: the engine itself, {entry.outcome}: {entry.why} ({entry.date})"
            found.setdefault(engine, {}).setdefault(cell, []).append(line)
    return found


def page() -> list[str]:
    """The engines that were run: outcomes by model, what single features did, and where the rules are refuted."""
    lines = ["# Engines, run", "", *_introduction()]
    by_engine: dict[str, dict[str, dict[str, Entry]]] = {}
    for engine, model, entries in everything():
        by_engine.setdefault(engine, {})[model] = entries
    for engine, models in by_engine.items():
        lines += ["", f"## `{engine}`", "", *_outcomes(models), "", *_singles(models), *_refuted(models)]
        versions = next(iter(next(iter(models.values())).values())).versions
        lines += ["", f"Versions: {', '.join(f'{name} {number}' for name, number in versions.items())}."]
    return lines


def _introduction() -> list[str]:
    return [
        "Each cell is the engine's own command, made of a config of ours, with a small model of the published",
        "one's class in its place, against one process; a weight damaged on one rank had to be noticed. On a CPU,",
        "stand-ins take the place of what only a GPU has; none decides a verdict (`matrix/engines/*/standins`).",
        "",
        "```bash",
        "omni engine install xdit==0.7",
        "omni prove --engine xdit==0.7 config.yaml",
        "omni matrix prove --engine xdit==0.7",
        "```",
        "",
        *(f"- **{outcome}**: {words}" for outcome, words in WORDS.items()),
    ]


def _outcomes(models: dict[str, dict[str, Entry]]) -> list[str]:
    names = [
        name for name in WORDS if any(entry.outcome == name for cells in models.values() for entry in cells.values())
    ]
    lines = [f"| model | {' | '.join(names)} | rules borne out |", f"|---|{'---|' * (len(names) + 1)}"]
    for model, cells in models.items():
        counts = Counter(entry.outcome for entry in cells.values())
        agreeing = sum(entry.agrees for entry in cells.values())
        shown = " | ".join(str(counts[name]) for name in names)
        lines.append(f"| {model} | {shown} | {agreeing} of {len(cells)} |")
    return lines


def _singles(models: dict[str, dict[str, Entry]]) -> list[str]:
    lines = ["| feature | model | the rules say | outcome | |", "|---|---|---|---|---|"]
    for feature in catalog().features:
        for model, cells in models.items():
            entry = cells.get(feature)
            if entry is not None and entry.outcome != "no words":
                title = catalog().features[feature].title
                lines.append(f"| {title} | {model} | {_verdict(entry)} | {entry.outcome} | {_why(entry)} |")
    return lines


def _refuted(models: dict[str, dict[str, Entry]]) -> list[str]:
    found = [(cell, model, one) for model, cells in models.items() for cell, one in cells.items() if not one.agrees]
    if not found:
        return []
    lines = [
        "",
        "Where the run refutes the rules:",
        "",
        "| cell | model | the rules say | outcome | |",
        "|---|---|---|---|---|",
    ]
    return lines + [
        f"| {cell} | {model} | {_verdict(entry)} | {entry.outcome} | {_why(entry)} |" for cell, model, entry in found
    ]


def _verdict(entry: Entry) -> str:
    return " ".join((entry.verdict, *(f"[{code}](../rules/{code}.md)" for code in entry.codes)))


def _why(entry: Entry) -> str:
    text = entry.why.replace("|", "\\|")
    text = text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."
    return text + (f" ({entry.moment})" if entry.moment else "")
