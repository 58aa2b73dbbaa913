"""The coverage of the engines' versions as a table, for the terminal and as a page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.table import Table

from omni_config.engines.answers import REASONS
from omni_config.engines.coverage import Coverage

_HEAD = (
    ("engine", ""),
    ("guards", "places of its source that refuse or warn under a condition on a setting"),
    ("rule", "a rule stands for it"),
    *((reason.replace("_", " "), words) for reason, words in REASONS.items()),
    ("unanswered", "no answer yet"),
    ("flags read", "become settings of ours, or are passed by on purpose"),
    ("flags judged", "a rule asks for their setting, or their choices or type are checked"),
    ("flags known", "that they exist is all"),
    ("with card", "pipelines for which there is a model card"),
    ("no card needed", "pipelines that are no model of images, videos or audio of their own; the reasons stand below"),
    ("without card", "pipelines that are judged by the facts alone"),
)


def to_text(found: Iterable[Coverage]) -> Table:
    """The table for a terminal."""
    table = Table()
    for index, (title, _) in enumerate(_HEAD):
        table.add_column(title, justify="right" if index else "left", no_wrap=not index)
    for one in found:
        table.add_row(*_row(one))
    return table


def to_markdown(found: Sequence[Coverage]) -> str:
    """The same as a table of a page, with what the columns mean, and the rules that stand for guards."""
    lines = [
        f"| {' | '.join(title for title, _ in _HEAD)} |",
        f"|---|{'---:|' * (len(_HEAD) - 1)}",
        *(f"| {' | '.join(_row(one))} |" for one in found),
        "",
        *(f"- **{title}**: {words}" for title, words in _HEAD if words),
        "",
        *_without_card(found),
    ]
    return "\n".join(lines)


def _row(one: Coverage) -> list[str]:
    numbers = [
        one.guards,
        sum(one.rules.values()),
        *(one.reasons.get(reason, 0) for reason in REASONS),
        len(one.unanswered),
        one.flags_read,
        one.flags_judged,
        one.flags_known,
        one.pipelines_with_card,
        sum(map(len, one.pipelines_explained.values())),
        len(one.pipelines_without_card),
    ]
    return [one.engine, *map(str, numbers)]


def _without_card(found: Sequence[Coverage]) -> list[str]:
    """The pipelines that need no card, by the reason; of many the number."""
    reasons: dict[str, dict[str, None]] = {}
    for one in found:
        for reason, names in one.pipelines_explained.items():
            reasons.setdefault(reason, {}).update(dict.fromkeys(name.rpartition(" ")[2] for name in names))
    lines = ["Pipelines that need no card, each because it", ""]
    for reason, known in sorted(reasons.items()):
        which = ", ".join(f"`{name}`" for name in known) if len(known) <= 12 else f"{len(known)} of diffusers"
        lines.append(f"- {reason}: {which}")
    return lines
