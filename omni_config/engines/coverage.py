"""How much of an engine's version is known and judged: its guards by answer, its flags, its pipelines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from omni_config.catalog import versions
from omni_config.engines.answers import answers_of
from omni_config.engines.facts import Facts, facts_of, plain_name
from omni_config.engines.formats.flags import Flags
from omni_config.engines.registered import registered
from omni_config.engines.sglang.read import FLAGS as SGLANG
from omni_config.engines.theirs import asked_of
from omni_config.engines.vllm_omni.flags import FLAGS as VLLM_OMNI
from omni_config.engines.xdit.read import FLAGS as XDIT

_TABLES = {"vllm-omni": VLLM_OMNI, "sglang": SGLANG, "xdit": XDIT}


@dataclass(frozen=True)
class Coverage:
    """One version of an engine.

    ``reasons`` counts guards by the reason of their answer, ``rules`` by the code of their rule; ``unanswered`` are
    their ids. A flag is read into a setting of ours, or judged by a rule, its choices or its type, or only known.
    ``pipelines_explained`` are those that need no card, by the reason.
    """

    engine: str
    reasons: dict[str, int]
    rules: dict[str, int]
    unanswered: list[str]
    flags_read: int
    flags_judged: int
    flags_known: int
    pipelines_with_card: int
    pipelines_explained: dict[str, list[str]]
    pipelines_without_card: list[str]

    @property
    def guards(self) -> int:
        """How many there are."""
        return sum(self.reasons.values()) + sum(self.rules.values()) + len(self.unanswered)


def coverage(engine: str) -> Coverage:
    """The coverage of a version by its id, such as ``vllm-omni==0.30``.

    Raises:
        ValueError: no facts of it were compiled.
    """
    facts = facts_of(engine)
    if facts is None:
        raise ValueError(f"no facts of engine '{engine}'")
    answers = answers_of(versions.family(engine))
    found = {guard: answers.of(guard) for guard in sorted(facts.guards)}
    known = [answer for answer in found.values() if answer is not None]
    flags = Counter(_flags(engine, facts))
    pipelines = registered(facts)
    return Coverage(
        engine=engine,
        reasons=dict(sorted(Counter(answer.reason for answer in known if answer.reason).items())),
        rules=dict(sorted(Counter(answer.rule for answer in known if answer.rule).items())),
        unanswered=[guard for guard, answer in found.items() if answer is None],
        flags_read=flags["read"],
        flags_judged=flags["judged"],
        flags_known=flags["known"],
        pipelines_with_card=sum(one.card for one in pipelines),
        pipelines_explained={
            reason: [one.name for one in pipelines if one.reason == reason]
            for reason in sorted({one.reason for one in pipelines if one.reason})
        },
        pipelines_without_card=[one.name for one in pipelines if one.state == "without card"],
    )


def _flags(engine: str, facts: Facts) -> Iterator[str]:
    table = _TABLES.get(versions.family(engine))
    asked = asked_of(engine)
    for names in facts.flags:
        flag = facts.flag(names[0])
        assert flag is not None
        if table is None:
            yield "known"  # no command of this engine is read
        elif any(_is_read(table, plain_name(name)) for name in names):
            yield "read"
        elif flag.setting in asked or flag.choices or flag.type in ("int", "float"):
            yield "judged"
        else:
            yield "known"


def _is_read(table: Flags, name: str) -> bool:
    negated = name.removeprefix("no-")
    return name in table.settings or name in table.special or name in table.quiet or negated in table.settings
