"""Clients that are slow, leave in the midst of a body, or only hold connections: the others are served as before."""

from __future__ import annotations

import json
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from live_server import Server
from waiting import running

PATH = "/v1/images/generations"
IDLE = 1000
KINDS = ("application/json", "multipart/form-data; boundary=b")


@pytest.fixture
def calm(server: Server) -> Iterator[Server]:
    """The server, which must see no failure of its own in any of this."""
    before = server.metric('omni_requests_total{outcome="error"}')
    begun = len(server.log.read_text())
    yield server
    time.sleep(0.2)  # until the server has seen who has left
    assert server.metric('omni_requests_total{outcome="error"}') == before
    log = server.log.read_text()[begun:]
    assert "Traceback" not in log
    assert '"level": "error"' not in log


def connected(url: str) -> socket.socket:
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), timeout=60)  # type: ignore[arg-type]


def request(path: str, body: bytes, length: int | None = None, kind: str = "application/json") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: here\r\nContent-Type: {kind}\r\n"
    return f"{head}Content-Length: {len(body) if length is None else length}\r\n\r\n".encode() + body


def is_served(server: Server) -> None:
    begun = time.monotonic()
    asked = {"seed": 3, "num_inference_steps": 2}
    assert server.client().images.generate(prompt="the next one", extra_body=asked).data
    assert time.monotonic() - begun < 60


def test_a_thousand_idle_connections_leave_room_for_others(calm: Server) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4 * IDLE)), hard))
    with ExitStack() as held:
        for number in range(IDLE):
            one = held.enter_context(closing(connected(calm.url)))
            if number % 2:
                one.sendall(b"GET /health HTTP/1.1\r\nHost: he")  # half a head
        assert calm.get("/ready").status_code == 200
        is_served(calm)
    is_served(calm)


def half(path: str, kind: str) -> bytes:
    """A request of which the end is missing."""
    body = json.dumps({"prompt": "a star"}).encode()
    if kind.startswith("multipart"):
        body = b'--b\r\nContent-Disposition: form-data; name="prompt"\r\n\r\na st'
    return request(path, body, length=len(body) + 100, kind=kind)


def test_half_a_body_is_nobodys_problem_but_its_clients(calm: Server) -> None:
    with closing(connected(calm.url)) as waiting, closing(connected(calm.url)) as leaving:
        for one in (waiting, leaving):
            one.sendall(half(PATH, KINDS[0]))
        time.sleep(0.2)
        leaving.close()
        is_served(calm)
    is_served(calm)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("model", "path"),
    [("Qwen/Qwen-Image-Edit", "/v1/images/edits"), ("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "/v1/videos")],
)
def test_half_a_body_is_no_error_of_any_route(
    model: str, path: str, kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with running(tmp_path, f"model: {model}\nserver: true\n") as url:
        with closing(connected(url)) as leaving:
            leaving.sendall(half(path, kind))
            time.sleep(0.2)
        time.sleep(0.2)
        metrics = httpx.get(f"{url}/metrics").text
    assert 'omni_requests_total{outcome="error"}' not in metrics
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def test_clients_that_do_not_read_hold_up_nobody(calm: Server) -> None:
    body = json.dumps({"prompt": "a star", "stream": True, "partial_images": 3, "num_inference_steps": 8}).encode()
    with ExitStack() as held:
        for _ in range(6):
            one = held.enter_context(closing(connected(calm.url)))
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            one.sendall(request(PATH, body))
        is_served(calm)
    is_served(calm)


def test_a_client_that_sends_byte_by_byte_is_answered(calm: Server) -> None:
    body = json.dumps({"prompt": "a star", "num_inference_steps": 2}).encode()
    whole = request(PATH, body).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)
    with closing(connected(calm.url)) as slow:
        for place in range(len(whole)):
            slow.sendall(whole[place : place + 1])
            time.sleep(0.001)
        got = b""
        while part := slow.recv(65536):
            got += part
    assert got.startswith(b"HTTP/1.1 200 OK")
    assert json.loads(got.partition(b"\r\n\r\n")[2])["data"][0]["b64_json"]
