"""TensorRT-LLM VisualGen: its keys, their ranges, its rules, and the way to its file and back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from omni_config.catalog.load import catalog
from omni_config.checking.document import CheckResult
from omni_config.checking.export import export
from omni_config.checking.files import check_bytes
from omni_config.engines.facts import facts_of
from omni_config.engines.tensorrt_llm.read import FREE, QUIET, SECTIONS, SETTINGS
from omni_config.engines.tensorrt_llm.values import refused
from omni_config.rules.kinds import Refuses

ENGINE = "tensorrt-llm==1.4.0rc0"
RULES = [rule for rule in catalog().rules if isinstance(rule, Refuses) and ENGINE in rule.engine_ids]
CASES = [
    pytest.param(rule.code, case.bad, id=f"{rule.code}-{case.says[:40]}") for rule in RULES for case in rule.stated
]


def read(text: str, **assume: str) -> CheckResult:
    (checked,) = check_bytes("file.yaml", text.encode(), assume=assume)
    return checked


def codes(checked: CheckResult) -> list[str]:
    return [finding.code for finding in checked.findings if finding.severity != "advice"]


@pytest.mark.parametrize(("code", "bad"), [case for case in CASES if case.values[1]])
def test_each_case_breaks_on_its_example_and_on_nothing_else(code: str, bad: str) -> None:
    assert codes(read(bad)) == [code]


def test_int8_queries_ask_for_one_architecture() -> None:
    recipe = "{qk_dtype: int8, q_block_size: 1, k_block_size: 16, v_block_size: 1}"
    checked = read(f"attention_config: {{backend: TRTLLM, quant_attention_config: {recipe}}}\n")
    assert codes(checked) == []
    rule = catalog().by_code["OMNI7601"]
    assert checked.resolution is not None
    for gpu, found in (("b200", []), ("h100", ["OMNI7601"])):
        q = checked.resolution.target.quantities(checked.resolution.settings | {"gpu": gpu})
        assert [finding.code for finding in rule.check(q)] == found


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("parallel_config: {cfg_size: 3}", "OMNI612", "a whole number from 1 to 2"),
        ("parallel_config: {cfg_size: two}", "OMNI612", "a whole number from 1 to 2"),
        ("parallel_config: {attn2d_size: [2, 0]}", "OMNI612", "a list of 2 values of at least 1"),
        ("parallel_config: {attn2d_size: [2]}", "OMNI612", "a list of 2 values"),
        ("attention_config: {backend: TE}", "OMNI612", "one of VANILLA, TRTLLM, CUDNN, FLASHINFER, CUTEDSL, FA4"),
        ("cache_config: {cache_backend: teacache, teacache_thresh: 0}", "OMNI612", "a number above 0"),
        ("cache_config: {cache_backend: cache_dit, taylorseer_order: 5}", "OMNI612", "from 1 to 4"),
        ("cache_config: {cache_backend: tea_cache}", "OMNI612", "one of teacache, cache_dit"),
        ("parallel_config: {ulysses_size: 2}\nattention_config: FA4", "OMNI612", "a mapping"),
        ("parallel_config: {ulyses_size: 2, cfg_size: 1}", "OMNI615", "did you mean ulysses_size?"),
        ("parallel_config: {cfg_size: 1}\nparalel: 2", "OMNI615", "did you mean parallel_config?"),
        ("cache_config: {cache_backend: teacache, Fn_compute_blocks: 1}", "OMNI615", "TeaCacheConfig has no"),
        (
            "attention_config:\n  backend: CUTEDSL\n"
            "  sparse_attention_config: {algorithm: sol_attn, disabled_until_timestep: 0}",
            "OMNI612",
            "a number above 0 to 1",
        ),
    ],
)
def test_what_its_classes_refuse(text: str, code: str, said: str) -> None:
    found = [finding for finding in read(text + "\n").findings if finding.severity == "error"]
    assert [finding.code for finding in found] == [code]
    assert said in f"{found[0].message} {found[0].next_step}"


def test_what_pydantic_takes_is_taken() -> None:
    assert (
        codes(read('parallel_config: {ulysses_size: "2", async_ulysses: yes}\ncuda_graph_config: {enable: 1}\n')) == []
    )
    assert codes(read("quant_config: {quant_algo: NVFP4, dynamic: true, anything: 1}\n")) == []


def test_every_key_of_the_schema_is_read() -> None:
    facts = facts_of(ENGINE)
    assert facts is not None
    assert set(facts.fields("VisualGenArgs")) >= {*SECTIONS, *FREE}
    for owner, names in [*SETTINGS.items(), *QUIET.items()]:
        assert set(names) <= set(facts.fields(owner)), owner
    path = Path("omni_config/engines/tensorrt_llm/facts/1.4.0rc0.json")
    fields = json.loads(path.read_text())["fields"]
    for name, field in fields.items():
        assert refused(field["default"], field) == "" or field["type"] not in ("int", "float", "bool", "str"), name


def test_a_file_of_a_language_model_is_none_of_it() -> None:
    for text in (
        "tensor_parallel_size: 4\ncuda_graph_config: {enable_padding: true}\nkv_cache_config: {dtype: fp8}\n",
        "cuda_graph_config: {max_batch_size: 8}\n",
        "trtllm-serve meta-llama/Llama-3.1-8B --tp_size 4\n",
    ):
        assert codes(read(text)) == ["OMNI908"]


def test_a_version_of_which_nothing_is_known_is_judged_by_no_other() -> None:
    command = "trtllm-serve Qwen/Qwen-Image --extra_visual_gen_options a"
    text = f"docker run nvcr.io/nvidia/tensorrt-llm/release:1.2.0 {command}\n"
    assert codes(read(text)) == ["OMNI613"]
    assert codes(read(text.replace("1.2.0", "1.4.0rc0"))) == ["OMNI611"]


def test_cache_dit_keeps_its_own_files() -> None:
    checked = read("cache_config: {Fn_compute_blocks: 8}\n")
    assert checked.resolution is not None
    assert checked.resolution.engine.family == "cache-dit"


OURS = st.fixed_dictionaries(
    {},
    optional={
        "parallel": st.fixed_dictionaries(
            {},
            optional={
                "ulysses_degree": st.sampled_from([1, 2, 4]),
                "ring_degree": st.sampled_from([1, 2, 3]),
                "cfg_parallel_size": st.sampled_from([1, 2]),
                "tensor_parallel_size": st.sampled_from([1, 2, 5]),
                "vae_patch_parallel_size": st.integers(1, 4),
            },
        ),
        "cache": st.sampled_from(
            [
                {"tea_cache": {"rel_l1_thresh": 0.3}},
                {"tea_cache": {"coefficients": [0, 0, 0, 1, 0]}},
                {"cache_dit": {}},
                {"cache_dit": {"Fn_compute_blocks": 2, "enable_taylorseer": True, "taylorseer_order": 2}},
            ]
        ),
        "memory": st.just({"enable_cpu_offload": True}),
        "execution": st.fixed_dictionaries(
            {},
            optional={
                "compile": st.booleans(),
                "quantization": st.sampled_from(["fp8", "int8"]),
                "attention_backend": st.sampled_from(["native", "flash"]),
            },
        ),
        "lora": st.sampled_from([[{"path": "a.safetensors"}], [{"path": "a.safetensors", "scale": 0.5}]]),
        "sampling": st.just({"prompt": "a cat", "num_frames": 81}),
    },
)


@given(OURS, st.sampled_from(["Wan-AI/Wan2.1-T2V-14B-Diffusers", "Qwen/Qwen-Image", "Tongyi-MAI/Z-Image"]))
@settings(max_examples=200, deadline=None)
def test_export_import_and_check_are_a_fixed_point(config: dict, model: str) -> None:
    ours = read(yaml.safe_dump({"version": 1, "model": model, "engine": "tensorrt-llm", **config}))
    text, findings = export(ours)
    if text is None:
        assert any(finding.severity == "error" for finding in findings)
        return
    again = read(text)
    assert again.foreign
    assert [code for code in codes(again) if code in {"OMNI612", "OMNI615"}] == []
    assert again.resolution is not None
    assert ours.resolution is not None
    said = {name: again.resolution.settings[name] for name in ours.resolution.settings if not name.startswith("their_")}
    requests = {"prompt", "num_frames"}
    different = {name for name, value in ours.resolution.settings.items() if said.get(name) != value and name in said}
    assert different <= {"engine", *requests}
