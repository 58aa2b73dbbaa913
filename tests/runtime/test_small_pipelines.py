"""Small pipelines of classes that engines run: diffusers runs each, and a damaged weight changes what it draws."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch

from matrix.engines.environments import environments
from matrix.engines.inside.work import damaged
from matrix.engines.judge import psnr
from matrix.engines.small import SIDE, small
from omni_config.catalog.load import catalog
from runtime.proof import random_pipelines
from runtime.proof.small_pipelines import BESIDE, PIPELINES

MODELS = {
    "Flux2Pipeline": "black-forest-labs/FLUX.2-dev",
    "Flux2KleinPipeline": "black-forest-labs/FLUX.2-klein-4B",
    "HunyuanVideo15Pipeline": "hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_t2v",
    "LTX2Pipeline": "Lightricks/LTX-2",
    "StableDiffusion3Pipeline": "stabilityai/stable-diffusion-3.5-large",
}


def test_each_stands_for_a_published_model_and_none_is_built_twice():
    assert {name: catalog().model(model).pipeline for name, model in MODELS.items()} == {name: name for name in MODELS}
    assert {*MODELS} == {*PIPELINES} >= {*BESIDE}
    assert not {*PIPELINES} & {*random_pipelines.PIPELINES}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Two that wait for each other take minutes where all cores are busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_a_damaged_weight_changes_the_image(pipeline: str, tmp_path: Path):
    one = small(MODELS[pipeline], tmp_path)
    pipe = getattr(diffusers, pipeline).from_pretrained(one.folder)
    pipe.set_progress_bar_config(disable=True)
    asked = {"prompt": one.request["prompt"], "num_inference_steps": 2, "width": SIDE, "height": SIDE}
    asked |= {"num_frames": one.request["num_frames"]} if "num_frames" in one.request else {}

    def image() -> np.ndarray:
        drawn = np.asarray(pipe(**asked, output_type="np", generator=torch.Generator().manual_seed(7))[0])
        return np.rint(255 * drawn).astype(np.uint8)

    with torch.no_grad():
        whole = image()
        with damaged(pipe.transformer, here=True):
            other = image()
        with damaged(pipe.vae, here=True):
            decoded = image()
    assert whole.shape[-3:] == (SIDE, SIDE, 3)
    assert whole.std() > 10
    rounding = min(one.described["rounding"] for one in environments().values())
    assert psnr(other, whole) < rounding
    assert psnr(decoded, whole) < rounding
