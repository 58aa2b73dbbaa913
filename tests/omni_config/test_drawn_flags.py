"""Whatever flags a command has, with whatever values, the check answers; what only a run knows is never refused."""

from __future__ import annotations

import json
import random
import shlex

import pytest

from omni_config.catalog.load import catalog
from omni_config.checking.document import CheckResult
from omni_config.checking.files import check_bytes
from omni_config.engines.facts import Facts, Flag, facts_of
from omni_config.findings import Finding

VERSIONS = [name for name in catalog().versions("vllm-omni") if facts_of(name)]
WORDS = [
    *("0", "1", "2", "-1", "8", "0.5", "1e9", "true", "none", "auto", "fp8", "int8", "mxfp4", "diffusers", "a.b", ""),
    *("cache_dit", "tea_cache", "mag_cache", "sea_cache", "TRTLLM_ATTN", "paged_scheduler", "$UNKNOWN", "é", "[1]"),
]
MODELS = ["Qwen/Qwen-Image", "Wan-AI/Wan2.2-T2V-A14B-Diffusers", "example/model", "MiniMaxAI/MiniMax-H3"]


def drawn_json(draw: random.Random, names: list[str], depth: int = 0) -> object:
    if depth > 2 or draw.random() < 0.5:
        return draw.choice([0, 1, -1, 2.5, True, None, "fp8", "", [], [1, "dit"], {}, draw.choice(WORDS)])
    keys = draw.sample([*names, "0", "1", "default", "per_role", "backend"], draw.randint(1, 3))
    return {key: drawn_json(draw, names, depth + 1) for key in keys}


def drawn_values(draw: random.Random, flag: Flag, names: list[str]) -> list[str]:
    most = 2 if flag.most_values is None else flag.most_values
    if flag.choices and draw.random() < 0.7:
        return [str(draw.choice(flag.choices))][:most]
    if "config" in flag.name or "params" in flag.name or "overrides" in flag.name:
        return [json.dumps(drawn_json(draw, names))][:most]
    return [draw.choice(WORDS) for _ in range(most if draw.random() < 0.9 else draw.randint(0, 3))]


def drawn(draw: random.Random, facts: Facts) -> str:
    names = sorted(facts.names)
    flags = [facts.flag(name) for name in draw.sample(sorted(name for name, *_ in facts.flags), draw.randint(1, 7))]
    words = [word for flag in flags if flag for word in (flag.name, *drawn_values(draw, flag, names))]
    if draw.random() < 0.6:
        words += ["--model-class-name", draw.choice(sorted(facts.pipelines))]
    model = draw.choice(
        ["Qwen/Qwen-Image", "Wan-AI/Wan2.2-T2V-A14B-Diffusers", "example/model", "MiniMaxAI/MiniMax-H3"]
    )
    return f"vllm serve {model} --omni {' '.join(map(shlex.quote, words))}\n"


@pytest.mark.parametrize("engine", VERSIONS)
def test_no_combination_of_flags_raises(engine: str) -> None:
    facts = facts_of(engine)
    assert facts is not None
    draw = random.Random(engine)
    refused = 0
    for _ in range(300):
        text = drawn(draw, facts)
        (checked,) = check_bytes("file.sh", text.encode(), assume={"engine": engine})
        assert all(finding.span and finding.message for finding in checked.findings), text
        refused += checked.exit_code > 0
    assert 30 < refused < 300


def findings(arguments: str, engine: str = "vllm-omni==0.30") -> list[Finding]:
    (checked,) = read(arguments, engine)
    return [finding for finding in checked.findings if finding.severity == "error"]


def read(arguments: str, engine: str = "vllm-omni==0.30") -> list[CheckResult]:
    text = f"vllm serve Qwen/Qwen-Image --omni {arguments}\n"
    return check_bytes("file.sh", text.encode(), assume={"engine": engine})


class TestValuesThatOnlyARunKnows:
    def test_are_not_refused(self) -> None:
        assert [finding.code for finding in findings("--stage-id 1")] == ["OMNI7120"]
        assert findings("--stage-id 1 --omni-master-address $HOST --omni-master-port $PORT") == []
        (finding,) = findings("--stage-id $STAGE")
        assert finding.message == "stage_id (not known) needs the address and port of the master"

    def test_an_array_may_hold_any_other_flag(self) -> None:
        assert findings('--stage-id 1 "${MORE[@]}"') == []
        assert findings('--stage-id 1 "$@"') == []
        assert findings("--stage-id 1 --config flags.yaml") == []

    def test_a_key_that_is_said_twice_and_differently(self) -> None:
        one = '{"default": {"backend": "FLASH_ATTN", "block_sparse": {"start_step": 1}}}'
        two = '{"default": "TORCH_SDPA", "per_role": {"self": {"backend": "RAINFUSION_ATTN"}, "cross": "FLASH_ATTN"}}'
        assert [finding.code for finding in findings(f"--diffusion-attention-config '{one}'")] == ["OMNI6101"]
        assert findings(f"--diffusion-attention-config '{two}'") == []


class TestJsonOfFlags:
    @pytest.mark.parametrize(
        "arguments",
        [
            "--diffusion-attention-config '[1]'",
            "--default-sampling-params '[1]'",
            "--default-sampling-params '{\"0\": 4}'",
            "--stage-overrides '{\"0\": [1]}'",
            "--cache-backend cache_dit --cache-config '{'",
        ],
    )
    def test_what_is_no_object_is_refused(self, arguments: str) -> None:
        assert [finding.code for finding in findings(arguments)] == ["OMNI905"]

    def test_an_attention_backend_is_one_of_the_registry(self) -> None:
        (finding,) = findings(
            '--diffusion-attention-config \'{"per_role": {"self": {"backend": "RAINIFUSION_ATTN"}}}\''
        )
        assert (finding.code, finding.next_step) == ("OMNI612", "did you mean RAINFUSION_ATTN?")
        assert findings("--diffusion-attention-backend flash_attn") == []

    def test_unknown_keys_of_its_classes(self) -> None:
        (finding,) = findings('--diffusion-attention-config \'{"default": {"backend": "FLASH_ATTN", "qant": {}}}\'')
        assert (finding.code, finding.next_step) == ("OMNI615", "did you mean quant?")
        (finding,) = findings('--diffusion-offload-config \'{"mode": "layer", "components": ["dit"], "pin": 1}\'')
        assert finding.code == "OMNI615"

    def test_settings_of_ours_in_stage_overrides_and_default_sampling(self) -> None:
        (checked,) = read(
            '--stage-overrides \'{"0": {"ulysses_degree": 2, "parallel_config": {"ring_degree": 2}}}\''
            ' --default-sampling-params \'{"0": {"true_cfg_scale": 3.0, "num_outputs_per_prompt": 2}}\''
        )
        assert checked.resolution is not None
        settings = checked.resolution.settings
        assert (settings["ulysses_degree"], settings["ring_degree"]) == (2, 2)
        assert (settings["cfg_scale"], settings["num_images_per_prompt"]) == (3.0, 2)
