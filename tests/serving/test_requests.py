"""What is refused before anything reaches a worker, and what the queue does; no torch, and workers that only wait."""

from __future__ import annotations

import asyncio
import json
import shlex
import struct
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path

import httpx
import openai
import pytest
from PIL import Image
from typer.testing import CliRunner
from waiting import application

from omni_config.cli import app as omni
from runtime.serving.queue import stop
from runtime.serving.workers import Cancelled

EDIT = "model: Qwen/Qwen-Image-Edit\n"
PATH = "/v1/images/generations"
#: The guide's online commands, each with what its Plan must say.
COMMANDS = {
    """Qwen/Qwen-Image --port 8091 --cache-backend tea_cache --cache-config '{"rel_l1_thresh": 0.2}' --usp 2""": (
        2,
        1,
        1,
    ),
    """Qwen/Qwen-Image --omni --port 8091 --cache-backend cache_dit
    --cache-config '{"Fn_compute_blocks": 1, "max_warmup_steps": 8}' --ring 2""": (1, 2, 1),
    "Qwen/Qwen-Image-Edit --omni --port 8091 --cache-backend cache_dit --cfg-parallel-size 2": (1, 1, 2),
    "Qwen/Qwen-Image-Edit --omni --port 8091 --cache-backend cache_dit --cfg-parallel-size 2 --usp 2": (2, 1, 2),
    "Qwen/Qwen-Image --omni --port 8091 --cache-backend cache_dit --usp 2 --ring 2": (2, 2, 1),
}


@asynccontextmanager
async def serving(folder: Path, config: str = "model: tiny\n", key: str | None = None) -> AsyncIterator[tuple]:
    front, workers, queue, _ = application(folder, config, key)
    work = asyncio.create_task(queue.work())
    transport = httpx.ASGITransport(front, raise_app_exceptions=True)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client, workers, queue
    await stop(work)


def run(scenario: Callable) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 30))


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("command", COMMANDS)
def test_an_online_command_of_the_guide_makes_its_plan(command: str) -> None:
    result = CliRunner().invoke(omni(), ["serve", "--dry-run", *shlex.split(command)])
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    mesh = told["plan"]["mesh"]
    assert (mesh["ulysses"], mesh["ring"], mesh["cfg"]) == COMMANDS[command]
    assert told["server"]["port"] == 8091
    assert told["plan"]["cache"]["backend"] in command


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["tiny", "--host", "0.0.0.0"], 0, "OMNI704 [warning]"),
        (["tiny", "--host", "0.0.0.0", "--api-key", "secret"], 0, ""),
        (["tiny", "--cache-backend", "tea_cache", "--max-batch-size", "4"], 0, "lowered from 4 to 1"),
        (["tiny", "--usp", "4"], 1, "OMNI103"),
        (["missing.yaml"], 2, "OMNI902"),
        (["tinny"], 2, "did you mean tiny"),
        (["tiny", "--port", "99999"], 2, "OMNI905"),
        (["Wan-AI/Wan2.1-T2V-1.3B-Diffusers"], 0, ""),
        (["tiny", "--max-queue", "0"], 2, "OMNI905"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_the_command_says(arguments: list[str], code: int, words: str) -> None:
    result = CliRunner().invoke(omni(), ["serve", "--dry-run", *arguments])
    assert (result.exit_code, words in result.stderr) == (code, True), result.stderr
    assert "secret" not in result.output


def test_another_engine_gets_its_own_command() -> None:
    command = ["serve", "Qwen/Qwen-Image", "--engine", "vllm-omni", "--usp", "2", "--port", "8091", "--dry-run"]
    result = CliRunner().invoke(omni(), command)
    assert result.stdout == "vllm serve Qwen/Qwen-Image --omni \\\n  --port 8091 \\\n  --usp 2\n"


def test_a_request_that_breaks_a_rule_of_the_mesh_has_its_code(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, "model: tiny\nparallel: {cfg_parallel_size: 2}\n") as (client, workers, _):
            for fields, code in (({"guidance_scale": 0}, "OMNI107"), ({"size": "60x64"}, "OMNI504")):
                answer = await client.post(PATH, json={"prompt": "a star"} | fields)
                assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)
            assert workers.batches == []
        config = f"{EDIT}parallel: {{cfg_parallel_size: 2}}\nserver: true\n"
        async with serving(tmp_path, config) as (client, _, _):
            answer = await client.post("/v1/images/edits", data={"prompt": "dusk"}, files={"image": png(8, 8)})
            assert answer.json()["error"]["code"] == "OMNI108"

    run(scenario)


