"""The folder of images behind URLs: its bounds, and what a full disk leaves."""

from __future__ import annotations

import os
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from runtime.serving.errors import RequestError
from runtime.serving.store import Link, Store


def read(store: Store, link: Link) -> bytes:
    """What the link's URL leads to."""
    url = urlsplit(link.path)
    query = parse_qs(url.query)
    return store.read(url.path.rpartition("/")[2], query["expires"][0], query["signature"][0])


def images(folder: Path) -> list[Path]:
    return list(folder.glob("*.png*"))


def test_the_oldest_images_make_place_and_no_other_file_does(tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_bytes(bytes(5000))
    store = Store(tmp_path, seconds=60, size=1000)
    links = []
    for age in (30, 20, 10):
        links += store.keep([bytes([age]) * 300])
        os.utime(tmp_path / links[-1].name, (time.time() - age,) * 2)
    links += store.keep([b"a" * 300, b"b" * 300])
    for link in links[:2]:
        with pytest.raises(RequestError) as caught:
            read(store, link)
        assert (caught.value.status, caught.value.code) == (404, "not_kept")
    assert [read(store, link)[:1] for link in links[2:]] == [b"\n", b"a", b"b"]
    assert (tmp_path / "notes.png").exists()
    assert sum(path.stat().st_size for path in images(tmp_path)) == 900 + 5000


def test_an_answer_that_never_fits_takes_no_place(tmp_path: Path) -> None:
    store = Store(tmp_path, seconds=60, size=1000)
    (link,) = store.keep([bytes(900)])
    with pytest.raises(RequestError) as caught:
        store.keep([bytes(600), bytes(600)])
    assert (caught.value.status, caught.value.code) == (503, "store_full")
    assert read(store, link) == bytes(900)


def test_an_url_expires_and_its_file_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path, seconds=60, size=1000)
    (link,) = store.keep([b"an image"])
    (tmp_path / f"{'0' * 32}.png.partial").write_bytes(b"of a server that was killed")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 61)
    with pytest.raises(RequestError) as caught:
        read(store, link)
    assert (caught.value.status, caught.value.code) == (410, "expired")
    store.sweep()
    assert images(tmp_path) == []


def test_urls_outlive_their_server_and_only_its_owner_reads_the_key(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "store"
    (link,) = Store(folder, seconds=60, size=1000).keep([b"an image"])
    assert read(Store(folder, seconds=60, size=1000), link) == b"an image"
    assert (folder / "key").stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    with pytest.raises(RequestError, match="not one of this server"):
        read(Store(tmp_path / "other", seconds=60, size=1000), link)


def test_a_disk_that_fails_leaves_no_part_of_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path, seconds=60, size=1000)
    write = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        write(path, data[:2])
        if data == b"second":
            raise OSError(28, "No space left on device")
        return len(data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(RequestError, match="no space left") as caught:
        store.keep([b"first", b"second"])
    assert caught.value.status == 503
    assert images(tmp_path) == []
