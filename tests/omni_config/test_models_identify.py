"""A model that is named otherwise than by its id: which card is taken, and how that is said."""

from __future__ import annotations

import json

import pytest

from omni_config.catalog.identify import identify
from omni_config.catalog.load import FOLDER, catalog

QUANTIZED, DISTILLED = "stored otherwise", "distilled"


@pytest.mark.parametrize(
    ("name", "id_", "how"),
    [
        ("qwen/qwen-IMAGE", "Qwen/Qwen-Image", "its case"),
        ("Qwen-Image", "Qwen/Qwen-Image", "last part"),
        ("/models/qwen-image/", "Qwen/Qwen-Image", "last part"),
        ("D:\\models\\Qwen-Image", "Qwen/Qwen-Image", "last part"),
        ("/hub/models--Qwen--Qwen-Image/snapshots/0a1b", "Qwen/Qwen-Image", "id in the path"),
        ("SD3.5", "stabilityai/stable-diffusion-3.5-large", "an engine"),
        ("CausalWan", "FastVideo/CausalWan2.2-I2V-A14B-Preview-Diffusers", "an engine"),
        ("Wan-AI/Wan2.2-T2V-A14B", "Wan-AI/Wan2.2-T2V-A14B-Diffusers", "written differently"),
        ("nvidia/Qwen-Image-NVFP4", "Qwen/Qwen-Image", f"{QUANTIZED} (nvfp4)"),
        ("nunchaku-tech/nunchaku-flux.1-dev", "black-forest-labs/FLUX.1-dev", f"{QUANTIZED} (nunchaku)"),
        ("unsloth/Z-Image-Turbo-GGUF", "Tongyi-MAI/Z-Image-Turbo", f"{QUANTIZED} (gguf)"),
        ("z-image-turbo-q4_k_m.gguf", "Tongyi-MAI/Z-Image-Turbo", f"{QUANTIZED} (q4_k_m, gguf)"),
        ("lightx2v/Qwen-Image-Edit-2511-Lightning", "Qwen/Qwen-Image-Edit-2511", f"{DISTILLED} (lightning)"),
        ("me/FLUX.1-dev-8-steps-fp8", "black-forest-labs/FLUX.1-dev", f"{DISTILLED} (8-steps)"),
    ],
)
def test_a_name_is_taken_for_a_model(name: str, id_: str, how: str) -> None:
    found = identify(name, catalog())
    assert found is not None
    card, words = found
    assert (card.id, f"is taken for {id_}: " in words) == (id_, True)
    assert how in words
    assert (DISTILLED in words) == (DISTILLED in how)


@pytest.mark.parametrize("name", ["", "/", "gpt2", "acme/other", "Qwen/Qwen3-8B", "/x/tiny", "fp8", "models----"])
def test_nothing_else_is(name: str) -> None:
    assert identify(name, catalog()) is None


def test_every_name_that_an_engine_registers_for_media_is_a_model() -> None:
    robots_and_meshes = {
        "black-forest-labs/flux-3-action-droid",
        "lerobot/pi05_base",
        "lerobot/pi05_libero_base",
        "tencent/Hunyuan3D-2",
    }
    unknown = {"herzogenhorn/f3-image-small"}  # a size of FLUX.3 that no source describes
    names: set[str] = set()
    for path in (FOLDER.parent / "engines").glob("*/facts/*.json"):
        for entry in json.loads(path.read_text())["pipelines"].values():
            names |= {*entry.get("names", ()), *entry.get("hub_ids", ())}
    assert len(names) > 150
    assert {name for name in names if not identify(name, catalog())} == robots_and_meshes | unknown
