"""Tiles: decoded in turn by several ranks, they make the picture that one rank makes of the same tiles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from cases import Case, Result, tiny
from PIL import Image

from omni_config.plan import Mesh, Plan, Vae
from runtime.pipeline.media import save

pytestmark = pytest.mark.timeout(1800)
Results = Callable[[str], Result]


def plan(mesh: Mesh, *, tiling: bool = True, ranks: int = 1, size: tuple[int, int] = (128, 128)) -> Plan:
    result = tiny(mesh=mesh, vae=Vae(use_tiling=tiling, use_slicing=False, patch_parallel_size=ranks))
    return replace(result, sampling=replace(result.sampling, width=size[0], height=size[1]))  # a tile is 64 px


def several(*, use_slicing: bool) -> Plan:
    """Three pictures of one prompt."""
    result = tiny(vae=Vae(use_tiling=False, use_slicing=use_slicing, patch_parallel_size=1))
    return replace(result, sampling=replace(result.sampling, num_images_per_prompt=3))


def cases(folder: Path) -> dict[str, Case]:
    """What runs, under one torchrun with the cases of other modules."""
    table = {
        "whole": Case(plan(Mesh(), tiling=False)),
        "tiled": Case(plan(Mesh())),
        "two": Case(plan(Mesh(ulysses=2), ranks=2), control="vae"),
        "three": Case(several(use_slicing=False)),
        "three sliced": Case(several(use_slicing=True)),
        "three of two ranks": Case(replace(several(use_slicing=True), mesh=Mesh(cfg=2))),
        "two of four": Case(plan(Mesh(cfg=2, ulysses=2), ranks=2), control=""),
    }
    for name, size in {"one tile": (64, 64), "four tiles": (80, 64)}.items():
        table[name] = Case(plan(Mesh(), size=size))
        table[f"{name} of eight"] = Case(plan(Mesh(2, 2, 2), ranks=8, size=size), control="")
    return table


def test_tiling_decodes_otherwise_than_the_whole(results: Results) -> None:
    assert not np.array_equal(results("tiled").image, results("whole").image)
    assert results("tiled").distance(results("whole")) == 0


def test_ranks_share_the_tiles(results: Results) -> None:
    two = results("two")
    assert np.abs(two.image.astype(int) - results("tiled").image).max() <= 1  # rounding to bytes
    assert (
        np.abs(two.broken_image.astype(int) - results("tiled").image).max() > 10
    )  # the last rank's tiles are part of the picture
    tiles = [two.measured("vae_patch_parallel", rank)["tiles_decoded"] for rank in (0, 1)]
    assert sum(tiles) == 9  # 3 x 3 tiles, which overlap by a quarter
    assert max(tiles) == 5


def test_the_first_ranks_share_and_the_others_decode_nothing(results: Results) -> None:
    four = results("two of four")
    assert np.abs(four.image.astype(int) - results("tiled").image).max() <= 1
    assert [four.measured("vae_patch_parallel", rank)["tiles_decoded"] for rank in range(4)] == [5, 4, 0, 0]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "tiles"), [("one tile", [1] * 8), ("four tiles", [1] * 4 + [0] * 4)])
def test_with_fewer_tiles_than_ranks_the_last_ones_idle(results: Results, name: str, tiles: list[int]) -> None:
    """Or, where there is one tile only, every rank decodes it for itself."""
    eight, one = results(f"{name} of eight"), results(name)
    assert np.abs(eight.image.astype(int) - one.image).max() <= 1
    assert [eight.measured("vae_patch_parallel", rank)["tiles_decoded"] for rank in range(8)] == tiles


def test_several_pictures_of_a_prompt(results: Results, tmp_path: Path) -> None:
    three, shared = results("three"), results("three of two ranks")
    first, second, third = three.arrays[0]["image"]
    assert not np.array_equal(first, second)
    assert not np.array_equal(second, third)
    assert shared.distance(three) <= 1e-5
    assert shared.distance(three, "broken") > 1e-4
    output = SimpleNamespace(images=[Image.fromarray(picture) for picture in (first, second, third)])
    paths = save(output, replace(several(use_slicing=False), output=str(tmp_path)))
    assert [Path(path).name[-11:] for path in paths] == ["-7-1of3.png", "-7-2of3.png", "-7-3of3.png"]
    assert np.array_equal(np.asarray(Image.open(paths[1])), second)


def test_slicing_decodes_one_picture_at_a_time_and_changes_none(results: Results) -> None:
    whole, sliced = results("three"), results("three sliced")
    pictures = whole.arrays[0]["image"].astype(int)
    assert np.abs(pictures - sliced.arrays[0]["image"]).max() <= 1  # rounding to bytes
    measured = {"tiling": False, "slicing": True, "decoder_calls": 3, "most_pictures_a_call": 1}
    assert sliced.measured("vae") == measured
