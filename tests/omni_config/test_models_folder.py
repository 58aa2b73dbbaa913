"""``omni model``: a model card from a checkpoint's own files. The configurations of real checkpoints are in
``real_configs.json``, each with where it was found.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from omni_config.catalog.checkpoint import call_of, describe, weights_of
from omni_config.catalog.folder_card import card_of_folder
from omni_config.catalog.load import catalog, read
from omni_config.cli import app
from omni_config.cli.model import DIFFUSERS
from omni_config.engines.facts import facts_of
from runtime.pipeline.load import FOLDERS

PLACES = facts_of(DIFFUSERS).pipelines
REAL = json.loads((Path(__file__).parent / "real_configs.json").read_text())
#: What is in no configuration: it is in a tokenizer, in the pipeline's code, or in the headers of weights.
IN_NO_CONFIGURATION = {"text_tokens", "condition_tokens", "transformer_parameters", "text_encoder_parameters"}
IN_NO_CONFIGURATION |= {"text_encoder_whole_parameters"}
OF_A_COMPONENT = {"text_encoder": "text_encoder_", "vae": "vae_"}


def write(folder: Path, files: dict[str, Any]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    return folder


def safetensors(path: Path, tensors: dict[str, Any]) -> Path:
    header = json.dumps(tensors).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    return path


def tensor(dtype: str, *shape: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [0, 0]}


@pytest.mark.parametrize("real", REAL, ids=lambda real: real["id"])
def test_a_real_checkpoint_has_the_dimensions_of_its_card(tmp_path: Path, real: dict[str, Any]) -> None:
    card, found = catalog().model(real["id"]), card_of_folder(write(tmp_path, real["files"]), catalog())
    assert found.pipeline == card.pipeline
    shared = card.dims.keys() & found.dims.keys()
    assert {name: found.dims[name] for name in shared} == {name: card.dims[name] for name in shared}
    there = {path.partition("/")[0].removesuffix("_2") for path in real["files"]}
    absent = tuple(prefix for component, prefix in OF_A_COMPONENT.items() if component not in there)
    missing = {name for name in card.dims.keys() - found.dims.keys() if not name.startswith(absent or ("-",))}
    assert missing <= IN_NO_CONFIGURATION


def test_there_are_enough_real_checkpoints() -> None:
    assert len({real["id"] for real in REAL}) >= 10
    assert all(real["source"] for real in REAL)


def compared(real: dict[str, Any], folder: Path) -> str:
    """A row of the page: what a folder and the card that was written by hand both say, and what only one of them."""
    card = catalog().model(real["id"])
    described = describe(write(folder, real["files"]), catalog(), {})
    ours, theirs = card.dims, described.card.dims
    equal = [name for name in ours if theirs.get(name) == ours[name]]
    differs = [f"{name} {theirs[name]} for {ours[name]}" for name in ours if name in theirs and name not in equal]
    cells = (
        f"[{real['id'].rpartition('/')[2]}](https://huggingface.co/{real['id']})",
        ", ".join(sorted({path.partition("/")[0] for path in real["files"]} - {"model_index.json"})),
        f"{len(equal)}",
        ", ".join(differs) or "nothing",
        ", ".join(name for name in ours if name not in theirs) or "nothing",
        ", ".join(name for name in theirs if name not in ours) or "nothing",
    )
    return f"| {' | '.join(cells)} |"


def test_the_page_compares_every_folder_with_its_card(tmp_path: Path) -> None:
    """To write it anew: OMNI_WRITE_FOLDERS=1."""
    rows = [compared(real, tmp_path / str(number)) for number, real in enumerate(REAL)]
    page = Path(__file__).parents[2] / "docs" / "folders.md"
    head, mark, rest = page.read_text().partition("|---|---|---:|---|---|---|\n")
    end = rest[rest.index("\n\n") :]
    if os.environ.get("OMNI_WRITE_FOLDERS"):
        page.write_text(head + mark + "\n".join(rows) + end)
    assert page.read_text() == head + mark + "\n".join(rows) + end
    assert not [row for row in rows if row.split(" | ")[3] != "nothing"]


def test_a_folder_is_read_in_a_third_of_a_second(tmp_path: Path) -> None:
    """With the catalog, in a process that has read none: the computer's time, which others cannot lengthen."""
    folder = write(tmp_path, max(REAL, key=lambda real: len(real["files"]))["files"])
    code = (
        "import sys, time; from pathlib import Path; from omni_config.catalog.checkpoint import describe; "
        "from omni_config.catalog.load import catalog; start = time.process_time(); "
        f"describe(Path({str(folder)!r}), catalog(), {{}}); print(time.process_time() - start)"
    )
    taken = [float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(3)]
    assert min(taken) < 0.3


@pytest.mark.parametrize("name", FOLDERS)
def test_an_embedded_model_is_described(name: str) -> None:
    described = describe(FOLDERS[name], catalog(), PLACES)
    card = catalog().model(name)
    assert (
        described.card.dims.items() >= {key: card.dims[key] for key in described.card.dims if key in card.dims}.items()
    )
    assert described.card.dims["transformer_parameters"] == round(
        sum(weights_of(FOLDERS[name] / "transformer").numbers.values()) / 1e6
    )
    assert described.card.dtype == "bfloat16"
    assert "family" in described.taken_over
    assert "tokens of a prompt" in described.unknown


def test_what_is_written_is_a_card_of_the_catalog(tmp_path: Path) -> None:
    result = CliRunner().invoke(app(["model", "check"]), ["model", str(FOLDERS["tiny"])])
    assert result.exit_code == 0
    path = tmp_path / "models" / "mine.yaml"
    path.parent.mkdir()
    path.write_text(result.output)
    (card,) = read([path])["texts"].values()
    assert json.loads(card)["dims"] == yaml.safe_load(result.output)["dims"]
    assert result.output.splitlines()[-1].startswith("# Not known from these files: ")


