"""Under tensor parallelism and HSDP a rank reads and holds its share of the weights, and computes the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import models
import pytest
import torch
from cases import DBCACHE, Case, Result, tiny, tiny_qwen
from safetensors.torch import load_file, save_file

from omni_config.plan import Hsdp, Lora, Mesh, Model, Plan, TeaCache
from runtime import weights
from runtime.pipeline import load
from runtime.pipeline.load import FOLDERS

pytestmark = pytest.mark.timeout(1800)
Results = Callable[[str], Result]
BOUND = 1e-5
STEPS = 12  # of a cache
TEA = TeaCache(0.3, (0.0, 0.0, 0.0, 1.0, 0.0))
FLUX = {"guidance_scale": 3.5, "true_cfg_scale": 2.0}

#: By name: how the weights are split, and over how many ranks.
SPLIT: dict[str, tuple[dict[str, Any], int]] = {
    "tensor-2": ({"mesh": Mesh(tensor=2), "text_encoder_tensor_parallel": True}, 2),
    "tensor-4": ({"mesh": Mesh(tensor=4)}, 4),
    "hsdp-2": ({"mesh": Mesh(ulysses=2), "hsdp": Hsdp(1, 2)}, 2),
    "hsdp-4": ({"mesh": Mesh(cfg=2, ring=2), "hsdp": Hsdp(1, 4)}, 4),
    "hsdp-2x2": ({"mesh": Mesh(ring=2, ulysses=2), "hsdp": Hsdp(2, 2)}, 2),
}
#: HSDP with others; two ranks compute the branches of guidance in two calls.
BESIDE: dict[str, dict[str, Any]] = {
    "cache_dit": {"cache": DBCACHE, "mesh": Mesh(cfg=2)},
    "tea_cache": {"cache": TEA, "mesh": Mesh(cfg=2)},
    "lora": {"mesh": Mesh(ulysses=2)},
    "compile": {"compile": True, "mesh": Mesh(ulysses=2)},
}


def cases(folder: Path) -> dict[str, Case]:
    """What runs, under one torchrun with the cases of other modules."""
    adapter = models.adapter(load.pipeline(tiny_qwen()).transformer, folder, seed=3)  # other modules have theirs here
    qwen = {
        "": tiny_qwen(),
        "lora": tiny_qwen(lora=[Lora(str(adapter), 0.5)]),
        "compile": tiny_qwen(),
        "cache_dit": stepped(tiny_qwen(cache=DBCACHE)),
        "tea_cache": stepped(tiny_qwen(cache=TEA)),
    }
    table = {f"alone {name}": Case(plan) for name, plan in qwen.items()}
    for name, (changes, _) in SPLIT.items():
        table[name] = Case(tiny_qwen(**changes), later="undone" if name == "hsdp-2" else "")
    for name, changes in BESIDE.items():
        table[name] = Case(replace(qwen[name], hsdp=Hsdp(1, 2), **changes))
    source = str(models.build("flux", folder))
    flux = tiny(model=Model("flux", source, "FluxPipeline", "text_to_image", "float32"), guidance_calls="two")
    flux = replace(flux, sampling=replace(flux.sampling, guidance=FLUX))
    table |= {"flux": Case(flux), "flux tensor-2": Case(replace(flux, mesh=Mesh(tensor=2)))}
    return table


def stepped(plan: Plan) -> Plan:
    return replace(plan, sampling=replace(plan.sampling, num_inference_steps=STEPS))


@pytest.mark.parametrize("name", [*SPLIT, *BESIDE])
def test_equal_to_one_rank(results: Results, name: str) -> None:
    alone = results(f"alone {name if name in BESIDE else ''}")
    assert results(name).distance(alone) <= BOUND
    assert results(name).distance(alone, "broken") > 10 * BOUND


def test_hsdp_undone_it_computes_what_it_did(results: Results) -> None:
    assert results("hsdp-2").distance(results("alone "), "undone") <= BOUND


@pytest.mark.parametrize("cache", ["cache_dit", "tea_cache"])
def test_caches_decide_with_hsdp_as_on_one_rank(results: Results, cache: str) -> None:
    steps = results(f"alone {cache}").measured(cache)["cached_steps"]
    assert 0 < len(steps) < STEPS
    assert results(cache).measured(cache)["cached_steps"] == steps


def test_hsdp_leaves_adapters_beside_the_weights(results: Results) -> None:
    assert results("lora").measured("lora")["fused"] is False
    assert results("lora").distance(results("alone ")) > 1e-3


@pytest.mark.parametrize("name", SPLIT)
def test_no_rank_reads_or_holds_more_than_its_share(results: Results, name: str) -> None:
    """Files are in bfloat16, of which float32 is made, so a rank holds twice what it reads."""
    changes, parts = SPLIT[name]
    stored = sizes(FOLDERS["tiny-qwen"] / "transformer")
    total = sum(stored.values())
    by_tensor = sum(size for name, size in stored.items() if split_by_tensor(name))
    for rank in range(changes["mesh"].world_size):
        if "hsdp" in changes:
            measured = results(name).measured("hsdp", rank)
            assert measured["transformer_bytes"] == 2 * measured["bytes_read"]
            assert measured["bytes_read"] <= 1.01 * total / parts  # some weights have fewer rows than there are ranks
        else:
            measured = results(name).measured("tensor_parallel", rank)
            assert measured["bytes_read"] == by_tensor / parts + total - by_tensor
            held = measured["transformer_bytes"] / (2 * measured["bytes_read"])
            assert 0.97 <= held <= 1  # of biases it keeps a part


def test_all_ranks_together_read_each_weight_once(results: Results) -> None:
    read = sum(results("hsdp-4").measured("hsdp", rank)["bytes_read"] for rank in range(4))
    assert read == sum(sizes(FOLDERS["tiny-qwen"] / "transformer").values())


def test_a_rank_reads_its_columns_of_two_joined_inputs(results: Results) -> None:
    """FLUX's single blocks: as many of attention's and of the feed-forward's columns."""
    assert results("flux tensor-2").distance(results("flux")) <= BOUND
    assert results("flux tensor-2").distance(results("flux"), "broken") > 10 * BOUND
    measured = [results("flux tensor-2").measured("tensor_parallel", rank) for rank in (0, 1)]
    assert measured[0] == measured[1]
    assert 0.9 <= measured[0]["transformer_bytes"] / measured[0]["bytes_read"] <= 1


