"""Commands of drawn flags and values are judged without an exception, whatever they say."""

from __future__ import annotations

import random

import pytest

from omni_config.catalog.load import catalog
from omni_config.checking.files import check_bytes
from omni_config.engines.facts import facts_of

MODELS = (
    "Qwen/Qwen-Image",
    "Wan-AI/Wan2.2-T2V-A14B-Diffusers",
    "MiniMaxAI/MiniMax-H3",
    "nvidia/Cosmos3-Nano-Transfer-Auto",
    "stabilityai/stable-diffusion-xl-base-1.0",
    "someone/unheard-of",
    "/models/Z-Image-Turbo",
)
WORDS = (
    "0",
    "1",
    "2",
    "3",
    "4",
    "-1",
    "0.5",
    "true",
    "false",
    "auto",
    "fp8",
    "a=b,c=d",
    "",
    "{}",
    "'{\"a\": 1}'",
    "$X",
)
VARIABLES = ("SGLANG_CACHE_DIT_ENABLED=true", "SGLANG_CACHE_DIT_FN=two", "SGLANG_USE_SAGE_ATTENTION_IMPL=trtllm_gen")


def drawn(engine: str, number: int) -> str:
    facts = facts_of(engine)
    assert facts is not None
    random_ = random.Random(f"{engine} {number}")
    words = random_.sample(VARIABLES, random_.randrange(3))
    words += ["sglang", random_.choice(("serve", "generate")), "--model-path", random_.choice(MODELS)]
    for name in random_.sample(sorted(facts.flag_names), random_.randint(1, 12)):
        flag = facts.flag(name)
        assert flag is not None
        choices = [str(choice) for choice in flag.choices]
        count = random_.randint(1, 2) if flag.most_values is None else flag.most_values
        values = [random_.choice(choices if choices and random_.random() < 0.8 else WORDS) for _ in range(count)]
        words += [name.replace("*", "vae"), *values]
    return " ".join([*words, *(['"$@"'] if random_.random() < 0.1 else [])]) + "\n"


@pytest.mark.parametrize("engine", catalog().versions("sglang"))
def test_no_drawn_command_raises(engine: str) -> None:
    for number in range(300):
        text = drawn(engine, number)
        (checked,) = check_bytes("drawn.sh", text.encode(), assume={"engine": engine})
        assert checked.foreign or "serve" in text  # else it may be a language model
        assert all(finding.message for finding in checked.findings), text
