"""Images that are kept for a while: files in a bounded folder, each behind a URL that is signed and expires."""

from __future__ import annotations

import hmac
import os
import re
import secrets
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from runtime.serving.errors import RequestError

_KEY_FILE = "key"
#: Files of ours; whatever else is in the folder is left alone.
_NAME = re.compile(r"[0-9a-f]{32}\.png")
_OURS = re.compile(rf"{_NAME.pattern}(\.partial)?")


@dataclass(frozen=True, slots=True)
class Link:
    """The way to one image."""

    name: str
    expires: int
    """Seconds since 1970."""
    signature: str

    @property
    def path(self) -> str:
        """Of the URL, with its query."""
        return f"/v1/files/{self.name}?expires={self.expires}&signature={self.signature}"


class Store:
    """A folder of images; it may be used again by the next server, and by several at a time.

    An image is removed when it is older than ``seconds``, and the oldest ones when all have more than ``size`` bytes.
    What the folder holds is looked up there each time, so that nothing can disagree with it.

    Raises:
        OSError: the folder cannot be used.
    """

    def __init__(self, folder: Path, *, seconds: float, size: int) -> None:
        self._folder = folder
        self._seconds = seconds
        self._size = size
        self._lock = threading.Lock()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._secret = self._shared_secret()
        self.sweep()

    def keep(self, images: Sequence[bytes]) -> list[Link]:
        """Write images, all or none.

        Raises:
            RequestError: there is no room for them.
        """
        needed = sum(map(len, images))
        if needed > self._size:
            raise RequestError(503, f"{needed} bytes of images do not fit into the store", code="store_full")
        expires = int(time.time() + self._seconds)
        names = [f"{secrets.token_hex(16)}.png" for _ in images]
        with self._lock:
            try:
                self.sweep(needed)
                for name, data in zip(names, images, strict=True):
                    partial = self._folder / f"{name}.partial"
                    partial.write_bytes(data)
                    partial.replace(self._folder / name)
            except OSError as error:
                for name in names:
                    self._remove(name)
                    self._remove(f"{name}.partial")
                message = f"the images cannot be stored: {(error.strerror or str(error)).lower()}"
                raise RequestError(503, message, code="store_failed") from None
        return [Link(name, expires, self._signature(name, str(expires))) for name in names]

    def read(self, name: str, expires: str, signature: str) -> bytes:
        """An image by the parts of its URL.

        Raises:
            RequestError: the URL is not one of ours, has expired, or its image made place for others.
        """
        expected = self._signature(name, expires).encode()
        if not _NAME.fullmatch(name) or not hmac.compare_digest(signature.encode(errors="replace"), expected):
            raise RequestError(403, "this URL is not one of this server", code="wrong_signature")
        if time.time() > int(expires):  # signed, so it is a number
            raise RequestError(410, "this URL has expired", code="expired")
        try:
            return (self._folder / name).read_bytes()
        except OSError:
            raise RequestError(404, "this image made place for newer ones", code="not_kept") from None

    def sweep(self, needed: int = 0) -> None:
        """Remove images that are too old, and the oldest ones until ``needed`` bytes have room."""
        found = []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # another server has removed it
                    if _OURS.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                        status = entry.stat(follow_symlinks=False)
                        found.append((status.st_mtime, status.st_size, entry.name))
        total = sum(size for _, size, _ in found) + needed
        too_old = time.time() - self._seconds
        for written, size, name in sorted(found):
            if written >= too_old and total <= self._size:
                break
            self._remove(name)
            total -= size

    def _remove(self, name: str) -> None:
        (self._folder / name).unlink(missing_ok=True)

    def _signature(self, name: str, expires: str) -> str:
        return hmac.digest(self._secret, f"{name} {expires}".encode(errors="replace"), "sha256").hex()

    def _shared_secret(self) -> bytes:
        """What signs: in the folder, so that a URL outlives its server; written whole, as two may start at a time."""
        path = self._folder / _KEY_FILE
        own = self._folder / f"{_KEY_FILE}.{secrets.token_hex(8)}"
        file = os.open(own, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(file, "wb") as out:
                out.write(secrets.token_bytes(32))
            with suppress(FileExistsError):
                os.link(own, path)
        finally:
            own.unlink()
        return path.read_bytes()
