"""OpenAI's videos API before a real server of a small Wan with random weights; its front is killed, too."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import openai
import pytest
from live_server import Server

from runtime.proof.random_pipelines import build

pytestmark = pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning")
CONFIG = """\
version: 1
model: {model}
parallel: {{data_parallel_size: 2}}
sampling: {{width: 64, height: 64, num_frames: 5, fps: 8, num_inference_steps: 4}}
server: {{store: kept, max_batch_size: 2, max_restarts: 1000, max_pixels: 65536}}
"""
LONG = {"num_inference_steps": 150}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    (folder / "config.yaml").write_text(CONFIG.format(model=build("WanPipeline", folder / "wan")))
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    with Server(folder, "config.yaml") as result:
        yield result


@pytest.fixture
def client(server: Server) -> openai.OpenAI:
    return server.client()


def frames(client: openai.OpenAI, video: Any) -> np.ndarray:
    """(frames, height, width, 3)."""
    return imageio.imread(client.videos.download_content(video.id).content, extension=".mp4").astype(int)


def make(client: openai.OpenAI, seed: int = 5, **extra: Any) -> Any:
    return client.videos.create_and_poll(prompt="a red star", poll_interval_ms=50, extra_body={"seed": seed} | extra)


def until(client: openai.OpenAI, video: Any, condition: Callable[[Any], bool]) -> Any:
    end = time.monotonic() + 120
    while not condition(video := client.videos.retrieve(video.id)):
        assert time.monotonic() < end, video
        time.sleep(0.05)
    return video


def test_a_video_by_openais_client(server: Server, client: openai.OpenAI) -> None:
    video = make(client)
    assert (video.status, video.progress, video.object) == ("completed", 100, "video"), video
    assert (video.size, video.seconds, video.prompt, video.error) == ("64x64", "0.625", "a red star", None)
    assert video.expires_at - video.completed_at == 86_400
    data = client.videos.download_content(video.id).content
    assert imageio.immeta(data, extension=".mp4")["fps"] == 8
    first = frames(client, video)
    assert first.shape == (5, 64, 64, 3)
    assert abs(first - frames(client, make(client))).max() == 0
    assert abs(first - frames(client, make(client, seed=6))).max() > 0
    part = server.get(f"/v1/videos/{video.id}/content", Range="bytes=4-7")
    assert (part.status_code, part.content) == (206, b"ftyp")


def test_two_videos_that_are_made_in_one_call_are_those_of_their_seeds(server: Server, client: openai.OpenAI) -> None:
    alone = [frames(client, make(client, seed)) for seed in (11, 12)]
    busy = [client.videos.create(prompt="long", extra_body=LONG | {"width": 32, "height": 32}) for _ in range(2)]
    for video in busy:
        until(client, video, lambda video: video.status != "queued")
    both = [client.videos.create(prompt="a red star", extra_body={"seed": seed}) for seed in (11, 12)]
    before = server.metric('omni_batch_size_bucket{le="1.0"}')
    client.videos.delete(busy[0].id)
    for seed, video in zip((0, 1), both, strict=True):
        done = until(client, video, lambda video: video.status == "completed")
        assert abs(frames(client, done) - alone[seed]).max() <= 2  # the codec sees another rounding
    assert server.metric('omni_batch_size_bucket{le="1.0"}') == before
    client.videos.delete(busy[1].id)


def test_jobs_are_listed_by_pages_and_deleted(client: openai.OpenAI) -> None:
    made = [make(client, seed).id for seed in (1, 2, 3)]
    page = client.videos.list(limit=2)
    assert [video.id for video in page.data] == made[:0:-1]
    assert page.has_more
    assert made[0] in [video.id for video in client.videos.list(after=made[1], limit=1).data]
    oldest = client.videos.list(limit=1, order="asc").data[0]
    assert oldest.created_at <= client.videos.retrieve(made[0]).created_at
    assert [video.id for video in client.videos.list(limit=2)][:3] == made[::-1]  # over pages
    assert client.videos.delete(made[0]).deleted
    for call in (client.videos.retrieve, client.videos.delete, client.videos.download_content):
        with pytest.raises(openai.NotFoundError) as caught:
            call(made[0])
        assert caught.value.code == "video_not_found"


def test_a_job_shows_how_far_it_is_and_is_cancelled_by_its_deletion(server: Server, client: openai.OpenAI) -> None:
    video = client.videos.create(prompt="long", extra_body=LONG)
    assert video.status in ("queued", "in_progress")
    with pytest.raises(openai.BadRequestError) as caught:
        client.videos.download_content(video.id)
    assert caught.value.code == "video_not_ready"
    until(client, video, lambda video: 0 < video.progress < 100 and video.status == "in_progress")
    begun = time.monotonic()
    client.videos.delete(video.id)
    make(client)
    make(client)  # on both replicas
    assert time.monotonic() - begun < 30
    assert server.metric('omni_videos_total{outcome="cancelled"}') >= 1
    assert not list((server.folder / "kept" / "videos").glob(f"{video.id}*"))


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"size": "64x63"}, "OMNI"),
        ({"size": "1024x1024"}, "65536 pixels"),
        ({"num_inference_steps": 201}, "200 steps"),
        ({"num_frames": 261}, "257 frames"),
        ({"seconds": "900"}, "257 frames"),
        ({"seconds": "1", "num_frames": 5}, "seconds, or num_frames"),
        ({"n": 2}, "unknown field n"),
        ({"model": "sora-2"}, "is not served here"),
    ],
)
def test_a_job_that_cannot_be_made_is_refused_before_it_is_queued(
    client: openai.OpenAI, asked: dict[str, Any], words: str
) -> None:
    before = [video.id for video in client.videos.list(limit=1).data]
    with pytest.raises((openai.BadRequestError, openai.NotFoundError)) as caught:
        client.videos.create(prompt="a star", extra_body=asked)
    assert words in str(caught.value) or words in str(caught.value.code)
    assert [video.id for video in client.videos.list(limit=1).data] == before


def test_what_a_rule_only_warns_of_is_told_with_the_job(client: openai.OpenAI) -> None:
    video = client.videos.create(prompt="a star", extra_body={"num_frames": 6})
    assert [warning["code"] for warning in video.to_dict()["warnings"]] == ["OMNI520"]  # type: ignore[attr-defined]


def test_a_length_in_seconds_is_as_many_frames_as_the_model_makes(client: openai.OpenAI) -> None:
    video = client.videos.create_and_poll(prompt="a star", seconds="1", size="32x32", poll_interval_ms=50)  # type: ignore[arg-type]
    assert (video.seconds, len(frames(client, video))) == ("1", 9)


def test_a_model_of_text_takes_no_image(client: openai.OpenAI) -> None:
    reference = ("a.png", b"\x89PNG", "image/png")
    with pytest.raises(openai.BadRequestError, match="takes no image"):
        client.videos.create(prompt="a star", input_reference=reference)
    url = {"image_url": "data:image/png;base64,AAAA"}
    with pytest.raises(openai.BadRequestError, match="takes no image"):
        client.videos.create(prompt="a star", extra_body={"input_reference": url})
    with pytest.raises(openai.BadRequestError, match="makes videos; next: POST /v1/videos"):
        client.images.generate(prompt="a star")


def test_the_page_makes_a_video_and_shows_queue_and_replicas(browser: Any, server: Server) -> None:
    page = browser.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(server.url)
    page.wait_for_selector("#replicas:text-is('replica 0: ready, replica 1: ready; 0 requests waiting')")
    page.fill("#prompt", "a red star")
    page.fill("#seed", "3")
    page.click("#make")
    page.wait_for_selector("#status:text-is('done')", timeout=60_000)
    assert page.text_content("#caption") == "a red star, 64x64, seed 3"
    page.wait_for_function("document.getElementById('video').videoWidth === 64")
    row = "#videos tr:has-text('a red star (64x64, 0.625 s)')"
    page.wait_for_selector(f"{row}:has-text('completed')")
    page.fill("#num_inference_steps", "150")
    page.click("#make")
    page.wait_for_selector("#status:text('% done')", timeout=60_000)
    page.click("#stop")
    page.wait_for_selector("#status:text-is('stopped')")
    assert server.metric('omni_requests_total{outcome="error"}') == 0
    assert problems == []
    page.close()


def test_a_video_whose_worker_dies_is_made_by_another(server: Server, client: openai.OpenAI) -> None:
    expected = frames(client, make(client, 21, num_inference_steps=60))
    before = server.metric("omni_retries_total")
    video = client.videos.create(prompt="a red star", extra_body={"seed": 21, "num_inference_steps": 60})
    until(client, video, lambda video: video.progress > 10)
    for rank in server.ranks():
        rank.kill()
    done = until(client, video, lambda video: video.status in ("completed", "failed"))
    assert server.metric("omni_retries_total") >= before + 1  # the other replica may be dead before it takes it
    assert abs(frames(client, done) - expected).max() == 0


def test_a_front_that_is_killed_goes_on_with_its_jobs_and_files_and_store_agree(server: Server, folder: Path) -> None:
    client = server.client()
    done = make(client, 31)
    expected = frames(client, make(client, 32))
    going = client.videos.create(prompt="a red star", extra_body=LONG | {"seed": 33})
    until(client, going, lambda video: video.status == "in_progress")
    waiting = [client.videos.create(prompt="a red star", extra_body={"seed": 32}) for _ in range(3)]
    server.process.kill()
    server.process.wait()
    kept = folder / "kept" / "videos"
    (kept / "video_of_nobody.mp4").write_bytes(b"half")
    (kept / f"{going.id}.partial").write_bytes(b"half")
    again = folder / "again"
    again.mkdir()
    config = (folder / "config.yaml").read_text().replace("store: kept", f"store: {folder / 'kept'}")
    (again / "config.yaml").write_text(config)
    with Server(again, "config.yaml") as next_server:
        client = next_server.client()
        assert client.videos.retrieve(done.id).status == "completed"
        for video in waiting:
            ended = until(client, video, lambda video: video.status in ("completed", "failed"))
            assert abs(frames(client, ended) - expected).max() <= 2
        assert until(client, going, lambda video: video.status in ("completed", "failed")).status == "completed"
        shown = {video.id for video in client.videos.list(limit=100) if video.status == "completed"}
        assert {path.stem for path in kept.glob("*.mp4")} == shown
        assert not list(kept.glob("*.partial"))