def test_a_key_is_asked_for_but_by_probes(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, key="right") as (client, _, _):
            for header in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "right"}):
                answer = await client.get("/v1/models", headers=header)
                assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
            assert (await client.get("/metrics")).status_code == 401
            assert (await client.get("/v1/plan", headers={"Authorization": "Bearer right"})).status_code == 200
            for path in ("/", "/health", "/ready"):
                assert (await client.get(path)).status_code == 200

    run(scenario)


def test_compatible_images_are_made_together_and_others_wait(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, "model: tiny\nserver: {max_batch_size: 3}\n") as (client, workers, queue):
            asked = [{"seed": 1}, {"seed": 2}, {"size": "32x32"}, {"seed": 3}, {"num_inference_steps": 9}, {"n": 2}]
            posts = []
            for number, fields in enumerate(asked):
                posts.append(asyncio.create_task(client.post(PATH, json={"prompt": f"{number}"} | fields)))
                await until(lambda: len(workers.batches) == 1)
                await asyncio.sleep(0.02)
            assert queue.depth == 5
            workers.may_finish.set()
            answers = await asyncio.gather(*posts)
        assert [answer.status_code for answer in answers] == [200] * 6
        assert [len(answer.json()["data"]) for answer in answers] == [1, 1, 1, 1, 1, 2]
        made = [[sampling.prompt for sampling in batch.samplings] for batch in workers.batches]
        assert made == [["0"], ["1", "3", "5"], ["2"], ["4"], ["5"]]

    run(scenario)


def test_a_deadline_ends_the_work(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, "model: tiny\nserver: {request_timeout: 0.2}\n") as (client, workers, queue):
            answers = await asyncio.gather(*(client.post(PATH, json={"prompt": "a"}) for _ in range(2)))
            assert [answer.status_code for answer in answers] == [504, 504]
            assert answers[0].json()["error"]["code"] == "deadline_exceeded"
            await until(lambda: workers.batch.done() and queue.depth == 0)
            assert isinstance(workers.batch.exception(), Cancelled)

    run(scenario)


def test_a_full_queue_is_429(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, "model: tiny\nserver: {max_queue: 2}\n") as (client, workers, _):
            posts = []
            for _ in range(3):
                posts.append(asyncio.create_task(client.post(PATH, json={"prompt": "a"})))
                await until(lambda: len(workers.batches) == 1)
                await asyncio.sleep(0.02)
            answer = await client.post(PATH, json={"prompt": "a"})
            assert answer.status_code == 429
            assert int(answer.headers["retry-after"]) > 0
            theirs = openai.AsyncOpenAI(base_url="http://test/v1", api_key="none", http_client=client, max_retries=0)
            with pytest.raises(openai.RateLimitError):
                await theirs.images.generate(prompt="a")
            assert answer.json()["error"]["type"] == "rate_limit_error"
            workers.may_finish.set()
            assert [(await post).status_code for post in posts] == [200] * 3

    run(scenario)


def test_a_body_has_a_limit_whatever_its_header_says(tmp_path: Path) -> None:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 2**10

    async def scenario() -> None:
        async with serving(tmp_path, "model: tiny\nserver: {max_body: 0.01}\n") as (client, _, _):
            for content in (b"x" * 2**17, body()):
                answer = await client.post(PATH, content=content, headers={"Content-Type": "application/json"})
                assert answer.status_code == 413
                assert answer.json()["error"]["code"] == "body_too_large"

    run(scenario)


