"""A server of an editing model with random weights, with a key; then it loses a rank, and may not start it again."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import openai
import pytest
from live_server import Server, image
from PIL import Image

sys.path.append(str(Path(__file__).parents[1] / "runtime"))
import models

CONFIG = """\
version: 1
model: {model}
parallel: {{cfg_parallel_size: 2}}
execution: {{dtype: float32}}
sampling: {{width: 64, height: 64, num_inference_steps: 2, negative_prompt: blurry}}
server: {{api_key_file: key, max_restarts: 0, max_pixels: 65536}}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("edit")
    (folder / "config.yaml").write_text(CONFIG.format(model=models.build("qwen_image_edit", folder)))
    (folder / "key").write_text("right\n")
    program = str(Path(__file__).with_name("small_edits.py"))
    with Server(folder, "config.yaml", program=(program,)) as result:
        yield result


def png(color: str) -> BytesIO:
    data = BytesIO()
    Image.new("RGB", (48, 64), color).save(data, "PNG")
    data.name = "../../input.png"
    return data


def edit(server: Server, color: str = "red", **extra: object) -> np.ndarray:
    client = server.client("right")
    answer = client.images.edit(image=png(color), prompt="at dusk", size="64x64", extra_body={"seed": 5} | extra)
    return image(answer.data[0])


def test_an_edit_depends_on_its_image(server: Server) -> None:
    first = edit(server)
    assert first.shape == (64, 64, 3)
    assert abs(first - edit(server)).max() == 0
    assert abs(first - edit(server, "blue")).max() > 0
    several = server.client("right").images.edit(
        image=[png("red")], prompt="at dusk", size="64x64", extra_body={"seed": 5}
    )
    assert abs(first - image(several.data[0])).max() == 0
    assert not list(server.temporary.glob("omni-serve-*/[0-9]*"))


def test_a_stream_of_an_edit(server: Server) -> None:
    client = server.client("right")
    asked = {"seed": 5, "num_inference_steps": 4}
    events = list(
        client.images.edit(image=png("red"), prompt="at dusk", stream=True, partial_images=1, extra_body=asked)
    )
    assert [event.type for event in events] == ["image_edit.partial_image", "image_edit.completed"]
    assert image(events[0].b64_json).shape == (64, 64, 3)


def test_what_an_editing_server_refuses(server: Server) -> None:
    with pytest.raises(openai.AuthenticationError) as caught:
        server.client("wrong").images.edit(image=png("red"), prompt="at dusk")
    assert caught.value.code == "invalid_api_key"
    client = server.client("right")
    with pytest.raises(openai.BadRequestError, match="/v1/images/edits"):
        client.images.generate(prompt="at dusk")
    with pytest.raises(openai.BadRequestError, match="own"):
        client.images.edit(image=png("red"), prompt="a <|image_pad|>")
    with pytest.raises(openai.BadRequestError, match="mask"):
        client.images.edit(image=png("red"), mask=png("red"), prompt="at dusk")


def test_workers_that_fail_for_good_end_the_server_with_a_code_for_its_supervisor(server: Server) -> None:
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(edit, server, num_inference_steps=200) for _ in range(2)]  # one in work, one waiting
        server.wait_for("omni_queue_depth", 1, Authorization="Bearer right")
        server.ranks()[0].kill()
        for call in calls:
            with pytest.raises(openai.InternalServerError) as caught:
                call.result()
            assert caught.value.status_code == 503
    assert server.end() == 75
    assert server.left() == ["plan.json"]  # beside the log of the run that failed
