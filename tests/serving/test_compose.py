"""What an emitted compose file starts, started as Docker would: its words, variables, files, check and signal."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest
import yaml
from live_server import START

SECRET = "a-key"


@pytest.fixture
def emitted(tmp_path: Path) -> dict[str, Any]:
    """The file, as Compose reads it: ``$$`` is ``$``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    line = [sys.executable, "-m", "omni_config", "serve", "tiny", "--port", str(port), "--emit", "compose"]
    text = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    assert not re.search(r"(?<!\$)\$(?!\$)", text)  # no variable of the one who starts it
    return yaml.safe_load(text.replace("$$", "$"))


class Container:
    """The service's process in place of a container, whose paths lie in a folder."""

    def __init__(self, document: dict[str, Any], folder: Path) -> None:
        (self.service,) = document["services"].values()
        self.folder = folder
        programs = folder / "bin"
        programs.mkdir()
        for name, words in {"omni": "-m omni_config", "python3": ""}.items():
            (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} {words} "$@"\n')
            (programs / name).chmod(0o755)
        contents = {one["source"]: document["configs"][one["source"]]["content"] for one in self.service["configs"]}
        contents |= {one["source"]: SECRET for one in self.service["secrets"]}
        self.paths = [one["target"] for one in self.service["configs"] + self.service["secrets"]]
        self.paths += [volume.partition(":")[2] for volume in self.service["volumes"]]
        for one in self.service["configs"] + self.service["secrets"]:
            path = Path(self.mapped(one["target"]))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self.mapped(contents[one["source"]]))
        base = {"PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
        said = {name: self.mapped(value) for name, value in self.service["environment"].items()}
        self.environment = base | {"OMP_NUM_THREADS": "1", "TMPDIR": str(folder)} | said
        self.log = folder / "log"
        self.start()

    def start(self) -> None:
        with self.log.open("a") as log:
            words = [self.mapped(word) for word in self.service["entrypoint"]]
            self.process = subprocess.Popen(words, stdout=log, stderr=log, env=self.environment, cwd=self.folder)

    def mapped(self, text: str) -> str:
        for path in self.paths:
            text = text.replace(path, str(self.folder) + path)
        return text

    def is_healthy(self) -> bool:
        kind, *words = self.service["healthcheck"]["test"]
        assert kind == "CMD"
        return subprocess.run(words, env=self.environment, capture_output=True, timeout=30).returncode == 0

    def wait_until_healthy(self) -> None:
        end = time.monotonic() + START
        while not self.is_healthy():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.5)

    def stop(self) -> int:
        """As ``docker compose stop``: the exit code, after the grace at most."""
        self.process.send_signal(getattr(signal, self.service.get("stop_signal", "SIGTERM")))
        return self.process.wait(timeout=int(self.service["stop_grace_period"].removesuffix("s")))


@pytest.mark.slow
def test_what_a_compose_file_starts_makes_an_image_stops_and_has_it_when_started_again(
    emitted: dict[str, Any], tmp_path: Path
) -> None:
    container = Container(emitted, tmp_path)
    try:
        container.wait_until_healthy()
        address = container.service["ports"][0].rpartition(":")[0]
        started = psutil.Process(container.process.pid).children(recursive=True)
        client = openai.OpenAI(base_url=f"http://{address}/v1", api_key=SECRET, max_retries=0)
        with pytest.raises(openai.AuthenticationError):
            client.with_options(api_key="another").images.generate(prompt="a star")
        asked = {"seed": 1, "num_inference_steps": 2, "response_format": "url"}
        made = client.images.generate(prompt="a star", extra_body=asked)
        assert made.data
        assert made.data[0].url
        assert container.stop() == 0, container.log.read_text()
        assert started
        assert not psutil.wait_procs(started, timeout=10)[1]
        assert not container.is_healthy()
        container.start()
        container.wait_until_healthy()
        kept = httpx.get(made.data[0].url)
        assert (kept.status_code, kept.headers["content-type"]) == (200, "image/png")
        assert container.stop() == 0, container.log.read_text()
    finally:
        container.process.kill()  # the ranks end by themselves then
        container.process.wait()
