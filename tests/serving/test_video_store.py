"""Video jobs without torch: their store on disk, what a restart does with them, a full disk, and an input image."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from waiting import Waiting, application

from runtime.serving.queue import Queue, stop
from runtime.serving.video_store import VideoStore
from runtime.serving.videos import Videos
from runtime.serving.workers import ServerEnds

CONFIG = """\
model: Wan-AI/Wan2.1-T2V-1.3B-Diffusers
sampling: {width: 64, height: 64, num_frames: 5, fps: 8, num_inference_steps: 4}
server: {max_queue: 3, max_prompt_length: 20}
"""
OF_AN_IMAGE = """\
model: Wan-AI/Wan2.2-I2V-A14B-Diffusers
engine: vllm-omni
parallel: {tensor_parallel_size: 2}
sampling: {width: 64, height: 64, num_frames: 5}
server: true
"""
REQUEST = {"prompt": "a", "seed": 1}
PATH = "/v1/videos"


def store(folder: Path, seconds: float = 60, size: int = 1000) -> VideoStore:
    return VideoStore(folder / "store", seconds=seconds, size=size)


def add(kept: VideoStore, *names: str) -> None:
    for name in names:
        kept.add(name, REQUEST, model="m", size="64x64", seconds="1", image=None)


def names(kept: VideoStore, **how: Any) -> list[str]:
    return [job.id for job in kept.page(**{"after": None, "limit": 10, "newest_first": True} | how)]


@asynccontextmanager
async def serving(
    folder: Path, config: str = CONFIG
) -> AsyncIterator[tuple[httpx.AsyncClient, Waiting, Videos, Queue]]:
    """The server, whose jobs of an earlier one go on; in the end its workers are gone, and it lets go of its store."""
    front, workers, queue, videos = application(folder, config)
    assert videos is not None
    await videos.resume()
    work = asyncio.create_task(queue.work())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(front), base_url="http://test") as client:
        yield client, workers, videos, queue
    queue.fail(ServerEnds("the server is shutting down"))
    await videos.stop()
    await stop(work)


def run(scenario: Callable) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 30))


async def until(client: httpx.AsyncClient, key: str, *wanted: str) -> dict[str, Any]:
    while (video := (await client.get(f"{PATH}/{key}")).json())["status"] not in wanted:
        await asyncio.sleep(0.005)
    return video


async def create(client: httpx.AsyncClient, **fields: Any) -> str:
    answer = await client.post(PATH, json=REQUEST | fields)
    assert answer.status_code == 200, answer.text
    return answer.json()["id"]


def test_jobs_survive_their_server_and_come_in_the_order_of_their_creation(tmp_path: Path) -> None:
    kept = store(tmp_path)
    add(kept, "a", "b", "c")
    kept.begin("b")
    kept.complete("a", b"video")
    kept.fail("c", "workers_failed", "the workers failed")
    kept.close()
    kept = store(tmp_path)
    assert names(kept) == ["c", "b", "a"]
    assert names(kept, after="c", limit=1) == ["b"]
    assert names(kept, newest_first=False) == ["a", "b", "c"]
    assert names(kept, newest_first=False, after="b") == ["c"]
    assert [(job.id, job.attempts) for job in kept.unfinished()] == [("b", 1)]
    assert kept.video("a").read_bytes() == b"video"
    failed = kept.get("c")
    assert failed is not None
    assert (failed.status, failed.code, failed.message) == ("failed", "workers_failed", "the workers failed")


def test_one_server_at_a_time_keeps_its_videos_in_a_folder(tmp_path: Path) -> None:
    kept = store(tmp_path)
    with pytest.raises(OSError, match="another server"):
        store(tmp_path)
    kept.close()
    store(tmp_path).close()


def test_the_oldest_videos_make_place_and_jobs_that_wait_do_not(tmp_path: Path) -> None:
    kept = store(tmp_path)
    add(kept, "waiting", "a", "b", "c")
    for name in "abc":
        assert kept.complete(name, bytes(400))
    assert names(kept) == ["c", "b", "waiting"]
    assert sorted(path.name for path in (tmp_path / "store").glob("*.mp4")) == ["b.mp4", "c.mp4"]
    with pytest.raises(OSError, match="does not fit"):
        kept.complete("waiting", bytes(1001))
    kept.close()
    kept = store(tmp_path, seconds=0)
    assert names(kept) == ["waiting"]


def test_files_and_jobs_agree_after_a_server_was_killed(tmp_path: Path) -> None:
    kept = store(tmp_path)
    add(kept, "waiting", "done", "lost")
    for name in ("done", "lost"):
        kept.complete(name, b"video")
    folder = tmp_path / "store"
    kept.video("lost").unlink()
    for name in ("nobody.mp4", "waiting.mp4", "done.partial", "nobody.png", "done.png", "waiting.png"):
        (folder / name).write_bytes(b"x")
    (folder / "notes.txt").write_bytes(b"x")
    kept.close()
    kept = store(tmp_path)
    assert names(kept) == ["done", "waiting"]
    found = {path.name for path in folder.iterdir() if not path.name.startswith("jobs.sqlite3")}
    assert found == {"done.mp4", "waiting.png", "lock", "notes.txt"}


def test_a_job_that_is_removed_meanwhile_leaves_no_video(tmp_path: Path) -> None:
    kept = store(tmp_path)
    add(kept, "a")
    assert kept.remove("a")
    assert not kept.remove("a")
    assert not kept.complete("a", b"video")
    assert not list((tmp_path / "store").glob("a*"))


def test_a_table_that_is_none_is_an_error_of_one_line(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "jobs.sqlite3").write_bytes(b"no table" * 1000)
    with pytest.raises(OSError, match="the table of jobs: file is not a database"):
        store(tmp_path)
    (tmp_path / "store" / "jobs.sqlite3").unlink()
    store(tmp_path).close()
    with sqlite3.connect(tmp_path / "store" / "jobs.sqlite3") as table:
        table.execute("PRAGMA user_version = 2")
    with pytest.raises(OSError, match="videos of version 2"):
        store(tmp_path)


def test_the_next_server_goes_on_and_says_why_where_it_cannot(tmp_path: Path) -> None:
    async def first() -> list[str]:
        async with serving(tmp_path) as (client, workers, _, __):
            made = [await create(client, prompt="begun"), await create(client, prompt="as long as it may")]
            await until(client, made[0], "in_progress")
            assert [len(workers.batches), (await client.get(f"{PATH}/{made[1]}")).json()["status"]] == [1, "queued"]
        return made

    async def scenario() -> None:
        begun, waiting = await first()
        shorter = CONFIG.replace("max_prompt_length: 20", "max_prompt_length: 10")
        async with serving(tmp_path, shorter) as (client, workers, _, __):
            workers.may_finish.set()
            assert (await until(client, begun, "completed", "failed"))["status"] == "completed"
            assert [batch.samplings[0].prompt for batch in workers.batches] == ["begun"]
            refused = await until(client, waiting, "failed")
            assert refused["error"] == {"code": "invalid_request", "message": "at most 10 characters a prompt"}
            answer = await client.get(f"{PATH}/{waiting}/content")
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "video_failed")

    run(scenario)


def test_a_job_that_ends_every_server_is_given_up(tmp_path: Path) -> None:
    async def scenario() -> None:
        made = ""
        for _ in range(3):
            async with serving(tmp_path) as (client, _, __, ___):
                made = made or await create(client)
                await until(client, made, "in_progress")
        async with serving(tmp_path) as (client, workers, _, __):
            failed = await until(client, made, "failed")
            assert failed["error"] == {"code": "server_ended", "message": "3 servers ended while they made it"}
            assert workers.batches == []

    run(scenario)


def test_jobs_of_another_model_fail(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as (client, _, __, ___):
            made = await create(client)
        other = CONFIG.replace("2.1-T2V-1.3B", "2.2-TI2V-5B")
        async with serving(tmp_path, other) as (client, _, __, ___):
            failed = await until(client, made, "failed")
            assert "Wan2.2-TI2V-5B-Diffusers is served now" in failed["error"]["message"]

    run(scenario)


def test_a_full_queue_keeps_no_job(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as (client, _, __, ___):
            await until(client, await create(client), "in_progress")
            answers = await asyncio.gather(*(client.post(PATH, json=REQUEST) for _ in range(8)))
            assert sorted(answer.status_code for answer in answers) == [200] * 3 + [429] * 5
            assert len((await client.get(PATH)).json()["data"]) == 4

    run(scenario)


def test_a_full_disk_is_told_and_the_next_video_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if path.suffix != ".partial":
            return whole(path, data)
        whole(path, data[:1])
        raise OSError(28, os.strerror(28))

    async def scenario() -> None:
        async with serving(tmp_path) as (client, workers, _, __):
            workers.may_finish.set()
            with monkeypatch.context() as patched:
                patched.setattr(Path, "write_bytes", full)
                failed = await until(client, await create(client), "completed", "failed")
            message = "the video cannot be stored: no space left on device"
            assert failed["error"] == {"code": "store_failed", "message": message}
            done = await until(client, await create(client), "completed", "failed")
            assert (await client.get(f"{PATH}/{done['id']}/content")).content == b"an image"
            assert [path.stem for path in (tmp_path / "store" / "videos").glob("video_*")] == [done["id"]]

    run(scenario)


def test_a_table_that_cannot_be_written_is_a_503_and_is_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(0, "the table of jobs: database or disk is full")

    async def scenario() -> None:
        async with serving(tmp_path) as (client, workers, videos, _):
            made = await create(client)
            with monkeypatch.context() as patched:
                for method in ("add", "complete", "fail"):
                    patched.setattr(VideoStore, method, full)
                answer = await client.post(PATH, json=REQUEST)
                assert (answer.status_code, answer.json()["error"]["code"]) == (503, "store_failed")
                workers.may_finish.set()
                failed = await until(client, made, "completed", "failed")
                assert failed["error"]["code"] == "store_failed"
            await videos.sweep()
        async with serving(tmp_path) as (client, workers, _, __):
            assert (await client.get(f"{PATH}/{made}")).json()["error"] == failed["error"]
            assert workers.batches == []

    run(scenario)


def test_a_video_of_an_image_keeps_its_image_until_it_is_made(tmp_path: Path) -> None:
    data = BytesIO()
    Image.new("RGB", (8, 8), "red").save(data, "JPEG")

    async def scenario() -> None:
        async with serving(tmp_path, OF_AN_IMAGE) as (client, _, __, ___):
            without = await client.post(PATH, json=REQUEST)
            assert (without.status_code, without.json()["error"]["param"]) == (400, "input_reference")
            broken = await client.post(PATH, data=REQUEST, files={"input_reference": b"no image"})
            assert (broken.status_code, broken.json()["error"]["param"]) == (400, "input_reference")
            files = {"input_reference": data.getvalue()}
            made = (await client.post(PATH, data=REQUEST, files=files)).json()["id"]
            image = tmp_path / "store" / "videos" / f"{made}.png"
            assert image.is_file()
        async with serving(tmp_path, OF_AN_IMAGE) as (client, workers, _, __):
            await until(client, made, "in_progress")
            assert workers.batches[0].samplings[0].image == str(image)
            workers.may_finish.set()
            await until(client, made, "completed")
            assert not image.exists()

    run(scenario)


def test_a_form_and_json_name_adapters_alike(tmp_path: Path) -> None:
    (tmp_path / "adapters").mkdir()
    (tmp_path / "adapters" / "style.safetensors").write_bytes(b"")
    lora = {"name": "style", "scale": 0.5}

    async def scenario() -> None:
        async with serving(tmp_path) as (client, _, __, ___):
            refused = await client.post(PATH, json=REQUEST | {"lora": lora})
            assert (refused.status_code, refused.json()["error"]["code"]) == (400, "lora_not_allowed")
        allowed = CONFIG.replace("max_queue: 3", f"lora_folder: {tmp_path / 'adapters'}")
        async with serving(tmp_path, allowed) as (client, workers, _, __):
            workers.may_finish.set()
            forms = [{"data": REQUEST | {"lora": json.dumps(told)}} for told in (lora, [lora])]
            for told in ({"json": REQUEST | {"lora": [lora]}}, *forms):
                await until(client, (await client.post(PATH, **told)).json()["id"], "completed")
                (adapter,) = workers.batches[-1].adapters
                assert (Path(adapter.path).name, adapter.scale) == ("style.safetensors", 0.5)
            for wrong, words in (("{", "no JSON"), ('{"scale": 1}', "name"), ("[[]]", "lora")):
                refused = await client.post(PATH, data=REQUEST | {"lora": wrong})
                assert refused.status_code == 400
                assert words in refused.json()["error"]["message"]

    run(scenario)


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ({"image_url": "https://example.org/a.png"}, "only a data URL"),
        ({"image_url": "data:image/png;base64,?"}, "no base64"),
        ({"file_id": "file-1"}, "expected an object with image_url"),
        ("a.png", "expected an object with image_url"),
    ],
)
def test_an_image_is_taken_from_the_request_only(tmp_path: Path, reference: Any, words: str) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, OF_AN_IMAGE) as (client, _, __, ___):
            answer = await client.post(PATH, json=REQUEST | {"input_reference": reference})
            assert answer.status_code == 400
            assert words in answer.json()["error"]["message"]

    run(scenario)