def sizes(folder: Path) -> dict[str, int]:
    """Bytes of each weight in a component's files."""
    found = {}
    for path in folder.glob("*.safetensors"):
        data = path.read_bytes()
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        header.pop("__metadata__", None)
        found |= {name: entry["data_offsets"][1] - entry["data_offsets"][0] for name, entry in header.items()}
    return found


def split_by_tensor(name: str) -> bool:
    """Whether tensor parallelism splits a weight of Qwen-Image: the matrices of its blocks."""
    return name.startswith("transformer_blocks.") and name.endswith(".weight") and "norm" not in name


def test_parts_are_those_that_torch_counts() -> None:
    weight = torch.arange(10.0).repeat(2, 1).T
    for parts in (1, 2, 3, 4, 7):
        chunks = weight.chunk(parts)
        for index in range(parts):
            expected = chunks[index] if index < len(chunks) else weight[:0]
            assert torch.equal(weights.share(weight, 0, parts, index), expected)
    columns = torch.arange(12.0)[None]
    assert weights.share(columns, 1, 2, 1, blocks=(4, 8)).tolist() == [[2, 3, 8, 9, 10, 11]]


def mapped_bytes(model: torch.nn.Module) -> int:
    """Of weights that lie in a file that is mapped, by the addresses of this process's memory."""
    ranges = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith(".safetensors"):
            start, end = line.split()[0].split("-")
            ranges.append((int(start, 16), int(end, 16)))
    found = [weight for weight in model.parameters() if any(a <= weight.data_ptr() < b for a, b in ranges)]
    return sum(weight.nbytes for weight in found)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_is_not_split_stays_mapped_where_it_has_its_precision(tmp_path: Path, dtype: str) -> None:
    source = str(models.build("z_image", tmp_path))
    pipe = load.pipeline(tiny(model=Model("z", source, "ZImagePipeline", "text_to_image", dtype)))
    held = sum(weight.nbytes for weight in pipe.transformer.parameters())
    assert mapped_bytes(pipe.transformer) == (held if dtype == "float32" else 0)


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize(("family", "pipeline"), [("wan", "WanPipeline"), ("flux", "FluxPipeline")])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_weights_are_those_that_diffusers_loads(
    tmp_path: Path, family: str, pipeline: str, dtype: str, split: bool
) -> None:
    """Wan keeps some layers in float32, and so does T5 in float16; files are in float32."""
    source = str(models.build(family, tmp_path))
    plan = tiny(model=Model(family, source, pipeline, "text_to_image", dtype))
    ours = load.pipeline(replace(plan, mesh=Mesh(tensor=2)) if split else plan)
    if split:  # what features do on their ranks
        assert {weight.dtype for weight in ours.transformer.parameters()} == {torch.float32}
        weights.place(ours.transformer, torch.device("cpu"), getattr(torch, dtype))
    theirs = getattr(diffusers, pipeline).from_pretrained(source, dtype=getattr(torch, dtype))
    for name, part in theirs.components.items():
        if isinstance(part, torch.nn.Module):
            mine = getattr(ours, name).state_dict()
            assert {key: value.dtype for key, value in mine.items()} == {
                key: value.dtype for key, value in part.state_dict().items()
            }, name
            assert all(torch.equal(value, mine[key]) for key, value in part.state_dict().items()), name


def test_files_of_several_precisions_are_read_as_the_pipeline_s(tmp_path: Path) -> None:
    """Their own would be rounded to that of one of them."""
    source = models.build("z_image", tmp_path)
    path = source / "transformer" / "diffusion_pytorch_model.safetensors"
    stored = load_file(path)
    first, *others = stored
    save_file({first: stored[first].bfloat16()} | {name: stored[name] for name in others}, path)
    pipe = load.pipeline(tiny(model=Model("z", str(source), "ZImagePipeline", "text_to_image", "float32")))
    found = pipe.transformer.state_dict()
    assert torch.equal(found[first], stored[first].bfloat16().float())
    assert all(torch.equal(found[name], stored[name]) for name in others)
