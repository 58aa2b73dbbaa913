"""The text encoder, split over the tensor ranks: they compute what one computes, and each holds a part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import models
import pytest
from cases import Case, Result, tiny

from omni_config.plan import Mesh, Model

pytestmark = pytest.mark.timeout(1800)
Results = Callable[[str], Result]
BOUND = 1e-5
FAMILIES = {"z_image": ("ZImagePipeline", "guidance_scale"), "qwen_image": ("QwenImagePipeline", "true_cfg_scale")}


def cases(folder: Path) -> dict[str, Case]:
    """What runs, under one torchrun with the cases of other modules."""
    table = {}
    for family, (pipeline, argument) in FAMILIES.items():
        plan = tiny(model=Model(family, str(models.build(family, folder)), pipeline, "text_to_image", "float32"))
        plan = replace(plan, sampling=replace(plan.sampling, guidance={argument: 3.0}))
        table[family] = Case(plan)
        split = replace(plan, text_encoder_tensor_parallel=True, mesh=Mesh(tensor=2))
        table[f"{family} split"] = Case(split, control="text_encoder")
    return table


@pytest.mark.parametrize("family", FAMILIES)
def test_equal_to_one_rank(results: Results, family: str) -> None:
    split = results(f"{family} split")
    assert split.distance(results(family)) <= BOUND
    assert split.distance(results(family), "broken") > 10 * BOUND


@pytest.mark.parametrize("family", FAMILIES)
def test_each_rank_holds_a_part(results: Results, family: str) -> None:
    held = [results(f"{family} split").measured("text_encoder_parallel", rank)["text_encoder_bytes"] for rank in (0, 1)]
    assert held[0] == held[1]
    whole = results(family).ranks[0]  # nothing was split there, so nothing measured it
    assert "text_encoder_parallel" not in whole["features"]
