"""Configs drawn at random: written for an engine, read again and written again, they say the same; none raises."""

from __future__ import annotations

import random
from typing import Any

import pytest
import yaml

from omni_config.catalog.load import catalog
from omni_config.checking.document import judge
from omni_config.checking.effective import effective
from omni_config.checking.export import export
from omni_config.checking.files import check_bytes, read_bytes
from omni_config.cli.exchange import as_yaml
from omni_config.engines import ENGINES
from omni_config.output.text import render
from omni_config.schema.settings import FIELDS

COUNT = 500
EXPORTED = [engine for engine in catalog().engine_ids if (e := ENGINES.get(engine.partition("==")[0])) and e.exported]
DEGREES = (1, 1, 1, 2, 2, 3, 4, 8)
#: What is drawn, each with how often; settings of sampling are drawn for images and videos alike.
DRAWN: dict[str, tuple[float, tuple[Any, ...]]] = {
    "ulysses_degree": (0.4, DEGREES),
    "ring_degree": (0.2, DEGREES),
    "allgather_degree": (0.1, DEGREES),
    "cfg_parallel_size": (0.2, (1, 2)),
    "tensor_parallel_size": (0.3, DEGREES),
    "data_parallel_size": (0.1, (1, 2)),
    "vae_patch_parallel_size": (0.2, DEGREES),
    "ulysses_mode": (0.1, ("strict", "advanced_uaa")),
    "use_hsdp": (0.1, (True,)),
    "text_encoder_tensor_parallel": (0.1, (True,)),
    "tea_cache": (0.15, ({}, {"rel_l1_thresh": 0.3})),
    "cache_dit": (0.2, ({}, {"Fn_compute_blocks": 8}, {"max_warmup_steps": 2, "enable_taylorseer": True})),
    "enable_cpu_offload": (0.15, (True,)),
    "enable_layerwise_offload": (0.1, (True,)),
    "enable_distributed_layerwise_offload": (0.03, (True,)),
    "offload_components": (0.05, (["dit"], ["dit", "text_encoder"], ["text_encoder"], ["dit", "text_encoder", "vae"])),
    "pin_cpu_memory": (0.05, (True, False)),
    "hsdp_weight_load_strategy": (0.03, ("full", "pre_sharded")),
    "attention_quantization": (
        0.04,
        (
            {},
            {"qk_dtype": "fp8", "q_block_size": 1, "k_block_size": 4, "v_block_size": 1},
            {"qk_dtype": "int8", "q_block_size": 1, "k_block_size": 16, "v_block_size": 1},
            {"qk_dtype": "nvfp4", "v_dtype": "nvfp4"},
        ),
    ),
    "vae_use_tiling": (0.2, (True,)),
    "vae_use_slicing": (0.1, (True,)),
    "dtype": (0.1, ("bfloat16", "float16")),
    "quantization": (0.1, ("fp8", "int8")),
    "compile": (0.2, (True, False)),
    "attention_backend": (0.1, ("native", "flash", "sage", "_native_cudnn")),
    "lora": (0.1, ([{"path": "a.safetensors"}], [{"path": "a.safetensors", "scale": 0.5}])),
    "prompt": (0.3, ("a red star", "it's 2")),
    "negative_prompt": (0.2, ("blurry", "")),
    "num_inference_steps": (0.2, (8, 50)),
    "cfg_scale": (0.2, (1.0, 4.5)),
    "guidance_scale": (0.1, (3.5,)),
    "width": (0.1, (1024, 832)),
    "height": (0.1, (1024, 480)),
    "num_frames": (0.1, (81,)),
    "seed": (0.1, (0, 7)),
}
#: Beside settings without words (OMNI503), what only the engine's own command shows: a model that its registry lacks
#: (OMNI614), or runs with diffusers (OMNI643), and one class for two tasks (OMNI1301).
ONLY_READ = {"OMNI503", "OMNI614", "OMNI643", "OMNI1301"}


def drawn(engine: str, number: int) -> str:
    """A config in our words."""
    random_ = random.Random(f"{engine} {number}")
    card = catalog().engine(engine)
    assert card is not None
    named = [model for model in catalog().model_ids if card.claim(catalog().model(model))]  # type: ignore[arg-type]
    tree: dict[str, Any] = {"version": 1, "model": random_.choice(named or catalog().model_ids), "engine": engine}
    for name, (often, values) in DRAWN.items():
        if random_.random() < often:
            place = tree
            for section in FIELDS[name][:-1]:
                place = place.setdefault(section, {})
            place[FIELDS[name][-1]] = random_.choice(values)
    if random_.random() < 0.1:
        tree.setdefault("hardware", {})["gpus"] = random_.choice(DEGREES)
    return yaml.safe_dump(tree, sort_keys=False)


def written_by(engine: str) -> set[str]:
    """The settings that a file of the engine carries; what its program, or a request, says stands in comments."""
    without = {"hardware", "server", "output"}
    if engine.startswith("cache-dit"):
        without |= {"sampling", "vae", "memory", "lora", "execution"}
    if engine.startswith("tensorrt-llm"):
        without |= {"sampling"}
    aside = {"engine", "server"}
    if engine.startswith("vllm-omni"):
        aside.add("compile")  # it does unless it is told not to, which is no setting that a command says
    return {name for name, path in FIELDS.items() if path[0] not in without} - aside


@pytest.mark.parametrize("engine", EXPORTED)
def test_what_is_written_is_read_as_it_was_meant(engine: str) -> None:
    accepted = 0
    carried = written_by(engine)
    for number in range(COUNT):
        text = drawn(engine, number)
        (document,) = read_bytes("drawn.yaml", text.encode())
        first = judge(document)
        assert all(render(finding).plain for finding in first.findings)
        command, findings = export(first)
        if command is None:
            assert any(finding.severity == "error" for finding in findings), text
            if first.exit_code == 0:  # the config has no error, but what was written of it, or could not be
                assert {finding.code for finding in findings if finding.severity == "error"} <= ONLY_READ, text
            continue
        accepted += 1
        assert first.resolution is not None
        assert first.node is not None
        (again,) = check_bytes(
            "exported", command.encode(), assume={"engine": engine, "model": first.node.value["model"]}
        )
        said = f"{text}\n{command}\n" + "\n".join(render(finding).plain for finding in again.findings)
        assert again.foreign, said
        assert again.exit_code == 0, said
        assert again.resolution is not None
        one, other = first.resolution.settings, again.resolution.settings
        assert {name: other[name] for name in carried} == {name: one[name] for name in carried}, said
        assert effective(again)
        (imported,) = read_bytes("imported.yaml", as_yaml(again).encode())
        twice, _ = export(judge(imported.for_engine(engine)))
        if carried >= {name for name, path in FIELDS.items() if path[0] == "sampling"}:
            assert twice == command, said
    assert accepted >= COUNT // 10


def test_every_drawn_setting_is_one() -> None:
    assert DRAWN.keys() <= FIELDS.keys()
