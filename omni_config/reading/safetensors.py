"""Headers of safetensors files: how many numbers of each dtype they hold. No weights are read."""

from __future__ import annotations

import json
from collections import Counter
from math import prod
from pathlib import Path

#: Bytes of a header: that of 100 billion parameters has about 2 MB.
MOST = 32_000_000


def numbers_of(path: Path, most: int = MOST) -> tuple[Counter[str], int]:
    """Numbers by dtype, in the words of the format, and the bytes of the header, of which ``most`` are read.

    Raises:
        ValueError: the file cannot be read, its header is damaged, or it is larger than any real one.
    """
    where, numbers = f"{path.name} of {path.parent.name}", Counter[str]()
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= most:
                raise ValueError
            header = json.loads(file.read(length))
        for name, tensor in header.items():
            if name != "__metadata__":
                dtype, shape = tensor["dtype"], tensor["shape"]
                if not isinstance(dtype, str) or not all(type(size) is int and 0 <= size < 1 << 40 for size in shape):
                    raise ValueError
                numbers[dtype] += prod(shape[:8])
    except OSError as error:
        raise ValueError(f"{where}: {(error.strerror or 'unreadable').lower()}") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ValueError(f"{where} has no readable header") from None
    return numbers, length