def test_an_image_behind_a_url_needs_its_signature_and_no_key(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, key="right") as (client, workers, _):
            workers.may_finish.set()
            key = {"Authorization": "Bearer right"}
            asked = {"prompt": "a", "n": 2, "seed": 5, "response_format": "url"}
            answer = (await client.post(PATH, json=asked, headers=key)).json()
            assert [image["seed"] for image in answer["data"]] == [5, 6]
            assert "b64_json" not in answer["data"][0]
            url, other = (image["url"] for image in answer["data"])
            found = await client.get(url)
            assert (found.status_code, found.content) == (200, b"an image")
            assert (found.headers["content-type"], found.headers["x-content-type-options"]) == ("image/png", "nosniff")
            name, signature = url.split("/")[-1].split("?")[0], url.split("=")[-1]
            for wrong, status in (
                (url.replace("expires=", "expires=9"), 403),
                (url.replace(signature, other.split("=")[-1]), 403),
                (url.replace(signature, "é"), 403),
                (url.replace(name, "key"), 403),
                (url.replace(name, "..%2F" + name), 404),  # no route
                (url.split("&")[0], 400),
            ):
                assert (await client.get(wrong)).status_code == status, wrong
            (tmp_path / "store" / name).unlink()
            assert (await client.get(url)).json()["error"]["code"] == "not_kept"
        async with serving(tmp_path, "model: tiny\nserver: {public_url: https://images.test/a}\n") as (
            client,
            workers,
            _,
        ):
            found = await client.get(other)  # another server over the same folder
            assert found.content == b"an image"
            workers.may_finish.set()
            answer = (await client.post(PATH, json={"prompt": "a", "response_format": "url"})).json()
            assert answer["data"][0]["url"].startswith("https://images.test/a/v1/files/")

    run(scenario)


def test_fields_of_sglang(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as (client, workers, _):
            workers.may_finish.set()
            asked = {"prompt": "a", "width": 32, "height": 48, "generator_device": "cpu"}
            assert (await client.post(PATH, json=asked)).json()["size"] == "32x48"
            for wrong in ({"height": None}, {"size": "32x48"}, {"generator_device": "cuda"}, {"style": "vivid"}):
                assert (await client.post(PATH, json=asked | wrong)).status_code == 400, wrong

    run(scenario)


@pytest.mark.parametrize(
    ("path", "content", "words"),
    [
        (PATH, b"{", "no JSON"),
        (PATH, b"[]", "dictionary"),
        (PATH, b'{"prompt": "\\ud800"}', "Unicode"),
        (PATH, b'{"prompt": null}', "prompt"),
        (PATH, b'{"prompt": "a", "true_cfg_scale": 1e999}', "true_cfg_scale"),
        ("/v1/nothing", b"", "not found"),
    ],
)
def test_a_body_that_is_none(tmp_path: Path, path: str, content: bytes, words: str) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as (client, workers, _):
            answer = await client.post(path, content=content, headers={"Content-Type": "application/json"})
            assert 400 <= answer.status_code < 500
            assert words in answer.json()["error"]["message"]
            assert workers.batches == []

    run(scenario)


def png(width: int, height: int) -> bytes:
    data = BytesIO()
    Image.new("RGB", (width, height), "red").save(data, "PNG")
    return data.getvalue()


def bomb() -> bytes:
    """A PNG that says it has 60,000 x 60,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(10))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("files", "data", "words"),
    [
        ([("image", bomb())], {}, "pixels"),
        ([("image", png(3000, 3000))], {}, "pixels"),
        ([("image", png(999, 999)[:2000])], {}, "damaged"),
        ([("image", b"%!PS-Adobe-3.0 EPSF-3.0")], {}, "is no PNG or JPEG or WEBP"),
        ([], {}, "give one image, not 0"),
        ([("image[]", png(8, 8)), ("image[]", png(8, 8))], {}, "not 2"),
        ([("image", png(8, 8)), ("mask", png(8, 8))], {}, "mask cannot be used"),
        ([("image", png(8, 8))], {"image_url": "file:///etc/passwd"}, "unknown field image_url"),
        ([("image", png(8, 8))], {"n": "many"}, "n: "),
        ([("image", png(8, 8))], {"prompt": "a <|image_pad|>"}, "<|image_pad|>"),
        ([], {"image": "/etc/passwd"}, "unknown field image"),
    ],
    ids=range(11),
)
def test_an_input_image_that_cannot_be_used(tmp_path: Path, files: list, data: dict, words: str) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, f"{EDIT}server: true\n") as (client, workers, _):
            answer = await client.post("/v1/images/edits", data={"prompt": "dusk"} | data, files=files or {"x": b""})
            assert answer.status_code == 400
            assert words in answer.json()["error"]["message"] or not files
            assert workers.batches == []
        assert [path.name for path in tmp_path.iterdir()] == ["store"]

    run(scenario)


def test_the_page_of_the_api_describes_every_route(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as (client, _, _):
            paths = (await client.get("/openapi.json")).json()["paths"]
        assert {PATH, "/v1/images/edits", "/v1/models", "/v1/plan", "/health", "/ready", "/metrics"} <= set(paths)

    run(scenario)
