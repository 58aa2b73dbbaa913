"""A server of the embedded model, by the official client of OpenAI."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import httpx
import numpy as np
import openai
import pytest
from live_server import Server, image
from PIL import Image

LONG = {"num_inference_steps": 200}
#: Rounding alone: sums are in another order in a batch.
ALIKE = 2


def generate(client: openai.OpenAI, prompt: str = "a red star", **extra: object) -> np.ndarray:
    n = extra.pop("n", 1)
    answer = client.images.generate(prompt=prompt, n=n, size="64x64", extra_body={"seed": 3} | extra)
    images = [image(item) for item in answer.data]
    return images[0] if n == 1 else np.stack(images)


def apart(one: np.ndarray, other: np.ndarray) -> int:
    return int(abs(one - other).max())


def test_the_model_is_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").id == "tiny"


def test_a_image_is_that_of_its_seed(client: openai.OpenAI) -> None:
    first = generate(client)
    assert first.shape == (64, 64, 3)
    assert apart(first, generate(client)) == 0
    assert apart(first, generate(client, seed=4)) > 50


def test_without_a_seed_images_differ_and_the_answer_has_it(client: openai.OpenAI) -> None:
    answers = [client.images.generate(prompt="a red star", response_format="b64_json") for _ in range(2)]
    assert apart(*(image(answer.data[0]) for answer in answers)) > 50
    again = generate(client, seed=answers[0].data[0].model_extra["seed"])
    assert apart(image(answers[0].data[0]), again) == 0
    assert answers[0].size == "64x64"
    assert answers[0]._request_id != answers[1]._request_id


def test_seeds_of_several_images_count_up(client: openai.OpenAI) -> None:
    both = generate(client, n=2)
    assert apart(both[0], generate(client, seed=3)) <= ALIKE
    assert apart(both[1], generate(client, seed=4)) <= ALIKE


@pytest.mark.parametrize(
    "field",
    [{"negative_prompt": "red"}, {"num_inference_steps": 6}, {"guidance_scale": 5.0}, {"true_cfg_scale": 5.0}],
    ids=lambda field: next(iter(field)),
)
def test_fields_of_vllm_omni_are_followed(client: openai.OpenAI, field: dict[str, object]) -> None:
    assert apart(generate(client), generate(client, **field)) > 20


def test_the_same_seed_is_the_same_image_whatever_is_made_with_it(server: Server, client: openai.OpenAI) -> None:
    prompts = ["a red star", "a blue heart on a gray background beside a small green square", "a circle", "a cross"]
    alone = [generate(client, prompt, seed=seed) for seed, prompt in enumerate(prompts)]
    batches, begun = server.metric('omni_batch_size_bucket{le="+Inf"}'), server.metric("omni_queue_wait_seconds_count")
    with ThreadPoolExecutor(6) as pool:
        # While the first is made, the others wait together, and one that fits no batch stands amid them.
        others = [pool.submit(generate, client, num_inference_steps=20)]
        server.wait_for("omni_queue_wait_seconds_count", begun + 1)
        calls = [pool.submit(generate, client, prompt, seed=seed) for seed, prompt in enumerate(prompts)]
        others.append(pool.submit(generate, client, num_inference_steps=5))
        together = [call.result() for call in calls]
        for other in others:
            other.result()
    assert server.metric('omni_batch_size_bucket{le="+Inf"}') - batches < 6
    assert [apart(*pair) <= ALIKE for pair in zip(alone, together, strict=True)] == [True] * 4
    assert apart(together[0], together[1]) > 50


@pytest.mark.parametrize(
    ("asked", "error", "code", "words"),
    [
        ({"size": "60x64"}, openai.BadRequestError, "OMNI504", "multiple of 8"),
        ({"size": "8x64"}, openai.BadRequestError, "OMNI905", "16"),
        ({"size": "1024x1024"}, openai.BadRequestError, None, "65536 pixels"),
        ({"size": "large"}, openai.BadRequestError, None, "size"),
        ({"model": "dall-e-3"}, openai.NotFoundError, "model_not_found", "'tiny' is"),
        ({"response_format": "url", "stream": True}, openai.BadRequestError, "unsupported_value", "b64_json"),
        ({"n": 11}, openai.BadRequestError, None, "at most 10"),
        ({"n": 0}, openai.BadRequestError, None, "n: "),
        ({"quality": "hd"}, openai.BadRequestError, None, "quality"),
        ({"prompt": ""}, openai.BadRequestError, None, "empty"),
        ({"prompt": "x" * 5000}, openai.BadRequestError, None, "4096 characters"),
        ({"extra_body": {"steps": 9}}, openai.BadRequestError, "unknown_parameter", "steps"),
        ({"extra_body": {"num_inference_steps": 300}}, openai.BadRequestError, None, "200 steps"),
        ({"extra_body": {"seed": "7"}}, openai.BadRequestError, None, "seed"),
        ({"extra_body": {"negative_prompt": "red", "guidance_scale": 0}}, None, "OMNI509", "negative"),
    ],
    ids=str,
)
def test_an_error_is_of_the_clients_own_class(client: openai.OpenAI, asked, error, code, words) -> None:
    if error is None:  # a warning comes with the image
        (warning,) = client.images.generate(**{"prompt": "a star"} | asked).model_extra["warnings"]
        assert warning["code"] == code
        assert words in warning["message"]
        return
    with pytest.raises(error) as caught:
        client.images.generate(**{"prompt": "a star"} | asked)
    assert caught.value.code == code
    assert words in caught.value.body["message"]
    assert caught.value.body["type"] == "invalid_request_error"


def test_an_image_behind_a_url_is_the_same(server: Server, client: openai.OpenAI) -> None:
    answer = client.images.generate(prompt="a red star", response_format="url", extra_body={"seed": 3})
    url = answer.data[0].url
    assert url.startswith(f"{server.url}/v1/files/")
    assert apart(np.asarray(Image.open(BytesIO(httpx.get(url).content))).astype(int), generate(client)) == 0


def test_an_edit_needs_an_editing_model(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="/v1/images/generations"):
        client.images.edit(image=b"", prompt="a star")


def test_images_on_the_way_come_closer_to_the_last(client: openai.OpenAI) -> None:
    asked = {"seed": 3, "num_inference_steps": 12}
    events = list(client.images.generate(prompt="a red star", stream=True, partial_images=3, extra_body=asked))
    assert [event.type for event in events] == ["image_generation.partial_image"] * 3 + ["image_generation.completed"]
    assert [event.partial_image_index for event in events[:3]] == [0, 1, 2]
    images = [image(event.b64_json) for event in events]
    distances = [abs(early - images[-1]).mean() for early in images[:-1]]
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 8
    assert apart(images[-1], generate(client, num_inference_steps=12)) == 0


def test_a_client_that_goes_away_ends_its_work_between_two_steps(server: Server, client: openai.OpenAI) -> None:
    before, gone = generate(client), server.metric('omni_requests_total{outcome="gone"}')
    steps = server.metric('omni_steps_total{kind="computed"}')
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=1.5).images.generate(prompt="a star", extra_body=LONG)
    assert apart(generate(client), before) == 0
    assert server.metric('omni_requests_total{outcome="gone"}') == gone + 1
    assert 4 < server.metric('omni_steps_total{kind="computed"}') - steps < 200


def test_metrics_and_logs_tell_what_happened_and_no_prompt(server: Server, client: openai.OpenAI) -> None:
    answer = client.images.generate(prompt="a secret star", extra_body={"seed": 1})
    text = server.get("/metrics").text
    for name in (
        "omni_queue_wait_seconds_sum",
        "omni_step_seconds_count",
        'omni_rank_memory_bytes{rank="1",replica="0"}',
    ):
        assert name in text
    assert server.metric('omni_requests_total{outcome="ok"}') > 0
    assert server.metric('omni_rank_memory_bytes{rank="0",replica="0"}') > 50e6
    lines = [json.loads(line) for line in server.log.read_text().splitlines()[1:]]
    (line,) = [line for line in lines if line.get("id") == answer._request_id]
    assert (line["outcome"], line["steps"], line["seed"], line["size"]) == ("ok", 4, 1, "64x64")
    assert "secret" not in server.log.read_text()


def test_an_image_whose_worker_is_killed_is_made_again_and_only_once(server: Server, client: openai.OpenAI) -> None:
    before = generate(client, **LONG)
    restarts = server.metric('omni_worker_restarts_total{replica="0"}')
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(generate, client, **LONG)
        kill_a_rank(server)
        wait_until_it_is_seen(server)
        assert server.get("/health").status_code == 200
        assert apart(call.result(), before) == 0
        assert server.metric("omni_retries_total") == 1
        call = pool.submit(generate, client, **LONG)
        for _ in range(2):
            kill_a_rank(server)
            wait_until_it_is_seen(server)
        with pytest.raises(openai.InternalServerError) as caught:
            call.result()
    assert caught.value.status_code == 503
    assert "rank 1: killed by SIGKILL" in caught.value.body["message"]
    server.wait_until_ready()
    assert server.metric('omni_worker_restarts_total{replica="0"}') == restarts + 3
    assert apart(generate(client, **LONG), before) == 0


def kill_a_rank(server: Server) -> None:
    """End a rank while it is at a long image."""
    steps = server.metric("omni_step_seconds_count")
    server.wait_for("omni_step_seconds_count", steps + 12)  # more than the warm-up has
    server.ranks()[1].kill()


def wait_until_it_is_seen(server: Server) -> None:
    while server.get("/ready").status_code == 200:
        pass


def test_what_was_asked_before_sigterm_is_still_answered(server: Server, client: openai.OpenAI) -> None:
    before, asked = generate(client), server.asked()
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(generate, client, num_inference_steps=steps) for steps in (30, 4)]
        server.wait_until_asked(asked + 2)
        server.ask_to_end()
        server.wait_until_it_takes_no_more()
        made = [call.result() for call in calls]
    assert apart(made[1], before) <= ALIKE
    assert server.process.wait(timeout=30) == 0
    assert set(server.left()) <= {"plan.json"}  # beside the log of the run in which a rank was killed
