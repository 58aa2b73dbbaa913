"""Input images: decoded within limits, and kept as files of the server's own naming while a request is in work."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from PIL import Image

from runtime.pipeline.media import ImageError, open_image
from runtime.serving.errors import RequestError

#: PIL's readers that need no other program and have no scripts in them.
_FORMATS = ("PNG", "JPEG", "WEBP")


class InputImages:
    """A folder of input images."""

    def __init__(self, folder: Path, max_pixels: int) -> None:
        self._folder = folder
        self._max_pixels = max_pixels
        self._numbers = itertools.count()

    def blank(self) -> Path:
        """A gray image, for warming up."""
        path = self._folder / "blank.png"
        Image.new("RGB", (64, 64), "gray").save(path)
        return path

    @contextmanager
    def keep(self, data: bytes, param: str = "image") -> Iterator[Path]:
        """The file of an image, upright and as RGB, until the block ends; ``param`` is the field that it came in.

        Raises:
            RequestError: it is no PNG, JPEG or WebP, is damaged, or has too many pixels, which is known before they are
                decoded.
        """
        path = self._folder / f"{next(self._numbers)}.png"
        try:
            self._save(data, path, param)
            yield path
        finally:
            path.unlink(missing_ok=True)

    def _save(self, data: bytes, path: Path, param: str) -> None:
        try:
            image = open_image(BytesIO(data), formats=_FORMATS, max_pixels=self._max_pixels)
        except ImageError as error:
            raise RequestError(400, f"the image {error}", param=param) from None
        image.save(path, "PNG", compress_level=1)