def test_parameters_and_precision_are_those_of_the_headers(tmp_path: Path) -> None:
    folder = tmp_path / "transformer"
    safetensors(
        folder / "a-00001-of-00002.safetensors", {"__metadata__": {"format": "pt"}, "w": tensor("BF16", 3000, 1000)}
    )
    safetensors(folder / "a-00002-of-00002.safetensors", {"w": tensor("BF16", 1000, 1000), "n": tensor("F32", 7)})
    safetensors(folder / "a.fp16.safetensors", {"w": tensor("F16", 4000, 1000)})
    weights = weights_of(folder)
    assert (weights.dtype, weights.millions) == ("bfloat16", 4)
    assert weights_of(tmp_path / "vae") is None


def test_many_large_headers_are_not_read(tmp_path: Path) -> None:
    for number in range(3):
        padded = b"{}" + b" " * 12_000_000
        (tmp_path / f"{number}.safetensors").write_bytes(struct.pack("<Q", len(padded)) + padded)
    with pytest.raises(ValueError, match=r"2\.safetensors of .* has no readable header"):
        weights_of(tmp_path)


def test_quantized_weights_are_not_counted(tmp_path: Path) -> None:
    safetensors(tmp_path / "a.safetensors", {"w": tensor("U8", 9_000_000), "n": tensor("BF16", 1000)})
    weights = weights_of(tmp_path)
    assert (weights.dtype, weights.millions) == (None, None)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x05",
        struct.pack("<Q", 1 << 60) + b"{}",
        struct.pack("<Q", 4) + b"null",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 1_000_000) + b"[" * 1_000_000,
        *(
            struct.pack("<Q", len(header)) + header
            for header in (
                b'{"w": 1}',
                b'{"w": {"dtype": "F32"}}',
                b'{"w": {"dtype": 3, "shape": [1]}}',
                b'{"w": {"dtype": "F32", "shape": 7}}',
                b'{"w": {"dtype": "F32", "shape": [-1]}}',
                b'{"w": {"dtype": "F32", "shape": [true]}}',
                b'{"w": {"dtype": "F32", "shape": [1e400]}}',
                b'{"w": {"dtype": "F32", "shape": [99999999999999999999]}}',
            )
        ),
    ],
)
def test_a_damaged_header_is_one_line(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer" / "m.safetensors").write_bytes(data)
    write(tmp_path, REAL[0]["files"])
    result = CliRunner().invoke(app(["model", "check"]), ["model", str(tmp_path)])
    assert result.exit_code == 2
    assert result.output == f"omni: {tmp_path}: m.safetensors of transformer has no readable header\n"


@pytest.mark.parametrize("value", [[[]] * 3, -1, True, "8", {}, 1e308, 10**30, None, [0], [[1]]])
@pytest.mark.parametrize("component", ["transformer", "vae", "text_encoder_2"])
def test_hostile_configurations_make_no_dimensions(tmp_path: Path, component: str, value: Any) -> None:
    files = REAL[0]["files"]
    changed = dict.fromkeys(files[f"{component}/config.json"], value)
    changed |= {"axes_dims": value, "mlp_ratio": value, "spatio_temporal_scaling": value, "text_config": value}
    folder = write(tmp_path, files | {f"{component}/config.json": changed})
    found = describe(folder, catalog(), PLACES).card
    assert all(type(size) is int and 0 < size < 10**12 for size in found.dims.values())


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    write(tmp_path, REAL[0]["files"])
    (tmp_path / "transformer" / "config.json").unlink()
    os.mkfifo(tmp_path / "transformer" / "config.json")
    os.mkfifo(tmp_path / "transformer" / "m.safetensors")
    with pytest.raises(ValueError, match=r"config\.json of transformer is no file"):
        describe(tmp_path, catalog(), PLACES)


def test_defaults_are_those_of_the_signature() -> None:
    pytest.importorskip("diffusers")
    arguments = call_of("WanPipeline", PLACES)
    assert (arguments["height"], arguments["width"], arguments["num_frames"]) == (480, 832, 81)
    assert call_of("NoSuchPipeline", PLACES) == {}


def test_torch_and_diffusers_are_not_imported() -> None:
    code = (
        "import sys; from omni_config.cli.model import model; from pathlib import Path; "
        f"model(Path({str(FOLDERS['tiny'])!r})); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'diffusers', 'transformers', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0


def test_what_the_classes_of_a_pipeline_decide_is_on_the_card_of_a_folder(tmp_path: Path) -> None:
    transformer = {"hidden_size": 640, "num_attention_heads": 8, "attention_head_dim": 128, "num_layers": 2}
    files = {"model_index.json": {"_class_name": "MiniMaxH3ModularPipeline"}, "transformer/config.json": transformer}
    dims = card_of_folder(write(tmp_path, files), catalog()).dims
    assert (dims["hidden_size"], dims["attention_width"], dims["vae_only_tiles"]) == (640, 1024, 1)


def test_a_decoder_of_another_size_is_told_by_its_channels(tmp_path: Path) -> None:
    files = {"model_index.json": {"_class_name": "WanPipeline"}, "transformer/config.json": {"num_layers": 30}}
    for channels, vae in ((16, "AutoencoderKLWan"), (48, "AutoencoderKLWan48")):
        vae_config = {"vae/config.json": {"_class_name": "AutoencoderKLWan", "z_dim": channels}}
        assert card_of_folder(write(tmp_path / str(channels), files | vae_config), catalog()).vae == vae
