"""Each case of refusal breaks on its own example, in a version that has its guard."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from omni_config.catalog.load import catalog
from omni_config.catalog.versions import family, newest_first
from omni_config.checking.files import check_bytes
from omni_config.rules.kinds import Case, Refuses

COMMANDS = {
    "vllm-omni": "vllm serve {model} --omni {bad}\n",
    "sglang": "sglang serve --model-path {model} {bad}\n",
    "xdit": "xdit --model {model} {bad}\n",
}
MODELS = {"vllm-omni": "Qwen/Qwen-Image", "sglang": "Qwen/Qwen-Image", "xdit": "Qwen-Image"}


def cases() -> Iterator[tuple[Refuses, Case]]:
    for rule in catalog().rules:
        if isinstance(rule, Refuses):
            yield from ((rule, case) for case in rule.stated)


CASES = [
    pytest.param(rule, case, id=f"{rule.code}-{number}-{case.bad.splitlines()[0][:60]}")
    for number, (rule, case) in enumerate(cases())
    if case.bad
]


def example(engine: str, bad: str) -> str:
    """The text that ``bad`` stands for: arguments, arguments behind another model, or a whole command or file."""
    if (
        family(engine) not in COMMANDS
        or "\n" in bad.strip()
        or any(word in f" {bad}" for word in (" sglang ", " vllm ", " xdit "))
    ):
        return bad
    model = MODELS[family(engine)]
    if not bad.startswith("-"):
        model, _, bad = bad.partition(" ")
    return COMMANDS[family(engine)].format(model=model, bad=bad)


@pytest.mark.parametrize(("rule", "case"), CASES)
def test_a_case_breaks_on_its_example(rule: Refuses, case: Case) -> None:
    found = {engine: codes(engine, case.bad) for engine in newest_first(case.places or rule.engine_ids)}
    assert any(rule.code in of_engine for of_engine in found.values()), (case.bad, found)


def codes(engine: str, bad: str) -> set[str]:
    checked = check_bytes("file", example(engine, bad).encode(), assume={"engine": engine})
    return {finding.code for document in checked for finding in document.findings}
