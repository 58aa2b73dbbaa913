"""Pages that are published and not kept in git, beside those of the matrix: how much of each engine's version
is judged, and what each step between two versions changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from omni_config.catalog.versions import family
from omni_config.engines.answers import REASONS, answers_of
from omni_config.engines.coverage import coverage
from omni_config.engines.facts import Facts, facts_of, shipped
from omni_config.facts.difference import as_text, difference
from omni_config.output.coverage import to_markdown
from omni_config.output.pages import GENERATED

#: Files that are generated here, below the folder of the pages.
OWNED = ("engines/*.md",)


def pages() -> dict[str, str]:
    """The pages by their path."""
    steps = [step for step in pairwise(shipped()) if family(step[0]) == family(step[1])]
    result = {"engines/README.md": _overview(steps)}
    result |= {_page_of(*step): _step(*step) for step in steps}
    return {path: f"{GENERATED}{text}\n" for path, text in result.items()}


def _page_of(old: str, new: str) -> str:
    return f"engines/{old.replace('==', '-')}-to-{new.partition('==')[2]}.md"


def _overview(steps: list[tuple[str, str]]) -> str:
    found = [coverage(engine) for engine in shipped()]
    lines = [
        "# Engines",
        "",
        "What is known of each version was compiled from its wheel by `omni engine compile`. This table is printed by",
        "`omni engine coverage`.",
        "",
        to_markdown(found),
        "",
        "## What each release changed",
        "",
        *(f"- [`{old}` to `{new}`]({_page_of(old, new).partition('/')[2]})" for old, new in steps),
        "",
        "## Guards by rule",
        "",
        f"| rule | {' | '.join(one.engine for one in found)} |",
        f"|---|{'---:|' * len(found)}",
    ]
    for code in sorted({code for one in found for code in one.rules}):
        numbers = (str(one.rules.get(code, "")) for one in found)
        lines.append(f"| [{code}](../rules/{code}.md) | {' | '.join(numbers)} |")
    return "\n".join(lines)


def _step(old: str, new: str) -> str:
    before, after = facts_of(old), facts_of(new)
    assert before is not None
    assert after is not None
    sections = difference(before.data, after.data)
    guards = sections.pop("guards", None)
    lines = [f"# From {old} to {new}", "", "The same as `omni engine diff` prints.", ""]
    lines.append(as_text(sections, markdown=True))
    if guards is not None:
        lines += ["", *_guards(guards.new, guards.gone, before, after, family(new))]
    return "\n".join(lines)


def _guards(come: tuple[str, ...], gone: tuple[str, ...], before: Facts, after: Facts, engine: str) -> Iterator[str]:
    """The guards by place. One that went where another with the same answer came, in the same function and about the
    same settings, has changed its condition.
    """
    rows: dict[tuple[str, str, str, str], Mapping[str, list[str]]] = {}
    for sign, ids, facts in (("new", come, after), ("gone", gone, before)):
        for guard in ids:
            path, _, rest = guard.partition("::")
            reads = ", ".join(f"`{name}`" for name in facts.guards[guard]["reads"])
            key = (path, rest.rpartition("#")[0], reads, _answer(guard, engine))
            rows.setdefault(key, {"new": [], "gone": []})[sign].append(f"{facts.guards[guard]['line']}")
    yield f"## Guards: {len(come)} new, {len(gone)} gone"
    yield ""
    yield "| | file | function | reads | answer |"
    yield "|---|---|---|---|---|"
    for (path, function, reads, answer), lines in sorted(rows.items(), key=lambda row: row[0]):
        word = "changed" if lines["new"] and lines["gone"] else "new" if lines["new"] else "gone"
        places = ", ".join(lines["new"] or lines["gone"])
        yield f"| {word} | `{path}:{places}` | `{function}` | {reads} | {answer} |"


def _answer(guard: str, engine: str) -> str:
    answer: Any = answers_of(engine).of(guard)
    if answer is None:
        return "none yet"
    if answer.rule:
        return f"[{answer.rule}](../rules/{answer.rule}.md)"
    return (answer.because or REASONS[answer.reason]).replace("|", "\\|").replace("\n", " ")
