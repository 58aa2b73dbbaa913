"""Checkpoints with a file that is truncated, corrupted, unreadable or missing: one line that names the file."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from cases import tiny

from omni_config.plan import Plan
from runtime.errors import CannotRunError
from runtime.events import Writer
from runtime.pipeline import load
from runtime.ranks import generate

TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return shutil.copytree(load.FOLDERS["tiny"], tmp_path / "checkpoint")


def of(checkpoint: Path, **changes) -> Plan:
    plan = tiny(output=str(checkpoint.parent / "outputs"), **changes)
    return replace(plan, model=replace(plan.model, source=str(checkpoint)))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def garble(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:20] + b"\xff" * 30 + data[50:])


def unlink_target(path: Path) -> None:
    path.unlink()
    path.symlink_to("blobs/gone")  # as in a cache of the hub of which a part was deleted


def make_unreadable(path: Path) -> None:
    """By its mode; for root, who reads every file, by what no read of its start succeeds for."""
    path.chmod(0)
    if os.access(path, os.R_OK):
        path.unlink()
        path.symlink_to("/proc/self/mem")


@pytest.mark.parametrize("part", [TRANSFORMER, "text_encoder/model.safetensors", "tokenizer/tokenizer.json"])
@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (truncate, "is truncated, damaged or unreadable: "),
        (garble, "is truncated, damaged or unreadable: "),
        (make_unreadable, f"is truncated, damaged or unreadable: {'permission denied' if os.geteuid() else ''}"),
        (unlink_target, "links to a file that is not there"),
    ],
)
def test_a_file_that_cannot_be_read(checkpoint: Path, part: str, damage, why: str) -> None:
    damage(checkpoint / part)
    with pytest.raises(CannotRunError) as caught:
        load.pipeline(of(checkpoint))
    assert str(caught.value).startswith(f"{checkpoint / part} {why}")
    assert "\n" not in str(caught.value)


def test_of_a_checkpoint_that_is_not_here_the_first_error_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import diffusers

    def fail(*_, **__) -> None:
        raise OSError("the hub is down")

    monkeypatch.setattr(load, "_class_name", lambda _: "ZImagePipeline")
    monkeypatch.setattr(diffusers.DiffusionPipeline, "download", fail)
    plan = tiny()
    with pytest.raises(OSError, match="the hub is down"):
        load.pipeline(replace(plan, model=replace(plan.model, source="nobody/nothing-here")))


def test_a_file_that_is_missing(checkpoint: Path) -> None:
    (checkpoint / TRANSFORMER).unlink()
    with pytest.raises(OSError, match=r"no file named diffusion_pytorch_model.safetensors found in .*/transformer"):
        load.pipeline(of(checkpoint))


@pytest.mark.parametrize("part", [TRANSFORMER, "vae/diffusion_pytorch_model.safetensors"])
def test_numbers_that_are_none(checkpoint: Path, part: str) -> None:
    """Nothing but its result shows that the bytes of a weight are wrong."""
    path = checkpoint / part
    plan = of(checkpoint)
    work = lambda: generate.generate(plan, 0, 60, Writer(None, 0))  # noqa: E731
    assert len(work().images) == 1
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[: size // 2] + b"\xff" * (size - size // 2))
    with pytest.raises(CannotRunError, match="the image is not a number; next: download the checkpoint again"):
        work()
    assert len(list(Path(plan.output).iterdir())) == 1
