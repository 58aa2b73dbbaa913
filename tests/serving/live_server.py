"""``omni serve`` in a process of its own."""

from __future__ import annotations

import base64
import contextlib
import os
import signal
import subprocess
import sys
import time
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
import openai
import psutil
from PIL import Image

START = 240  # seconds


class Server:
    """``omni serve`` in a process, on a free port, with its temporary files in a folder of ours."""

    def __init__(self, folder: Path, *arguments: str, program: tuple[str, ...] = ("-m", "omni_config")) -> None:
        self.folder = folder
        self.log = folder / "log"
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        command = [sys.executable, *program, "serve", *arguments, "--port", "0", "--output", str(folder)]
        environment = os.environ | {"TMPDIR": str(self.temporary), "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, stderr=log, stdout=log, env=environment, cwd=folder)
        self.url = self._address()

    def _address(self) -> str:
        end = time.monotonic() + START
        while " at http" not in (text := self.log.read_text()):
            assert self.process.poll() is None, text
            assert time.monotonic() < end, text
            time.sleep(0.05)
        return "http" + text.split(" at http")[1].split(" ")[0]

    def __enter__(self) -> Server:
        try:
            return self.wait_until_ready()
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        self.process.kill()  # the ranks end by themselves then
        self.process.wait()

    def wait_until_ready(self) -> Server:
        end = time.monotonic() + START
        while self.process.poll() is not None or self.get("/ready").status_code != 200:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.1)
        return self

    def get(self, path: str, **headers: str) -> httpx.Response:
        return httpx.get(self.url + path, headers=headers, timeout=60)

    def client(self, key: str = "none") -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=120)

    def metric(self, name: str, **headers: str) -> float:
        """A counter or gauge, labels included in the name."""
        lines = dict(
            line.rsplit(" ", 1) for line in self.get("/metrics", **headers).text.splitlines() if line[0] != "#"
        )
        return float(lines.get(name, 0))

    def wait_for(self, metric: str, value: float, **headers: str) -> None:
        end = time.monotonic() + START
        while self.metric(metric, **headers) < value:
            assert time.monotonic() < end, metric
            time.sleep(0.02)

    def asked(self) -> float:
        """How many requests have come; one that moves from the first figure to the second meanwhile is not counted."""
        return self.metric("omni_queue_wait_seconds_count") + self.metric("omni_queue_depth")

    def wait_until_asked(self, requests: float) -> None:
        end = time.monotonic() + START
        while self.asked() < requests:
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.02)

    def ranks(self) -> list[psutil.Process]:
        """The processes of the ranks that are alive."""
        found = []
        for process in psutil.process_iter(["cmdline", "status"]):
            line = process.info["cmdline"] or []
            if process.info["status"] == psutil.STATUS_ZOMBIE or "-m" in line:  # torchrun itself
                continue
            if "--folder" in line and str(self.temporary) in " ".join(line):
                found.append(process)
        return sorted(found, key=lambda process: int(process.environ()["RANK"]))

    def ask_to_end(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def wait_until_it_takes_no_more(self) -> None:
        with contextlib.suppress(httpx.TransportError):
            while True:
                self.get("/health")

    def end(self) -> int:
        return self.process.wait(timeout=60)

    def left(self) -> list[str]:
        """What is left of it: processes, files."""
        alive = [f"process {process.pid}" for process in self.ranks()]
        return alive + [path.name for path in self.temporary.rglob("*") if path.suffix in (".png", ".json")]


def image(data: openai.types.Image | str | None) -> np.ndarray:
    """An image of an answer, (height, width, 3)."""
    text = data if isinstance(data, str) else data.b64_json
    return np.asarray(Image.open(BytesIO(base64.b64decode(text)))).astype(int)
