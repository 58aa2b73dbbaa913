"""The embedded models draw what they are asked for, by a classifier that never saw a generated picture."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.timeout(900)  # a hundred pictures
ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "examples" / "tiny_model"))

from classifier import read, train_classifier  # noqa: E402
from evaluate import generate, load, prompts, score, vae_psnr  # noqa: E402
from shapes import SIZE, draw  # noqa: E402

from runtime.pipeline.load import FOLDERS  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def classifier() -> torch.nn.Module:
    return train_classifier()


@pytest.fixture(scope="module", params=FOLDERS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def pipeline(name: str):
    return load(FOLDERS[name])


def test_folder_is_small_plain_and_float32(name: str, pipeline) -> None:
    files = [path for path in FOLDERS[name].rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 8e6
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".jinja", ".md"}
    assert type(pipeline).__module__.startswith("diffusers.")
    for module in (pipeline.transformer, pipeline.vae, pipeline.text_encoder):
        assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}


def test_blocks_split_in_two_and_those_of_qwen_in_four(name: str, pipeline) -> None:
    config, parts = pipeline.transformer.config, {"tiny": 2, "tiny-qwen": 4}[name]
    heads, blocks, width = (
        (config.n_heads, pipeline.transformer.layers, "feed_forward.w1")
        if name == "tiny"
        else (config.num_attention_heads, pipeline.transformer.transformer_blocks, "img_mlp.net.0.proj")
    )
    assert len(blocks) >= 6
    assert heads % parts == 0
    assert heads % (2 * parts) != 0
    assert blocks[0].get_submodule(width).out_features % parts == 0


def test_classifier_reads_drawn_pictures(classifier: torch.nn.Module) -> None:
    rng = random.Random(30_000)
    scenes = prompts()
    pictures = torch.stack([draw(scene, rng) for scene in scenes])
    assert score(classifier, pictures, scenes)["all"] >= 0.98


@pytest.mark.parametrize("steps", [8, pytest.param(20, marks=pytest.mark.slow)])
def test_prompts_are_drawn_right(classifier: torch.nn.Module, pipeline, steps: int) -> None:
    scenes = prompts()
    pictures = generate(pipeline, [scene.caption for scene in scenes], guidance=2.0, steps=steps)
    assert score(classifier, pictures, scenes)["all"] >= 0.95


def test_noise_is_not(classifier: torch.nn.Module) -> None:
    scenes = prompts()
    noise = torch.rand(len(scenes), 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert score(classifier, noise, scenes)["all"] <= 0.10


def test_untrained_transformer_does_not(classifier: torch.nn.Module, pipeline) -> None:
    scenes = prompts()
    trained = pipeline.transformer
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pipeline.transformer = type(trained).from_config(trained.config).eval()
    try:
        pictures = generate(pipeline, [scene.caption for scene in scenes], guidance=0.0, steps=4)
    finally:
        pipeline.transformer = trained
    assert score(classifier, pictures, scenes)["all"] <= 0.10


@pytest.mark.parametrize("name", ["tiny", pytest.param("tiny-qwen", marks=pytest.mark.slow)], indirect=True)
def test_negative_prompt_matters(classifier: torch.nn.Module, pipeline) -> None:
    """Of 48 circles whose colour is left open, 'red' as a negative leaves at most a quarter of the red ones."""
    captions = ["a circle"] * 48
    red = [
        sum(
            scene.colour == "red" for scene in read(classifier, generate(pipeline, captions, 1.0, 8, negative=negative))
        )
        for negative in ("", "red")
    ]
    assert red[0] >= 3
    assert red[1] <= red[0] / 4


def test_guidance_matters(pipeline) -> None:
    caption = [prompts()[0].caption]
    plain, guided = (generate(pipeline, caption, guidance, 4) for guidance in (0.0, 4.0))
    assert (plain - guided).abs().mean() > 0.01


def test_vae_keeps_edges(pipeline) -> None:
    assert vae_psnr(pipeline) >= 28.0
