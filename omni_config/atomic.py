"""A file is written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a file, or make it; the permissions of one that is there stay.

    Raises:
        OSError: the folder cannot be written, or the disk is full; the file is then as it was.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_bytes(data)
        if path.exists():
            partial.chmod(path.stat().st_mode & 0o777)
        partial.replace(path)
    except BaseException:  # an interrupt too leaves nothing behind
        partial.unlink(missing_ok=True)
        raise
