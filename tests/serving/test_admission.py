"""A request joins others between two steps, has the image that it has alone, and is answered when it is done."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import numpy as np
import openai
import pytest
from live_server import Server, image

from runtime.proof.random_pipelines import build

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
CONFIG = """\
version: 1
model: {model}
parallel: {{{parallel}}}
execution: {{dtype: float32, step_execution: true}}
sampling: {{width: 64, height: 64, num_inference_steps: 3{sampling}}}
server: {{max_batch_size: 3, max_steps: 1000}}
"""
PROMPTS = ("a red star over a sea of glass", "two words")
LONG = 120  # steps


class Started(NamedTuple):
    server: Server
    client: openai.OpenAI
    longer: np.ndarray
    """The image of many steps, made alone."""


CASES = {
    "Z-Image, Ulysses": ("tiny", "ulysses_degree: 2", ""),
    "Z-Image, CFG": ("tiny", "cfg_parallel_size: 2", ""),
    "Qwen-Image, CFG": ("tiny-qwen", "cfg_parallel_size: 2", ", negative_prompt: what nobody wants to see"),
    "Qwen-Image, tensor": ("tiny-qwen", "tensor_parallel_size: 2", ""),
    "FLUX, Ring": ("flux", "ring_degree: 2", ""),
}


@pytest.fixture(scope="module", params=CASES)
def started(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    folder = tmp_path_factory.mktemp("server")
    model, parallel, sampling = CASES[request.param]
    if model == "flux":
        model = str(build("FluxPipeline", folder / "model"))
    (folder / "config.yaml").write_text(CONFIG.format(model=model, parallel=parallel, sampling=sampling))
    with Server(folder, "config.yaml") as server:
        client = server.client()
        yield Started(server, client, made(client, "long", 9, LONG))


def made(client: openai.OpenAI, prompt: str, seed: int, steps: int = 3) -> np.ndarray:
    extra = {"seed": seed, "num_inference_steps": steps}
    return image(client.images.generate(prompt=prompt, extra_body=extra).data[0])


def long_one(started: Started, pool: ThreadPoolExecutor) -> Future[np.ndarray]:
    """A request that is under way, some steps on."""
    steps = started.server.metric("omni_step_seconds_count")
    result = pool.submit(made, started.client, "long", 9, LONG)
    started.server.wait_for("omni_step_seconds_count", steps + 5)
    return result


def asked(server: Server) -> socket.socket:
    """A request for far more steps than anybody waits for; who closes the socket gives it up."""
    address = urlsplit(server.url)
    body = json.dumps({"prompt": "other", "num_inference_steps": 1000})
    head = f"POST /v1/images/generations HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Type: application/json\r\n"
    result = socket.create_connection((address.hostname, address.port))
    result.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
    return result


def joined(started: Started) -> float:
    return started.server.metric("omni_joined_total")


def test_a_request_that_joins_has_its_own_image_and_is_answered_before_the_one_that_it_joined(started: Started) -> None:
    client, before = started.client, joined(started)
    alone = [made(client, prompt, seed) for seed, prompt in enumerate(PROMPTS)]
    assert joined(started) == before
    with ThreadPoolExecutor(3) as pool:
        long = long_one(started, pool)
        short = [pool.submit(made, client, prompt, seed) for seed, prompt in enumerate(PROMPTS)]
        for expected, found in zip(alone, short, strict=True):
            assert abs(expected - found.result()).max() <= 1
        assert not long.done()
        assert abs(started.longer - long.result()).max() <= 1
    assert joined(started) == before + 2
    # The bound tells one image from another, and from the same one with another step.
    assert abs(alone[0] - alone[1]).max() > 3
    assert abs(alone[0] - made(client, PROMPTS[0], 0, 4)).max() > 3


def test_a_request_that_is_given_up_leaves_the_others_as_they_are(started: Started) -> None:
    with ThreadPoolExecutor(1) as pool:
        long, before = long_one(started, pool), joined(started)
        with asked(started.server):
            started.server.wait_for("omni_joined_total", before + 1)
        assert abs(started.longer - long.result()).max() <= 1
    # It has left, far from its end: what has another size may begin.
    other = started.client.images.generate(prompt="a", size="128x64", extra_body={"seed": 3})
    assert image(other.data[0]).shape == (64, 128, 3)


def test_the_one_that_was_joined_may_be_given_up_too(started: Started) -> None:
    steps, before = started.server.metric("omni_step_seconds_count"), joined(started)
    with ThreadPoolExecutor(1) as pool:
        with asked(started.server):
            started.server.wait_for("omni_step_seconds_count", steps + 5)
            joining = pool.submit(made, started.client, "long", 9, LONG)
            started.server.wait_for("omni_joined_total", before + 1)
            assert started.server.metric('omni_replica_making{replica="0"}') == 2
        assert abs(started.longer - joining.result()).max() <= 1


def streamed(client: openai.OpenAI) -> list[np.ndarray]:
    """Two images on the way, and the image."""
    asked = {"seed": 3, "num_inference_steps": 6}
    events = client.images.generate(prompt=PROMPTS[0], stream=True, partial_images=2, extra_body=asked)
    return [image(event.b64_json) for event in events]


def test_images_on_the_way_are_those_of_the_request_alone(started: Started) -> None:
    alone, before = streamed(started.client), joined(started)
    with ThreadPoolExecutor(1) as pool:
        long = long_one(started, pool)
        shared = streamed(started.client)
        long.result()
    assert joined(started) == before + 1
    assert len(alone) == 3
    for expected, found in zip(alone, shared, strict=True):
        assert abs(expected - found).max() <= 1
    assert abs(alone[0] - alone[2]).max() > 3


def test_another_size_waits_until_the_others_are_done(started: Started) -> None:
    with ThreadPoolExecutor(1) as pool:
        long, before = long_one(started, pool), joined(started)
        other = started.client.images.generate(prompt="a", size="128x64", extra_body={"seed": 3})
        assert image(other.data[0]).shape == (64, 128, 3)
        assert abs(started.longer - long.result(timeout=1)).max() <= 1
        assert joined(started) == before


def test_all_that_a_worker_was_at_when_it_died_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG.format(model="tiny", parallel="ulysses_degree: 1", sampling=""))
    with Server(tmp_path, "config.yaml") as server, ThreadPoolExecutor(2) as pool:
        client = server.client()
        alone = [made(client, prompt, seed, LONG) for seed, prompt in enumerate(PROMPTS)]
        shared = [pool.submit(made, client, prompt, seed, LONG) for seed, prompt in enumerate(PROMPTS)]
        server.wait_for("omni_joined_total", 1)
        server.ranks()[0].kill()
        for expected, found in zip(alone, shared, strict=True):
            assert abs(expected - found.result()).max() <= 1
        assert server.metric("omni_retries_total") == 2
        assert server.metric("omni_joined_total") == 1  # each was made alone
