"""Pictures in: whatever cannot be read is one line before any weight is loaded. Pictures and videos out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from cases import tiny
from PIL import Image
from typer.testing import CliRunner

from omni_config.cli import app
from omni_config.plan import Plan, Video
from runtime.errors import CannotRunError
from runtime.events import Writer
from runtime.pipeline import media
from runtime.ranks import generate


def test_a_picture_comes_in_upright_and_as_rgb(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned
    Image.new("L", (32, 16)).save(tmp_path / "a.png", exif=exif)
    image = media.input_image(str(tmp_path / "a.png"))
    assert (image.mode, image.size) == ("RGB", (16, 32))


def test_what_is_no_picture_is_one_line_with_the_next_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good, cut, text = tmp_path / "good.png", tmp_path / "cut.png", tmp_path / "text.png"
    Image.effect_noise((64, 64), 50).save(good)
    cut.write_bytes(good.read_bytes()[:2000])
    text.write_text("not a picture")
    reasons = {
        tmp_path / "none.png": "is not there",
        tmp_path: "is no file",
        cut: "cannot be read",
        text: "is no image",
    }
    for path, reason in reasons.items():
        with pytest.raises(CannotRunError, match=rf"{reason}.*; next: ") as caught:
            media.input_image(str(path))
        assert "\n" not in str(caught.value)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 63)
    with pytest.raises(CannotRunError, match="too many pixels; next: "):
        media.input_image(str(good))


def test_launch_looks_at_the_picture_before_it_starts_anything(tmp_path: Path) -> None:
    line = ["launch", "--model", "Qwen/Qwen-Image-Edit", "--prompt", "at night", "--image", str(tmp_path / "none.png")]
    result = CliRunner().invoke(app(), line)
    assert result.exit_code == 1, result.output
    assert result.stderr.endswith("none.png is not there, or is no file; next: correct sampling.image\n")


def video_plan(folder: Path) -> Plan:
    plan = tiny(output=str(folder))
    return replace(plan, sampling=replace(plan.sampling, prompt="A red star!", video=Video(num_frames=5, fps=8)))


def frames() -> SimpleNamespace:
    return SimpleNamespace(frames=[[Image.new("RGB", (64, 32), (50 * i, 0, 0)) for i in range(5)]])


def test_a_video_is_an_mp4(tmp_path: Path) -> None:
    import imageio.v3 as imageio

    for name in ("a-red-star-7.mp4", "a-red-star-7-2.mp4"):
        assert media.save(frames(), video_plan(tmp_path)) == [str(tmp_path / name)]
    assert imageio.immeta(tmp_path / "a-red-star-7.mp4")["fps"] == 8
    shown = imageio.imread(tmp_path / "a-red-star-7.mp4")
    assert shown.shape == (5, 32, 64, 3)
    assert [abs(int(frame[16, 32, 0]) - 50 * i) < 10 for i, frame in enumerate(shown)] == [True] * 5


def test_without_an_encoder_a_video_is_refused_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(media, "find_spec", lambda _: None)
    with pytest.raises(CannotRunError, match="next: pip install imageio imageio-ffmpeg"):
        generate.generate(video_plan(tmp_path), 0, 60.0, Writer(None, 0))
