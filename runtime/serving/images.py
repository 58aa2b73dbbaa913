"""Input pictures: decoded within limits, and kept as files of the server's own naming while a request is in work."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from runtime.serving.errors import RequestError

#: PIL's readers that need no other program and have no scripts in them.
_FORMATS = ("PNG", "JPEG", "WEBP")


class Pictures:
    """A folder of input pictures."""

    def __init__(self, folder: Path, max_pixels: int) -> None:
        self._folder = folder
        self._max_pixels = max_pixels
        self._numbers = itertools.count()

    def blank(self) -> Path:
        """A gray picture, for warming up."""
        path = self._folder / "blank.png"
        Image.new("RGB", (64, 64), "gray").save(path)
        return path

    @contextmanager
    def keep(self, data: bytes) -> Iterator[Path]:
        """The file of a picture, upright and as RGB, until the block ends.

        Raises:
            RequestError: it is no PNG, JPEG or WebP, is damaged, or has too many pixels, which is known before they are
                decoded.
        """
        path = self._folder / f"{next(self._numbers)}.png"
        try:
            self._save(data, path)
            yield path
        finally:
            path.unlink(missing_ok=True)

    def _save(self, data: bytes, path: Path) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                with Image.open(BytesIO(data), formats=_FORMATS) as picture:
                    if picture.width * picture.height > self._max_pixels:
                        raise RequestError(400, f"the picture has more than {self._max_pixels} pixels", param="image")
                    ImageOps.exif_transpose(picture).convert("RGB").save(path, "PNG", compress_level=1)
        except (Image.DecompressionBombWarning, Image.DecompressionBombError):
            raise RequestError(400, "the picture has too many pixels", param="image") from None
        except UnidentifiedImageError:
            raise RequestError(400, "the picture is no PNG, JPEG or WebP", param="image") from None
        except (OSError, ValueError, SyntaxError):  # what PIL raises of a damaged file
            raise RequestError(400, "the picture is damaged", param="image") from None
