"""Offload by component and over ranks, pinned memory, HSDP's loading and quantized attention."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import yaml

from omni_config.catalog.load import catalog
from omni_config.checking.document import CheckResult, judge
from omni_config.checking.export import export
from omni_config.checking.files import check_bytes, read_bytes
from omni_config.engines.tensorrt_llm.recipes import RECIPES, backend_for
from omni_config.estimate.estimate import Estimate, estimate, gpus
from omni_config.resolving.target import target_of
from omni_config.schema.components import COMPONENTS
from omni_config.schema.document import Component
from omni_config.schema.settings import validate

SAGE = {"qk_dtype": "int8", "q_block_size": 1, "k_block_size": 16, "v_block_size": 1}
#: What each engine takes; the same in all where they are asked for the same.
EACH: list[tuple[str, dict[str, Any]]] = [
    (
        "vllm-omni==0.30",
        {"memory": {"enable_cpu_offload": True, "offload_components": ["dit"], "pin_cpu_memory": False}},
    ),
    ("vllm-omni==0.28", {"memory": {"enable_cpu_offload": True, "pin_cpu_memory": False}}),
    ("vllm-omni==0.30", {"memory": {"enable_distributed_layerwise_offload": True}}),
    ("vllm-omni==0.30", {"memory": {"enable_distributed_layerwise_offload": True, "offload_components": ["dit"]}}),
    ("vllm-omni==0.32", {"parallel": {"use_hsdp": True, "hsdp_weight_load_strategy": "pre_sharded"}}),
    ("vllm-omni==0.30", {"execution": {"attention_quantization": SAGE}}),
    ("vllm-omni==0.30", {"execution": {"attention_quantization": {}}}),
    ("sglang", {"memory": {"enable_layerwise_offload": True, "offload_components": ["dit", "text_encoder", "vae"]}}),
    ("sglang", {"memory": {"enable_cpu_offload": True, "offload_components": ["dit"], "pin_cpu_memory": True}}),
    ("tensorrt-llm", {"memory": {"enable_cpu_offload": True, "offload_components": ["dit", "text_encoder", "vae"]}}),
    ("tensorrt-llm", {"memory": {"enable_cpu_offload": True, "pin_cpu_memory": False}}),
    ("tensorrt-llm", {"execution": {"attention_quantization": SAGE}}),
    ("tensorrt-llm", {"execution": {"attention_quantization": {"qk_dtype": "nvfp4", "v_dtype": "nvfp4"}}}),
]


def config(engine: str, model: str = "Wan-AI/Wan2.2-T2V-A14B-Diffusers", **sections: Any) -> str:
    sections["parallel"] = {"ulysses_degree": 2, **sections.get("parallel", {})}
    return yaml.safe_dump({"version": 1, "model": model, "engine": engine, **sections}, sort_keys=False)


def checked(text: str, name: str = "config.yaml", **assume: str) -> CheckResult:
    (found,) = check_bytes(name, text.encode(), assume=assume)
    return found


def codes(result: CheckResult, *severities: str) -> list[str]:
    return [finding.code for finding in result.findings if not severities or finding.severity in severities]


def test_the_components_are_those_of_the_schema() -> None:
    assert get_args(Component) == COMPONENTS


@pytest.mark.parametrize(("engine", "sections"), EACH)
def test_what_is_exported_is_read_again_as_the_same(engine: str, sections: dict[str, Any]) -> None:
    text, findings = export(checked(config(engine, **sections)))
    assert text, findings
    again = checked(text, "run", engine=engine, model="Wan-AI/Wan2.2-T2V-A14B-Diffusers")
    assert again.exit_code == 0, again.findings
    assert "OMNI605" not in codes(again)
    first = checked(config(engine, **sections))
    assert first.resolution
    assert again.resolution
    before, after = first.resolution.settings, again.resolution.settings
    assert {name: after[name] for name in before if name != "compile"} == {
        name: before[name] for name in before if name != "compile"
    }


@pytest.mark.parametrize(
    "memory",
    [
        {"enable_distributed_layerwise_offload": True},
        {"enable_cpu_offload": True, "offload_components": ["dit"]},
        {"enable_cpu_offload": True, "pin_cpu_memory": True},
    ],
)
def test_the_built_in_runtime_refuses_them(memory: dict[str, Any]) -> None:
    assert "OMNI503" in codes(checked(config("native", "tiny", memory=memory)), "error")


def test_a_version_without_it_refuses_it() -> None:
    named = {"enable_cpu_offload": True, "offload_components": ["dit"]}
    assert "OMNI503" in codes(checked(config("vllm-omni==0.28", memory=named)), "error")
    early = {"use_hsdp": True, "hsdp_weight_load_strategy": "full"}
    assert "OMNI503" in codes(checked(config("vllm-omni==0.30", parallel=early)), "error")


VLLM = "vllm serve Qwen/Qwen-Image --omni --diffusion-offload-config '{}'"


@pytest.mark.parametrize(
    ("said", "memory"),
    [
        (
            '{"mode": "module", "components": ["text_encoder", "dit"], "pin_memory": false}',
            {
                "enable_cpu_offload": True,
                "offload_components": ["dit", "text_encoder"],
                "pin_cpu_memory": False,
            },
        ),
        (
            '{"mode": "layer", "components": ["dit"], "layer_options": {"dit": {"weight_transfer": "allgather"}}}',
            {"enable_distributed_layerwise_offload": True, "offload_components": ["dit"]},
        ),
        (
            '{"mode": "layer", "components": ["dit"], "layer_options": {"dit": {"weight_transfer": "rank-local"}}}',
            {"enable_layerwise_offload": True, "offload_components": ["dit"]},
        ),
        ('{"mode": "block", "components": ["dit"]}', {}),
        ('{"mode": "layer", "components": ["vae"]}', {}),
    ],
)
def test_the_mapping_of_vllm_omni(said: str, memory: dict[str, Any]) -> None:
    result = checked(VLLM.replace("{}", said), "run.sh")
    assert result.node
    assert result.node.value.get("memory", {}) == memory
    assert bool(memory) is (result.exit_code == 0)


def test_a_script_of_vllm_omni_says_them_too() -> None:
    text = (
        "from vllm_omni.entrypoints.omni import Omni\n"
        'Omni(model="Qwen/Qwen-Image", pin_cpu_memory=False,\n'
        '     diffusion_offload_config={"mode": "module", "components": ["dit"]},\n'
        '     diffusion_attention_config={"default": {"backend": "TRTLLM_ATTN", "quant": {"dtype_qk": "int8"}}})\n'
    )
    result = checked(text, "run.py")
    assert result.node
    assert result.node.value["memory"] == {
        "enable_cpu_offload": True,
        "offload_components": ["dit"],
        "pin_cpu_memory": False,
    }
    assert result.node.value["execution"]["attention_quantization"] == SAGE
    assert codes(result) == []


@pytest.mark.parametrize(
    ("flags", "memory"),
    [
        ("--dit-cpu-offload true", {"enable_cpu_offload": True}),
        ("--dit-cpu-offload true --text-encoder-cpu-offload true", {"enable_cpu_offload": True}),
        (
            "--dit-cpu-offload true --text-encoder-cpu-offload false",
            {"enable_cpu_offload": True, "offload_components": ["dit"]},
        ),
        (
            "--cpu-offload-components all",
            {"enable_cpu_offload": True, "offload_components": [*COMPONENTS]},
        ),
        (
            "--layerwise-offload-components dit text_encoder",
            {"enable_layerwise_offload": True, "offload_components": ["dit", "text_encoder"]},
        ),
        (
            "--component-residency all=component-offload vae=resident",
            {"enable_cpu_offload": True, "offload_components": ["dit", "text_encoder", "image_encoder"]},
        ),
        # Two ways at once, one component alone, one that has a name of its own: these stay the engine's own words.
        ("--dit-layerwise-offload true --text-encoder-cpu-offload true", {"enable_layerwise_offload": True}),
        ("--text-encoder-cpu-offload true", {}),
        ("--component-residency transformer_2=component-offload dit=resident text_encoder=resident", {}),
        ("--component-residency dit=snapshot-offload text_encoder=snapshot-offload", {}),
        ("--pin-cpu-memory", {"pin_cpu_memory": True}),
        ("--pin-cpu-memory false", {"pin_cpu_memory": False}),
    ],
)
def test_the_components_of_sglang(flags: str, memory: dict[str, Any]) -> None:
    result = checked(f"sglang generate --model-path Qwen/Qwen-Image --prompt cat {flags}", "run.sh")
    assert result.node
    assert result.node.value.get("memory", {}) == memory
    assert result.exit_code == 0, result.findings


@pytest.mark.parametrize(
    ("stages", "components"),
    [
        ("[text_encoder, transformer, transformer_2, vae]", ["dit", "text_encoder", "vae"]),
        ("[[text_encoder, transformer], vae]", None),
        ("[reasoner, generator]", None),
    ],
)
def test_the_stages_of_tensorrt_llm(stages: str, components: list[str] | None) -> None:
    text = f"parallel_config: {{ulysses_size: 2}}\ncpu_offload_config: {{enable: true, stages: {stages}}}\n"
    result = checked(text, "visual_gen.yaml")
    assert result.node
    assert result.node.value["memory"].get("offload_components") == components


def test_offload_and_cuda_graphs_of_tensorrt_llm() -> None:
    both = "cpu_offload_config: {{enable: {}}}\ncuda_graph_config: {{enable: {}}}\n"
    assert "OMNI3601" in codes(checked(both.format("true", "true"), "visual_gen.yaml"), "error")
    for one, other in (("true", "false"), ("false", "true")):
        assert codes(checked(both.format(one, other), "visual_gen.yaml"), "error") == []


def test_a_recipe_goes_from_one_engine_to_the_other() -> None:
    text, _ = export(checked(config("vllm-omni==0.30", execution={"attention_quantization": SAGE})))
    assert text
    assert "TRTLLM_ATTN" in text
    text, _ = export(checked(config("tensorrt-llm", execution={"attention_quantization": SAGE})))
    assert text
    tree = yaml.safe_load(text)["attention_config"]
    assert (tree["backend"], tree["quant_attention_config"]) == ("TRTLLM", SAGE)


def test_a_recipe_has_the_backend_that_takes_it_and_one_that_merges_where_ranks_do() -> None:
    for backend, recipes in RECIPES.items():
        for qk, v, (q_block, k_block, v_block) in recipes:
            recipe: dict[str, Any] = {"qk_dtype": qk, "v_dtype": v}
            recipe |= {"q_block_size": q_block, "k_block_size": k_block, "v_block_size": v_block}
            chosen = backend_for(recipe, merges=False)
            assert chosen
            assert [*RECIPES].index(chosen) <= [*RECIPES].index(backend)
            assert backend_for(recipe, merges=True) in ("CUTEDSL", None)
            of_ours = config("tensorrt-llm", execution={"attention_quantization": recipe})
            assert "OMNI710" not in codes(checked(of_ours))
    none = {"qk_dtype": "fp8", "v_dtype": "nvfp4", "q_block_size": 0, "k_block_size": 0, "v_block_size": 0}
    assert backend_for(none, merges=False) is None
    assert "OMNI710" in codes(checked(config("tensorrt-llm", execution={"attention_quantization": none})), "error")


def estimated(engine: str, model: str = "Wan-AI/Wan2.1-T2V-14B-Diffusers", **settings: Any) -> Estimate:
    card, known = catalog().model(model), catalog().engine(engine)
    assert card
    assert known
    target = target_of(card, known).by(())
    written = validate({"version": 1, "model": card.id, "engine": engine}) | settings
    return estimate(target.quantities(target.applied(written)[0]), gpus()["h100"])


def test_what_is_named_is_what_moves() -> None:
    everything = estimated("sglang", enable_cpu_offload=True)
    alone = estimated("sglang", enable_cpu_offload=True, offload_components=("dit",))
    vae = estimated("sglang", enable_cpu_offload=True, offload_components=("dit", "text_encoder", "vae"))
    assert alone.memory.resident["text encoder weights"] == everything.memory.phases["text encoder weights"]
    assert alone.memory.peak > everything.memory.peak > vae.memory.peak - 1e-9
    assert alone.terms["weights"] < everything.terms["weights"]
    assert "VAE weights" in everything.memory.resident
    assert "VAE weights" not in vae.memory.resident
    layers = estimated("vllm-omni==0.30", enable_layerwise_offload=True)
    both = estimated("vllm-omni==0.30", enable_layerwise_offload=True, offload_components=("dit", "text_encoder"))
    assert both.memory.peak < layers.memory.peak


def test_ranks_that_share_the_blocks_fetch_less_each() -> None:
    alone = estimated("vllm-omni==0.30", ulysses_degree=8, enable_layerwise_offload=True)
    shared = estimated("vllm-omni==0.30", ulysses_degree=8, enable_distributed_layerwise_offload=True)
    assert shared.memory.peak == alone.memory.peak
    assert alone.seconds
    assert shared.seconds
    assert shared.seconds.value < alone.seconds.value
    kept = estimated("vllm-omni==0.30", enable_distributed_layerwise_offload=True, their_dlo_resident_layers=10)
    none = estimated("vllm-omni==0.30", enable_distributed_layerwise_offload=True)
    assert kept.memory.peak > none.memory.peak


def test_quantized_attention_is_quicker_by_its_types() -> None:
    recipes: list[dict[str, Any]] = [{}, SAGE, {"qk_dtype": "nvfp4", "v_dtype": "nvfp4"}]
    plain = estimated("tensorrt-llm").terms["attention"]
    quick = [estimated("tensorrt-llm", attention_quantization=True, **one).terms["attention"] for one in recipes]
    assert [plain / one for one in quick] == pytest.approx([4 / 3, 2, 4])


def test_what_is_not_said_is_the_default_of_the_engine() -> None:
    text = "vllm serve Qwen/Qwen-Image --omni --enable-cpu-offload"
    for command, settings in ((text, ["pin_cpu_memory"]), (text.partition(" --enable")[0], [])):
        (document,) = read_bytes("run.sh", command.encode())
        decided = judge(document).document
        assert decided
        chosen = [one for one in decided.decisions if one.setting == "pin_cpu_memory"]
        assert [one.setting for one in chosen] == settings
        assert all(one.value is True and one.mark == "default" and "data.py" in one.source for one in chosen)
