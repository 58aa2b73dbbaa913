"""A disk of a few hundred kilobytes that is full: what cannot be kept is told, and what comes later is made."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from live_server import Server

from runtime.proof.random_pipelines import build

pytestmark = pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning")
CONFIG = """\
version: 1
model: {model}
sampling: {{width: 64, height: 64, num_frames: 5, fps: 8, num_inference_steps: 2}}
server: {{store: disk/kept, max_restarts: 0}}
"""


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    disk = tmp_path_factory.mktemp("small") / "disk"
    disk.mkdir()
    try:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "none", disk], capture_output=True)
    except OSError:
        pytest.skip("no program mount here")
    if mounted.returncode:
        pytest.skip("no file system may be mounted here; next: run it as root")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.fixture(scope="module")
def server(disk: Path) -> Iterator[Server]:
    folder = disk.parent
    (folder / "config.yaml").write_text(CONFIG.format(model=build("WanPipeline", folder / "wan")))
    with Server(folder, "config.yaml") as result:
        yield result


def fill(disk: Path, left: int = 0) -> Path:
    """Take all room but some bytes."""
    path = disk / "fill"
    with path.open("wb") as file:
        try:
            while True:
                file.write(bytes(4096))
                file.flush()
        except OSError:
            pass
    with path.open("r+b") as file:
        file.truncate(max(0, path.stat().st_size - left))
    return path


def ended(client: openai.OpenAI, video: Any) -> Any:
    end = time.monotonic() + 240
    while (video := client.videos.retrieve(video.id)).status in ("queued", "in_progress"):
        assert time.monotonic() < end
        time.sleep(0.1)
    return video


def test_a_full_disk_ends_no_server_and_its_jobs_say_so(server: Server, disk: Path) -> None:
    client = server.client()
    long = {"num_inference_steps": 100}
    video = client.videos.create(prompt="a star", extra_body=long)
    filling = fill(disk)
    with pytest.raises(openai.InternalServerError) as caught:
        client.videos.create(prompt="another")
    assert (caught.value.status_code, caught.value.code) == (503, "store_failed")
    failed = ended(client, video)
    assert (failed.status, failed.error.code) == ("failed", "store_failed")
    filling.unlink()
    assert client.videos.create_and_poll(prompt="a star", poll_interval_ms=50).status == "completed"
    kept = disk / "kept" / "videos"
    shown = {one.id for one in client.videos.list() if one.status == "completed"}
    assert {path.stem for path in kept.glob("*.mp4")} == shown
    assert not list(kept.glob("*.partial"))
    assert server.metric('omni_worker_restarts_total{replica="0"}') == 0
