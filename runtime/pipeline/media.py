"""Images that go in, images and videos that come out."""

from __future__ import annotations

import re
import struct
import subprocess
import warnings
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, BinaryIO

from omni_config.plan import Plan
from runtime.errors import CannotRunError
from runtime.report import write_new

if TYPE_CHECKING:
    from PIL.Image import Image


class ImageError(ValueError):
    """An image that cannot be used; the text goes on from "the image ..."."""


def open_image(
    source: Path | BinaryIO, *, formats: tuple[str, ...] = (), max_pixels: int | None = None, mode: str = "RGB"
) -> Image:
    """An image in a mode of PIL, turned upright as its camera says.

    ``formats`` are those of PIL that are read, all where there are none. More than ``max_pixels``, and more than PIL's
    limit of 89 million, are known before they are decoded.

    Raises:
        ImageError: it is none of these formats, is damaged, or has too many pixels.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(source, formats=formats or None) as image:
                if max_pixels is not None and image.width * image.height > max_pixels:
                    raise ImageError(f"has more than {max_pixels} pixels")
                return ImageOps.exif_transpose(image).convert(mode)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise ImageError("has too many pixels") from None
    except UnidentifiedImageError:
        raise ImageError(f"is no {' or '.join(formats)}" if formats else "is no image that PIL can read") from None
    except ImageError:
        raise
    except (OSError, ValueError, SyntaxError) as error:  # what PIL raises of a damaged file
        raise ImageError(f"is damaged or cannot be read: {str(error) or type(error).__name__}") from error


def input_image(path: str, mode: str = "RGB") -> Image:
    """The input image of a Plan, in a mode of PIL.

    Raises:
        CannotRunError: there is no such file, or it is no image that can be used.
    """
    if not Path(path).is_file():
        raise CannotRunError(f"the input image {path} is not there, or is no file; next: correct sampling.image")
    try:
        return open_image(Path(path), mode=mode)
    except ImageError as error:
        raise CannotRunError(f"the input image {path} {error}; next: save it again, as PNG or JPEG") from error


def require_encoder(plan: Plan) -> None:
    """Look for what a video is written with, before anything is loaded.

    Raises:
        CannotRunError: the Plan makes a video, and imageio-ffmpeg is not installed.
    """
    if plan.sampling.video and not find_spec("imageio_ffmpeg"):
        raise CannotRunError("a video is written with imageio-ffmpeg; next: pip install imageio imageio-ffmpeg")


@contextmanager
def refuse_what_is_no_number(plan: Plan) -> Iterator[None]:
    """Raise where a pipeline makes pixels of NaN, which would be black.

    Raises:
        CannotRunError: it does.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "invalid value encountered in cast", RuntimeWarning)
        try:
            yield
        except RuntimeWarning:
            made = "video" if plan.sampling.video else "image"
            raise CannotRunError(
                f"the {made} is not a number; next: download the checkpoint again, as a damaged weight does that, or, "
                f"in {plan.model.dtype}, set execution.dtype to float32"
            ) from None


def save(output: Any, plan: Plan) -> list[str]:
    """Write what a pipeline made into the output folder, named by prompt, seed and, of several, number; the paths.

    Videos are MP4 (H.264; AAC where there is sound).

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    video = plan.sampling.video
    if video is None:
        images = output.images
        prompts = plan.sampling.prompts
        count = len(images) // len(prompts)
        which = [f"-{number}of{count}" if count > 1 else "" for number in range(1, count + 1)]
        names = [(prompt, f"{one}.png") for prompt in prompts for one in which]
        return [_write(plan, *name, _png(image)) for name, image in zip(names, images, strict=True)]
    assert video.fps is not None
    [prompt] = plan.sampling.prompts
    return [_write(plan, prompt, ".mp4", partial(write_mp4, frames, video.fps)) for frames in output.frames]


def write_mp4(frames: list[Image], fps: int, path: Path) -> None:
    """Write frames as a video: MP4 (H.264).

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    from diffusers.utils.export_utils import export_to_video

    export_to_video(frames, str(path), fps=fps)
    if not _is_whole(path):  # ffmpeg's own end is not looked at
        raise OSError(0, "the video is not whole; is the disk full?", str(path))


def _is_whole(path: Path) -> bool:
    """Whether the boxes of an MP4 fill its file, and its index, which is written last, is there."""
    kinds, at, end = set(), 0, path.stat().st_size
    with path.open("rb") as file:
        while at < end:
            file.seek(at)
            size, kind = struct.unpack(">I4s", file.read(8).ljust(8, b"\0"))
            if size == 1:  # a length of 64 bits follows
                (size,) = struct.unpack(">Q", file.read(8).ljust(8, b"\0"))
            if size < 8:
                return False
            kinds.add(kind)
            at += size
    return at == end and b"moov" in kinds


def _write(plan: Plan, prompt: str, end: str, fill: Callable[[Path], Any]) -> str:
    made = "video" if plan.sampling.video else "image"
    slug = re.sub(r"\W+", "-", prompt.lower())[:48].strip("-") or made
    return str(write_new(Path(plan.output) / f"{slug}-{plan.sampling.seed}{end}", fill))


def _png(image: Image) -> Callable[[Path], Any]:
    data = BytesIO()
    image.save(data, "PNG")
    return lambda path: path.write_bytes(data.getvalue())


def _with_sound(silent: Callable[[Path], Any], sound: Any, rate: int) -> Callable[[Path], Any]:
    """``silent`` writes a video; ``sound`` is (channels, samples) from -1 to 1, of ``rate`` samples a second."""

    def write(path: Path) -> None:
        import imageio_ffmpeg

        with TemporaryDirectory() as folder:
            video, audio = Path(folder, "video.mp4"), Path(folder, "sound.wav")
            silent(video)
            samples = (sound.float().cpu().clamp(-1, 1) * 32767).short().T.contiguous().numpy()
            with wave.open(str(audio), "wb") as file:
                file.setnchannels(samples.shape[1])
                file.setsampwidth(2)
                file.setframerate(rate)
                file.writeframes(samples.tobytes())
            command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error"]
            command += ["-i", str(video), "-i", str(audio), "-c:v", "copy", "-c:a", "aac", str(path)]
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL)

    return write
