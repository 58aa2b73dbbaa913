"""The effective configuration: what is said, and what an engine infers, switches on, lowers, drops or refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from omni_config.catalog.load import catalog
from omni_config.checking.effective import effective
from omni_config.checking.files import check_bytes
from omni_config.cli import app
from omni_config.findings import Decision
from omni_config.schema.settings import FIELDS

runner = CliRunner()
SERVED = "sglang serve --model-path Qwen/Qwen-Image"
SHARING = ("gpus", "tensor_parallel_size", "data_parallel_size", "cfg_parallel_size", "ulysses_degree", "ring_degree")


def rows(text: str, engine: str = "") -> dict[str, Decision]:
    (checked,) = check_bytes("run.sh", f"{text}\n".encode(), assume={"engine": engine} if engine else {})
    return {row.setting: row for row in effective(checked)}


def marks(found: dict[str, Decision], *names: str) -> dict[str, tuple[Any, str]]:
    return {name: (found[name].value, found[name].mark) for name in names if name in found}


# How the method of the wheel (ServerArgs._adjust_parallelism, the same from 0.5.18 to 0.5.23) shares the GPUs, worked
# out by hand: (tensor, replicas, branches, Ulysses, ring, K/V gather).
@pytest.mark.parametrize("engine", catalog().versions("sglang"))
@pytest.mark.parametrize(
    ("model", "flags", "shared"),
    [
        ("Qwen/Qwen-Image", "", (1, 1, 1, 1, 1, 1)),
        ("Qwen/Qwen-Image", "--num-gpus 2", (1, 1, 2, 1, 1, 1)),
        ("Qwen/Qwen-Image", "--num-gpus 3", (1, 1, 1, 3, 1, 1)),  # three are no pairs of branches
        ("Qwen/Qwen-Image", "--num-gpus 4", (1, 1, 2, 1, 1, 2)),
        ("Qwen/Qwen-Image", "--num-gpus 8", (1, 1, 2, 4, 1, 1)),
        ("Qwen/Qwen-Image", "--num-gpus 4 --tp-size 2", (2, 1, 2, 1, 1, 1)),
        ("Qwen/Qwen-Image", "--num-gpus 4 --tp-size 4", (4, 1, 1, 1, 1, 1)),
        ("Qwen/Qwen-Image", "--num-gpus 4 --dp-size 2", (1, 2, 2, 1, 1, 1)),
        ("Qwen/Qwen-Image", "--num-gpus 4 --ulysses-degree 4", (1, 1, 1, 4, 1, 1)),
        ("Qwen/Qwen-Image", "--num-gpus 4 --sp-degree 4", (1, 1, 1, 4, 1, 1)),
        ("Qwen/Qwen-Image", "--num-gpus 2 --sp-degree 2", (1, 1, 1, 1, 1, 2)),
        ("Qwen/Qwen-Image", "--num-gpus 4 --enable-cfg-parallel false", (1, 1, 1, 4, 1, 1)),
        ("Qwen/Qwen-Image", "--num-gpus 4 --cfg-parallel-size 1 --kv-gather-degree 4", (1, 1, 1, 1, 1, 4)),
        ("Qwen/Qwen-Image", "--num-gpus 4 --performance-mode manual", (1, 1, 1, 4, 1, 1)),
        ("black-forest-labs/FLUX.1-dev", "--num-gpus 2", (1, 1, 1, 1, 1, 2)),  # its requests have no second branch
        ("Tongyi-MAI/Z-Image-Turbo", "--num-gpus 2", (1, 1, 1, 1, 1, 2)),
        ("Tongyi-MAI/Z-Image", "--num-gpus 2", (1, 1, 2, 1, 1, 1)),
        ("MiniMax/MiniMax-H3", "--num-gpus 4", (1, 1, 1, 4, 1, 1)),
        ("Lightricks/LTX-2", "--num-gpus 2", (1, 1, 2, 1, 1, 1)),
        ("Lightricks/LTX-2", "--num-gpus 4", (1, 1, 1, 4, 1, 1)),  # 4 and 8 keep one branch for this model
        ("Wan-AI/Wan2.2-T2V-A14B-Diffusers", "--num-gpus 8 --tp-size 2", (2, 1, 2, 1, 1, 2)),
    ],
)
def test_sglang_shares_its_gpus(engine: str, model: str, flags: str, shared: tuple[int, ...]) -> None:
    (checked,) = check_bytes("a.sh", f"sglang serve --model-path {model} {flags}\n".encode(), assume={"engine": engine})
    assert checked.resolution is not None
    settings = checked.resolution.settings
    assert tuple(settings[name] or 1 for name in (*SHARING[1:], "allgather_degree")) == shared
    unequal = [finding for finding in checked.findings if finding.code in ("OMNI101", "OMNI135")]
    assert unequal == []


def test_what_sglang_chooses_has_its_place_in_that_version() -> None:
    text = "sglang serve --model-path Qwen/Qwen-Image --num-gpus 4"
    for engine, line in (("sglang==0.5.18", 1137), ("sglang==0.5.20", 1418), ("sglang==0.5.23", 1660)):
        found = rows(text, engine)
        place = f"sglang/multimodal_gen/runtime/server_args/server_args.py:{line}"
        assert found["cfg_parallel_size"].source == found["allgather_degree"].source == place
        assert marks(found, "gpus", "cfg_parallel_size", "vae_config.use_parallel_decode") == {
            "gpus": (4, "said"),
            "cfg_parallel_size": (2, "inferred"),
            "vae_config.use_parallel_decode": (True, "switched on"),
        }
    assert rows(f"{text} --performance-mode speed")["component_residency"].value == "all resident"
    assert found["component_residency"].value == "decided at the start"
    assert marks(found, "num_inference_steps", "guidance_scale", "negative_prompt") == {
        "num_inference_steps": (50, "default"),
        "guidance_scale": (4.0, "default"),
        "negative_prompt": (" ", "default"),
    }
    one = rows("sglang serve --model-path Qwen/Qwen-Image")
    assert marks(one, "gpus") == {"gpus": (1, "default")}
    assert "vae_config.use_parallel_decode" not in one


def test_what_is_dropped_or_refused_is_named() -> None:
    found = rows("sglang serve --model-path Qwen/Qwen-Image --num-gpus 2 --ulysses-degree 4 --enable-teacache")
    assert marks(found, "tea_cache", "ulysses_degree") == {
        "tea_cache": (True, "dropped"),
        "ulysses_degree": (4, "refused"),
    }
    assert found["tea_cache"].source == "OMNI503"


@pytest.mark.parametrize(
    ("text", "name", "dropped"),
    [
        # By the card: ignored silently, and refused.
        ("vllm serve bytedance-research/MammothModa2-Preview --omni --vae-use-slicing", "vae_use_slicing", True),
        ("xdit --model Wan2.1-T2V --use_cfg_parallel --prompt hi", "cfg_parallel_size", False),
        # By what reads it: a key that it does not have, a flag of language models, layers of an offload that is off.
        ("model_path: Qwen/Qwen-Image\nnum_gpus: 1\nsp_size: 1", "sp_size", True),
        ("vllm serve Qwen/Qwen-Image --omni --cpu-offload-gb 20", "--cpu-offload-gb 20", True),
        (
            f"{SERVED} --performance-mode manual --dit-layerwise-resident-layers 2",
            "dit_layerwise_resident_layers",
            True,
        ),
    ],
)
def test_what_an_engine_goes_on_without_is_dropped(text: str, name: str, dropped: bool) -> None:
    assert rows(text)[name].mark == ("dropped" if dropped else "refused")


def test_what_vllm_omni_lowers_and_switches_on() -> None:
    found = rows("vllm serve Qwen/Qwen-Image --omni --usp 2 --vae-patch-parallel-size 8 --cache-backend cache_dit")
    assert marks(found, "gpus", "vae_patch_parallel_size", "vae_use_tiling", "compile", "Fn_compute_blocks") == {
        "gpus": (2, "default"),
        "vae_patch_parallel_size": (2, "lowered"),
        "vae_use_tiling": (True, "switched on"),
        "compile": (True, "default"),
        "Fn_compute_blocks": (1, "default"),
    }
    assert found["vae_use_tiling"].source == "OMNI402"
    replicas = rows("vllm serve Qwen/Qwen-Image --omni --usp 2 --num-gpus 4")
    assert marks(replicas, "data_parallel_size") == {"data_parallel_size": (2, "inferred")}


def test_xdit_has_the_defaults_of_its_model() -> None:
    found = rows("xdit --model FLUX.1-dev --ulysses_degree 2 --cache_method dbcache --prompt hi")
    assert marks(found, "ulysses_degree", "num_inference_steps", "guidance_scale") == {
        "ulysses_degree": (2, "said"),
        "num_inference_steps": (50, "default"),
        "guidance_scale": (3.5, "default"),
    }
    assert found["num_inference_steps"].source == "xfuser/model_executor/models/runner_models/flux.py:55"


@pytest.mark.parametrize(
    "text",
    [
        "sglang serve --model-path Qwen/Qwen-Image --num-gpus 4 --vae-tiling",
        "vllm serve Qwen/Qwen-Image --omni --usp 2 --enable-cpu-offload",
        "xdit --model Qwen-Image --ulysses_degree 2 --enable_tiling --prompt hi",
        "version: 1\nmodel: Qwen/Qwen-Image\nengine: sglang\nparallel: {ulysses_degree: 2}",
    ],
)
def test_every_setting_that_is_said_is_told_once(text: str) -> None:
    (checked,) = check_bytes("run.sh", f"{text}\n".encode())
    assert checked.node is not None
    found = [row.setting for row in effective(checked)]
    assert len(found) == len(set(found))
    said = {name for name, path in FIELDS.items() if checked.node.find(path) is not None}
    assert said - {"version", "engine"} <= set(found)


def test_the_command_prints_it_and_hands_it_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run.sh").write_text("sglang serve --model-path Qwen/Qwen-Image --num-gpus 4\n")
    shown = runner.invoke(app(), ["plan", "run.sh"], env={"COLUMNS": "160"})
    assert shown.exit_code == 0
    assert "Runs as (sglang==0.5.23, the newest that is known)" in shown.stdout
    assert "Mesh: cfg 2 x ring 1 x ulysses 1 x tensor 1 x allgather 2 = 4 ranks" in shown.stdout
    chosen_by_itself = "chooses by itself: --enable-cfg-parallel, --kv-gather-degree 2"
    assert f"OMNI640 [advice] sglang==0.5.23 {chosen_by_itself}" in shown.stderr
    said = json.loads(runner.invoke(app(), ["plan", "--json", "run.sh"]).stdout)
    (chosen,) = [row for row in said["effective"] if row["setting"] == "parallel.cfg_parallel_size"]
    assert (chosen["value"], chosen["how"]) == (2, "inferred")
    assert chosen["source"].endswith("server_args.py:1660")
    older = runner.invoke(app(), ["plan", "--engine", "sglang==0.5.18", "run.sh"], env={"COLUMNS": "160"})
    assert "server_args.py:1137" in older.stdout
    Path("run.sh").write_text("sglang serve --model-path Qwen/Qwen-Image --ulysses-degree 2\n")
    refused = runner.invoke(app(), ["plan", "run.sh"], env={"COLUMNS": "160"})
    assert refused.exit_code == 1
    assert "refused" in refused.stdout
