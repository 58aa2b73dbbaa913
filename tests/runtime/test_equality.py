"""Several ranks compute what one rank computes; a single broken weight on a single rank is noticed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import models
import pytest
from cases import Case, Result, by_ranks, tiny

import runtime
from omni_config.plan import Mesh, Model

TINY_MODEL = Path(runtime.__file__).parent / "tiny_model"
pytestmark = pytest.mark.timeout(1800)
Results = Callable[[str], Result]
BOUND = 1e-5

TINY = {
    "ulysses-2": Mesh(ulysses=2),
    "ring-2": Mesh(ring=2),
    "tensor-2": Mesh(tensor=2),
    "ring-2 ulysses-2": Mesh(ring=2, ulysses=2),
    "ring-2 tensor-2": Mesh(ring=2, tensor=2),
    "cfg-2": Mesh(cfg=2),
    "cfg-2 ulysses-2": Mesh(cfg=2, ulysses=2),
    "cfg-2 ring-2": Mesh(cfg=2, ring=2),
    "cfg-2 tensor-2": Mesh(cfg=2, tensor=2),
    # Multiples of 32 tokens, which these ranks cannot share evenly; with guidance, the shorter prompt is masked.
    "ulysses-3": Mesh(ulysses=3),
    "ring-3": Mesh(ring=3),
    "ulysses-3 tensor-2": Mesh(ulysses=3, tensor=2),
    "ring-5": Mesh(ring=5),
    "ring-2 ulysses-3": Mesh(ring=2, ulysses=3),
    "cfg-2 ring-3": Mesh(cfg=2, ring=3),
}
FOUR_HEADS = {  # a prompt of more tokens than the negative one, whose attention is masked
    "masked ring-2": Mesh(ring=2),
    "masked ring-3 ulysses-2": Mesh(ring=3, ulysses=2),
    "ulysses-2 tensor-2": Mesh(ulysses=2, tensor=2),
    "ulysses-4": Mesh(ulysses=4),
}


def cases(folder: Path) -> dict[str, Case]:
    """What runs, under one torchrun with the cases of other modules."""
    source = str(models.build("z_image", folder))
    four_heads = tiny(model=Model("random", source, "ZImagePipeline", "text_to_image", "float32"))
    table = {"tiny": Case(tiny()), "four heads": Case(four_heads)}
    for kind in ("model", "layerwise"):
        table[kind] = Case(tiny(offload=kind))
        table[f"{kind} ulysses-2"] = Case(tiny(offload=kind, mesh=Mesh(ulysses=2)))
    for plan, meshes in ((tiny(), TINY), (four_heads, FOUR_HEADS)):
        for name, mesh in meshes.items():
            table[name] = Case(replace(plan, mesh=mesh))
    return table


@pytest.mark.parametrize("name", by_ranks(TINY | FOUR_HEADS))
def test_equal_to_one_rank(results: Results, name: str) -> None:
    alone = results("tiny" if name in TINY else "four heads")
    assert results(name).distance(alone) <= BOUND
    assert results(name).distance(alone, "broken") > 10 * BOUND


def test_each_rank_does_its_share(results: Results) -> None:
    whole = 2 * results("ulysses-2").measured("sequence_parallel")["tokens_per_rank"]
    for name in ("ring-2", "ring-2 ulysses-2", "ring-2 tensor-2"):
        mesh = TINY[name]
        tokens = results(name).measured("sequence_parallel", rank=mesh.world_size - 1)["tokens_per_rank"]
        assert tokens == whole / (mesh.ring * mesh.ulysses)
    weights = results("tensor-2").measured("tensor_parallel", rank=1)["transformer_bytes"]
    whole_weights = (TINY_MODEL / "transformer/diffusion_pytorch_model.safetensors").stat().st_size
    assert (
        0.3 < weights / (2 * whole_weights) < 0.7
    )  # saved in two bytes a weight, used in four; not all of it is split
    for name in ("cfg-2", "cfg-2 ulysses-2"):
        assert results(name).measured("cfg_parallel", rank=1) == {"calls_shared": 4, "calls_with_one_branch": 0}


@pytest.mark.parametrize("name", ["model", "layerwise", "model ulysses-2", "layerwise ulysses-2"])
def test_offload_changes_nothing(results: Results, name: str) -> None:
    assert results(name).distance(results("tiny")) <= BOUND
    if "ulysses" in name:
        assert results(name).distance(results("tiny"), "broken") > 10 * BOUND


def test_offload_moves_what_it_should(results: Results) -> None:
    assert results("model").measured("offload")["models"] == ["text_encoder", "transformer"]
    blocks, steps = 6 + 2 + 2, 4  # layers, refiners, and the caption's embedder, which is a sequence of two
    fetched = {"models": [], "blocks_fetched": steps * blocks, "most_blocks_resident": 1}
    assert results("layerwise").measured("offload") == fetched
