"""``model:`` may be a local diffusers folder, whose dimensions are read from it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from omni_config.catalog.folder_card import card_of_folder
from omni_config.catalog.load import catalog
from omni_config.checking.files import check_bytes
from runtime.pipeline.load import FOLDERS

TINY = FOLDERS["tiny"]


@pytest.mark.parametrize("name", FOLDERS)
def test_an_embedded_model_has_the_dimensions_of_its_card(name: str) -> None:
    card, read = catalog().model(name), card_of_folder(FOLDERS[name], catalog())
    assert card is not None
    assert read.pipeline == card.pipeline
    assert read.dims == {name: size for name, size in card.dims.items() if name in read.dims}
    assert set(card.tensor_parallel_splits) == set(read.tensor_parallel_splits)


def test_a_folder_is_checked_with_its_own_dimensions(tmp_path: Path) -> None:
    shutil.copytree(TINY, tmp_path / "m", ignore=shutil.ignore_patterns("*.safetensors"))
    config = tmp_path / "m" / "transformer" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"n_heads": 4, "n_kv_heads": 4, "dim": 96}))
    text = f"version: 1\nmodel: {tmp_path}/m\nparallel: {{tensor_parallel_size: 4, ulysses_degree: 2}}\n"
    (checked,) = check_bytes("c.yaml", text.encode())
    assert [finding.code for finding in checked.findings if finding.severity == "error"] == ["OMNI103"]
    assert "4 heads / tensor 4 = 1" in next(f.message for f in checked.findings if f.code == "OMNI103")


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (None, "no such file"),
        ("{", "is not JSON"),
        ("[]", "is not a configuration"),
        ("{}", "names no pipeline class"),
        ('{"_class_name": "OtherPipeline"}', "is on no model card"),
        ('{"_class_name": "ZImagePipeline"}', "config.json of transformer: no such file"),
    ],
)
def test_a_folder_that_cannot_be_read_is_a_finding(tmp_path: Path, index: str | None, message: str) -> None:
    if index is not None:
        (tmp_path / "model_index.json").write_text(index)
    (checked,) = check_bytes("c.yaml", f"version: 1\nmodel: {tmp_path}\n".encode())
    (finding,) = checked.findings
    assert finding.code == "OMNI501"
    assert message in finding.message


FLUX = {"_class_name": "FluxTransformer2DModel", "in_channels": 64, "out_channels": None, "patch_size": 1}
FLUX |= {"num_layers": 19, "num_single_layers": 38, "num_attention_heads": 24, "attention_head_dim": 128}
WAN = {"_class_name": "WanTransformer3DModel", "in_channels": 48, "out_channels": 48, "patch_size": [1, 2, 2]}
WAN |= {"num_layers": 30, "num_attention_heads": 24, "attention_head_dim": 128, "ffn_dim": 14336}


def folder_with(folder: Path, pipeline: str, transformer: dict[str, object], vae: dict[str, object]) -> Path:
    (folder / "model_index.json").write_text(json.dumps({"_class_name": pipeline}))
    for name, config in {"transformer": transformer, "vae": vae}.items():
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("distilled", [True, False])
def test_a_flux_folder_is_what_the_card_says(tmp_path: Path, distilled: bool) -> None:
    transformer = FLUX | {"guidance_embeds": distilled}
    folder = folder_with(tmp_path, "FluxPipeline", transformer, {"block_out_channels": [128, 256, 512, 512]})
    card = catalog().model(f"black-forest-labs/FLUX.1-{'dev' if distilled else 'schnell'}")
    read = card_of_folder(folder, catalog())
    assert card is not None
    assert read.dims == {name: card.dims[name] for name in read.dims}
    assert read.guidance is not None
    assert read.guidance.distilled_argument == ("guidance_scale" if distilled else None)
    assert ("guidance_scale" in read.defaults) is distilled


def test_a_wan_folder_is_what_the_card_says(tmp_path: Path) -> None:
    vae = {"temperal_downsample": [False, True, True], "scale_factor_spatial": 16, "scale_factor_temporal": 4}
    read = card_of_folder(folder_with(tmp_path, "WanPipeline", WAN, vae), catalog())
    card = catalog().model("Wan-AI/Wan2.2-TI2V-5B-Diffusers")
    assert card is not None
    shared = card.dims.keys() & read.dims.keys()
    assert {name: read.dims[name] for name in shared} == {name: card.dims[name] for name in shared}
    assert {"vae_scale_factor", "vae_temporal_factor", "num_layers"} <= set(read.dims)
