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


def stated_cases() -> Iterator[tuple[Refuses, Case]]:
    for rule in catalog().rules:
        if isinstance(rule, Refuses):
            yield from ((rule, case) for case in rule.stated)


CASES = [
    pytest.param(rule, case, id=f"{rule.code}-{number}-{case.bad.splitlines()[0][:60]}")
    for number, (rule, case) in enumerate(stated_cases())
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


@pytest.mark.parametrize(
    ("engine", "arguments"),
    [
        ("vllm-omni==0.30", "--num-gpus 8 --use-hsdp --hsdp-shard-size 8"),
        ("vllm-omni==0.30", "--num-gpus 8 --use-hsdp --hsdp-shard-size 8 --data-parallel-size 1"),
        ("vllm-omni==0.26", "example/model --use-hsdp --ulysses-degree 2 --enable-expert-parallel"),
        ("vllm-omni==0.30", 'Wan-AI/Wan2.2-T2V-A14B-Diffusers --default-sampling-params \'{"0": {"height": 500}}\''),
        ("vllm-omni==0.30", "MiniMaxAI/MiniMax-H3 --num-gpus 8 --usp 8 --text-encoder-tp-size 8"),
        ("vllm-omni==0.30", "nvidia/Cosmos3-Super-Image2Video-4Step"),
        ("vllm-omni==0.30", '--weight-transfer-config \'{"backend": "nccl"}\' --model-class-name QwenImagePipeline'),
    ],
)
def test_what_an_engine_runs_is_no_error(engine: str, arguments: str) -> None:
    checked = check_bytes("file", example(engine, arguments).encode(), assume={"engine": engine})
    assert [finding for document in checked for finding in document.findings if finding.severity == "error"] == []


@pytest.mark.parametrize(
    ("arguments", "codes"),
    [
        ('--diffusion-attention-config \'{"default": "RAINIFUSION_ATTN"}\'', {"OMNI612"}),
        ("nvidia/Cosmos3-Super-Image2Video-4Step --cfg-parallel-size 2", {"OMNI109", "OMNI5160"}),
        ("MiniMaxAI/MiniMax-H3 --num-gpus 8 --usp 8 --text-encoder-tp-size 4", {"OMNI1140"}),
        ("/models/MiniMax-H3/FL2VA --num-gpus 8 --usp 8 --text-encoder-tp-size 4", {"OMNI1140"}),
    ],
)
def test_what_public_reports_say(arguments: str, codes: set[str]) -> None:
    (checked,) = check_bytes("file", example("vllm-omni", arguments).encode(), assume={"engine": "vllm-omni==0.30"})
    assert {finding.code for finding in checked.findings if finding.severity == "error"} == codes
