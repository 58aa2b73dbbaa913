"""A model that is named otherwise than by its id: which card is taken, and how that is said."""

from __future__ import annotations

import json

import pytest

from omni_config.catalog.identify import identify
from omni_config.catalog.load import FOLDER, catalog
from omni_config.checking.files import check_bytes

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
        ("lightx2v/Wan2.1-T2V-14B-StepDistill-CfgDistill-Lightx2v", "Wan-AI/Wan2.1-T2V-14B-Diffusers", DISTILLED),
        ("nvidia/Wan2.2-T2V-A14B-Diffusers-NVFP4", "Wan-AI/Wan2.2-T2V-A14B-Diffusers", f"{QUANTIZED} (nvfp4)"),
        ("black-forest-labs/FLUX.1-dev-FP8", "black-forest-labs/FLUX.1-dev", f"{QUANTIZED} (fp8)"),
        ("Qwen/Qwen-Image-Lightning", "Qwen/Qwen-Image", f"{DISTILLED} (lightning)"),
        ("/models/wan2.2-t2v-a14b", "Wan-AI/Wan2.2-T2V-A14B-Diffusers", "written differently"),
        ("Lightricks/LTX-2-19b-dev-fp8", "Lightricks/LTX-2", f"{QUANTIZED} (fp8)"),
        ("Lightricks/LTX-2.3-fp8", "Lightricks/LTX-2.3", f"{QUANTIZED} (fp8)"),
        ("tencent/HunyuanVideo-1.5", "hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_t2v", "an engine"),
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


def test_what_is_not_true_of_a_relative_is_not_on_its_card() -> None:
    whole = catalog().model("Qwen/Qwen-Image")
    quantized, distilled = (identify(name, catalog())[0] for name in ("a/Qwen-Image-FP8", "a/Qwen-Image-Lightning"))
    assert whole.dims.keys() - quantized.dims.keys() == {"transformer_parameters"}
    assert whole.defaults == quantized.defaults
    assert whole.defaults.keys() - distilled.defaults.keys() == {"num_inference_steps", "cfg_scale"}
    assert whole.dims == distilled.dims


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("version: 1\nmodel: {}\nengine: vllm-omni\nparallel: {{ulysses_degree: 7}}\n", ["OMNI103", "OMNI106"]),
        ("vllm serve {} --omni --ulysses-degree 7\n", ["OMNI103", "OMNI106"]),
    ],
    ids=["ours", "vllm-omni"],
)
@pytest.mark.parametrize(
    ("name", "differs"),
    [("Qwen/Qwen-Image", []), ("/m/qwen-image", []), ("a/Qwen-Image-FP8", ["OMNI523"]), ("a/qwen_image", ["OMNI523"])],
)
def test_a_relative_is_judged_with_a_word_of_what_differs(
    name: str, differs: list[str], text: str, codes: list[str]
) -> None:
    name_of_file = "a.yaml" if text.startswith("version") else "a.sh"
    (checked,) = check_bytes(name_of_file, text.format(name).encode())
    assert sorted(finding.code for finding in checked.findings) == [*codes, *differs]


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
