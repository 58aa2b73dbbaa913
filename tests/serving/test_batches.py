"""Images and videos that share a call of a split sequence are those of their prompts and seeds alone."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import openai
import pytest
from live_server import Server, image

from runtime.proof.random_pipelines import build

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning")]
CONFIG = """\
version: 1
model: {model}
parallel: {{ulysses_degree: 2}}
execution: {{dtype: float32}}
sampling: {{width: 64, height: 64, num_inference_steps: 3}}
server: {{max_batch_size: 3, max_steps: 1000}}
"""
PROMPTS = ("a", "a red star over a sea of glass", "two words")


def made(client: openai.OpenAI, prompt: str, seed: int, *, video: bool, **extra: Any) -> np.ndarray:
    asked = {"seed": seed} | extra
    if not video:
        return image(client.images.generate(prompt=prompt, extra_body=asked).data[0])
    done = client.videos.create_and_poll(prompt=prompt, poll_interval_ms=50, extra_body=asked | {"num_frames": 5})
    return imageio.imread(client.videos.download_content(done.id).content, extension=".mp4").astype(int)


@pytest.mark.parametrize("pipeline", ["WanPipeline", "FluxPipeline"])
def test_what_shares_a_call_is_what_it_is_alone(pipeline: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG.format(model=build(pipeline, tmp_path / "model")))
    video = pipeline.startswith("Wan")
    with Server(tmp_path, "config.yaml") as server, ThreadPoolExecutor(4) as pool:
        client = server.client()
        alone = [made(client, prompt, seed, video=video) for seed, prompt in enumerate(PROMPTS)]
        before, calls = server.asked(), server.metric("omni_batch_size_count")
        long = pool.submit(made, client, "long", 9, video=video, num_inference_steps=60)
        server.wait_until_asked(before + 1)
        time.sleep(0.2)
        shared = [pool.submit(made, client, prompt, seed, video=video) for seed, prompt in enumerate(PROMPTS)]
        for expected, found in zip(alone, shared, strict=True):
            assert abs(expected - found.result()).max() <= 1
        long.result()
        assert server.metric("omni_batch_size_count") == calls + 2
