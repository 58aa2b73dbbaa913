"""What runs of engines have shown, as pages, and for the web page of the matrix."""

from __future__ import annotations

from collections import Counter

from matrix.engines.environments import environments
from matrix.engines.evidence import Entry, everything, summary
from matrix.engines.judge import OUTCOMES
from omni_config.catalog.load import catalog

WORDS: dict[str, str] = {
    **dict(OUTCOMES.items()),
    "no words": "cannot be said: the engine's command has no words for it",
}
BORNE_OUT = ("equal", "near")  # which need no reason
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
    """The engines that were run: outcomes by class, what single features did, where the rules are refuted, and more."""
    lines = ["# Engines, run", "", *_introduction()]
    by_engine: dict[str, dict[str, dict[str, Entry]]] = {}
    for engine, model, entries in everything():
        by_engine.setdefault(engine, {})[model] = entries
    for engine, models in by_engine.items():
        lines += [
            "",
            f"## `{engine}`",
            "",
            *_whole(engine),
            *_drawn(engine),
            *_outcomes(models),
            "",
            *_singles(models),
            *_refuted(models),
        ]
        lines += [*_not_run(engine), *_disagreements(engine)]
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
        "omni matrix prove --engine xdit==0.7 --drawn 500 --seed 1",
        "```",
        "",
        *(f"- **{outcome}**: {words}" for outcome, words in WORDS.items()),
    ]


def _whole(engine: str) -> list[str]:
    taken = summary(engine, "whole")
    if taken is None:
        return []
    minutes, busy = (round(taken[name] / 60) for name in ("seconds", "cpu_seconds"))
    return [
        f"All {taken['runs']} runs with their references: {minutes} minutes on {taken['cores']} cores, with {busy}",
        f"minutes of their time ({taken['date']}).",
        "",
    ]


def _drawn(engine: str) -> list[str]:
    found = summary(engine, "drawn")
    if found is None:
        return []
    return [
        f"{found['count']} drawn configs (`--seed {found['seed']}`): {found['told']} show something, and of these",
        f"{found['agree']} do what the rules say ({found['date']}).",
        "",
    ]


def _outcomes(models: dict[str, dict[str, Entry]]) -> list[str]:
    names = [
        name for name in WORDS if any(entry.outcome == name for cells in models.values() for entry in cells.values())
    ]
    lines = [f"| class | model | {' | '.join(names)} | rules borne out |", f"|---|---|{'---|' * (len(names) + 1)}"]
    for model, cells in models.items():
        counts = Counter(entry.outcome for entry in cells.values())
        agreeing = sum(entry.agrees for entry in cells.values())
        shown = " | ".join(str(counts[name]) for name in names)
        lines.append(f"| {_class(model)} | {model} | {shown} | {agreeing} of {len(cells)} |")
    return lines


def _class(model: str) -> str:
    card = catalog().model(model)
    return card.pipeline if card else ""


def _singles(models: dict[str, dict[str, Entry]]) -> list[str]:
    """What each feature did by itself, on each class; then why, where it did not do what it is for."""
    told = {
        feature: {model: cells[feature] for model, cells in models.items() if feature in cells}
        for feature in catalog().features
    }
    told = {name: by for name, by in told.items() if any(one.outcome != "no words" for one in by.values())}
    classes = [_class(model).removesuffix("Pipeline") for model in models]
    lines = [f"| feature | {' | '.join(classes)} |", f"|---|{'---|' * len(models)}"]
    for name, by in told.items():
        outcomes = [by[model].outcome if model in by else "" for model in models]
        lines.append(f"| {catalog().features[name].title} | {' | '.join(outcomes)} |")
    lines += ["", "Why:", "", "| feature | the rules say | outcome | on | |", "|---|---|---|---|---|"]
    for name, by in told.items():
        alike: dict[tuple[str, str, str], list[str]] = {}
        for model, entry in by.items():
            if entry.outcome not in (*BORNE_OUT, "no words"):
                why = _why(entry).replace(model, "...")
                alike.setdefault((_verdict(entry), entry.outcome, why), []).append(
                    _class(model).removesuffix("Pipeline")
                )
        for (verdict, outcome, why), on in alike.items():
            lines.append(f"| {catalog().features[name].title} | {verdict} | {outcome} | {', '.join(on)} | {why} |")
    return lines


def _not_run(engine: str) -> list[str]:
    found = environments()[engine].described.get("not_run", {})
    if not found:
        return []
    return ["", "Not run:", "", *(f"- {name}: {why}" for name, why in found.items())]


def _disagreements(engine: str) -> list[str]:
    """What runs have shown, each with the command that shows it again."""
    found = [one for one in catalog().disagreements if one.run and f"--engine {engine}" in one.run]
    if not found:
        return []
    lines = [
        "",
        f"{len(found)} disagreements that runs have shown ([all](../disagreements.md)), each with its command:",
        "",
    ]
    for one in found:
        lines += [f"- {one.topic}: {one.source_code}", "", f"  `{one.run}` shows: {one.shows}"]
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
    told = entry.judged
    return text + (f" ({told.moment})" if told and told.moment else "")
