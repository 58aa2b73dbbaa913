"""Several prompts in one call: ranks make the images of one rank, under every plan; files have names of prompts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cases import Case, Result, tiny, tiny_qwen
from models import build

from omni_config.plan import Hsdp, Mesh, Model, Plan
from runtime import launch

pytestmark = pytest.mark.timeout(1800)
Results = Callable[[str], Result]
PROMPTS = ["a red star", "a blue heart on a white background"]
MESHES = {
    "ulysses": {"mesh": Mesh(ulysses=2)},
    "ring": {"mesh": Mesh(ring=2)},
    "cfg": {"mesh": Mesh(cfg=2)},
    "tensor": {"mesh": Mesh(tensor=2)},
    "hsdp": {"mesh": Mesh(cfg=2), "hsdp": Hsdp(1, 2)},
}
#: Qwen-Image masks the padding of shorter prompts, and a mask is not split with the sequence (OMNI715).
OF = {"tiny": [*MESHES], "flux": [*MESHES], "qwen": ["cfg", "tensor", "hsdp"]}
PAIRS = [(of, mesh) for of, meshes in OF.items() for mesh in meshes if (of, mesh) != ("flux", "cfg")]


def several(plan: Plan, images: int = 2) -> Plan:
    return replace(plan, sampling=replace(plan.sampling, prompt=PROMPTS, num_images_per_prompt=images))


def plans(folder: Path) -> dict[str, Plan]:
    flux = tiny(model=Model("flux", str(build("flux", folder)), "FluxPipeline", "text_to_image", "float32"))
    guided = replace(flux.sampling, guidance={"guidance_scale": 3.5, "true_cfg_scale": 2.0})
    flux = replace(flux, guidance_calls="two", sampling=guided)
    return {"tiny": several(tiny()), "flux": several(flux), "qwen": several(tiny_qwen())}


def cases(folder: Path) -> dict[str, Case]:
    """What runs, under one torchrun with the cases of other modules."""
    alone = plans(folder)
    table = {of: Case(plan) for of, plan in alone.items()}
    table |= {f"{of} {mesh}": Case(replace(alone[of], **MESHES[mesh])) for of, mesh in PAIRS}
    one = replace(alone["tiny"].sampling, prompt=PROMPTS[0], num_images_per_prompt=4)
    return table | {"one prompt": Case(replace(alone["tiny"], sampling=one))}


@pytest.mark.parametrize(("of", "mesh"), PAIRS)
def test_ranks_make_the_images_of_all_prompts(results: Results, of: str, mesh: str) -> None:
    own, alone = results(f"{of} {mesh}"), results(of)
    assert len(alone.arrays[0]["image"]) == len(PROMPTS) * 2
    assert own.distance(alone) <= 1e-4
    assert own.distance(alone, "broken") > 1e-3


def test_images_of_a_prompt_follow_each_other(results: Results) -> None:
    """The noise of an image depends on its place alone, so the first two are those of the first prompt alone."""
    import numpy as np

    own, one = results("tiny").arrays[0]["latents"], results("one prompt").arrays[0]["latents"]
    assert np.abs(own[:2] - one[:2]).max() <= 1e-3
    assert np.abs(own[2:] - one[2:]).max() > 1e-1


def test_files_are_named_by_their_prompt(tmp_path: Path) -> None:
    plan = several(tiny(output=str(tmp_path / "out")))
    plan = replace(plan, sampling=replace(plan.sampling, num_inference_steps=1))
    report = launch(plan, timeout=120)
    assert [Path(path).name for path in report.images] == [
        "a-red-star-7-1of2.png",
        "a-red-star-7-2of2.png",
        "a-blue-heart-on-a-white-background-7-1of2.png",
        "a-blue-heart-on-a-white-background-7-2of2.png",
    ]
    assert report.plan["sampling"]["prompt"] == PROMPTS  # Z-Image changes the list that it is given
