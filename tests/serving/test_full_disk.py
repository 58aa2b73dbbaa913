"""A small file system that is full: what cannot be kept is told, and what comes later is made."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_video_store import PATH, REQUEST, create, run, serving, until


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Half a megabyte."""
    try:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "none", tmp_path], capture_output=True)
    except OSError:
        pytest.skip("no program mount here")
    if mounted.returncode:
        pytest.skip("no file system may be mounted here; next: run it as root")
    yield tmp_path
    subprocess.run(["umount", "--lazy", tmp_path], check=True)


def fill(disk: Path) -> Path:
    """Take all room there is."""
    path = disk / "fill"
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return path


def test_a_full_disk_ends_nothing_and_jobs_say_so_also_to_the_next_server(disk: Path) -> None:
    async def scenario() -> None:
        async with serving(disk) as (client, workers, videos, _):
            made = await create(client)
            await until(client, made, "in_progress")
            filling = fill(disk)
            refused = await client.post(PATH, json=REQUEST)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "store_failed")
            workers.may_finish.set()
            failed = await until(client, made, "completed", "failed")
            message = "the video cannot be stored: no space left on device"
            assert failed["error"] == {"code": "store_failed", "message": message}
            filling.unlink()
            await videos.sweep()
            done = await create(client)
            assert (await until(client, done, "completed", "failed"))["status"] == "completed"
        assert [path.stem for path in (disk / "store" / "videos").glob("video_*")] == [done]
        async with serving(disk) as (client, _, __, ___):
            shown = {video["id"]: video for video in (await client.get(PATH)).json()["data"]}
            assert {key: video["status"] for key, video in shown.items()} == {done: "completed", made: "failed"}
            assert shown[made]["error"] == failed["error"]

    run(scenario)
