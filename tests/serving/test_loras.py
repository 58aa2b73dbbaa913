"""Adapters that requests name: those of the folder and no others, swapped between calls, and a bound on them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from live_server import Server, image
from safetensors.torch import load_file, save_file

from omni_config.checking.files import check_bytes
from omni_config.plan import Lora, Plan
from runtime.pipeline import apply, load
from runtime.proof.random_pipelines import adapter
from runtime.ranks import generate

SEEDS = {"style": 1, "pose": 2, "extra": 3}
CONFIG = """\
version: 1
model: tiny
parallel: {{ulysses_degree: 2}}
sampling: {{num_inference_steps: 4}}
lora: {lora}
server: {{lora_folder: adapters, max_loras: 2, max_batch_size: 4, max_steps: 100}}
"""


def plan_of(config: str) -> Plan:
    (checked,) = check_bytes("config.yaml", config.encode())
    assert checked.plan is not None, checked.findings
    return checked.plan


PLAN = plan_of("version: 1\nmodel: tiny\nsampling: {num_inference_steps: 4}\n")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three adapters, one for another model, and the config's own, which is in another folder."""
    folder = tmp_path_factory.mktemp("loras")
    (folder / "adapters").mkdir()
    (folder / "own").mkdir()
    for name, seed in {**SEEDS, "own": 4}.items():
        path = adapter(load.pipeline(PLAN).transformer, folder, seed)
        path.rename(folder / ("own" if name == "own" else "adapters") / f"{name}.safetensors")
    weights = load_file(folder / "adapters" / "style.safetensors")
    other = {key.replace("layers.0.", "layers.99."): value for key, value in weights.items()}
    save_file(other, folder / "adapters" / "foreign.safetensors")
    wide = {key: value.repeat(1, 2) if "lora_A" in key else value for key, value in weights.items()}
    save_file(wide, folder / "adapters" / "wide.safetensors")
    own = f"[{{path: {folder / 'own' / 'own.safetensors'}, scale: 0.25}}]"
    (folder / "config.yaml").write_text(CONFIG.format(lora=own))
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    with Server(folder, "config.yaml") as result:
        yield result


@cache
def expected(folder: Path, *named: tuple[str, float]) -> np.ndarray:
    """What one rank makes with the config's adapter and others that are there from the beginning."""
    lora = [Lora(str(folder / "own" / "own.safetensors"), 0.25)]
    lora += [Lora(str(folder / "adapters" / f"{name}.safetensors"), scale) for name, scale in named]
    plan = replace(PLAN, lora=lora, sampling=replace(PLAN.sampling, prompt="a red star", seed=5))
    pipe = load.pipeline(plan)
    apply.apply(pipe, plan, None)
    return np.asarray(generate.call(pipe, plan, **generate.arguments(plan)).images[0]).astype(int)


def made(server: Server, lora: Any = None, **extra: Any) -> np.ndarray:
    asked = {"seed": 5, "lora": lora} | extra
    return image(server.client().images.generate(prompt="a red star", extra_body=asked).data[0])


def test_each_request_has_its_adapters_beside_those_of_the_config(server: Server, folder: Path) -> None:
    plain = made(server)
    assert abs(plain - expected(folder)).max() <= 1
    seen = [plain]
    style, pose, extra = ({"name": name} for name in SEEDS)
    for lora, named in (
        (style, [("style", 1.0)]),
        ({"lora_name": "pose", "lora_scale": 0.5, "lora_int_id": 7}, [("pose", 0.5)]),
        ([pose, style | {"scale": -0.5}], [("pose", 1.0), ("style", -0.5)]),
        (extra, [("extra", 1.0)]),  # the third, so the one that was used least lately makes place
        (style, [("style", 1.0)]),
        ({"name": "any", "path": str(folder / "adapters" / "style.safetensors")}, [("style", 1.0)]),
    ):
        image_now = made(server, lora)
        assert abs(image_now - expected(folder, *named)).max() <= 1, lora
        seen.append(image_now)
    assert abs(made(server) - plain).max() == 0
    different = {one.tobytes() for one in seen}
    assert len(different) == 5


def test_a_file_that_has_changed_is_loaded_anew(server: Server, folder: Path) -> None:
    path = folder / "adapters" / "changing.safetensors"
    for name in ("style", "pose"):
        shutil.copyfile(folder / "adapters" / f"{name}.safetensors", path)
        os.utime(path, (SEEDS[name], SEEDS[name]))
        assert abs(made(server, {"name": "changing"}) - expected(folder, (name, 1.0))).max() <= 1
    path.unlink()


@pytest.mark.parametrize(
    ("lora", "code", "words"),
    [
        ({"name": "none"}, "lora_not_found", "there is no adapter none"),
        ({"name": "../own/own"}, "lora_not_found", "there is no adapter"),
        ({"name": "own", "path": "own/own.safetensors"}, "lora_not_found", "come from one folder"),
        ({"name": "own", "path": "/etc/passwd"}, "lora_not_found", "come from one folder"),
        ({"name": "style", "scale": 11}, None, "less than or equal to 10"),
        ({"name": "style", "rank": 11}, "unknown_parameter", "rank"),
        ([{"name": "style"}] * 2, None, "twice"),
        ([{"name": name} for name in SEEDS], None, "at most 2"),
        ({"name": "foreign"}, "lora_unusable", "the adapter foreign is no LoRA adapter"),
        ({"name": "wide"}, "lora_unusable", "the adapter wide is no LoRA adapter"),
    ],
)
def test_what_cannot_be_used_is_refused_and_the_next_request_is_as_before(
    server: Server, lora: Any, code: str | None, words: str
) -> None:
    before = made(server)
    with pytest.raises(openai.BadRequestError) as caught:
        made(server, lora)
    assert caught.value.code == code
    assert words in str(caught.value)
    assert str(server.folder) not in str(caught.value)
    assert abs(made(server) - before).max() == 0
    assert server.metric('omni_worker_restarts_total{replica="0"}') == 0


def test_only_requests_of_the_same_adapters_share_a_call(server: Server, folder: Path) -> None:
    wanted = [{"name": "style"}, None, {"name": "style"}, {"name": "style", "scale": 0.5}]
    with ThreadPoolExecutor(5) as pool:
        before = server.asked()
        busy = pool.submit(made, server, None, num_inference_steps=100)
        server.wait_until_asked(before + 1)
        calls = [pool.submit(made, server, lora) for lora in wanted]
        for lora, call in zip(wanted, calls, strict=True):
            named = [] if lora is None else [(lora["name"], lora.get("scale", 1.0))]
            assert abs(call.result() - expected(folder, *named)).max() <= 1
        busy.result()


def test_the_plan_names_the_adapters_and_without_a_folder_there_are_none(server: Server) -> None:
    told = server.get("/v1/plan").json()
    assert {*SEEDS} < {*told["adapters"]}
    assert json.dumps(told).count("own.safetensors") == 1  # of the Plan
