"""FSDP on the CPU: xDiT 0.6 and 0.7 give it the number of a GPU."""

from __future__ import annotations

import importlib
from typing import Any

FOR = "no GPU"


def apply(xfuser: Any) -> None:
    """After the import, in the module that shards."""
    if xfuser is None:
        return
    import torch

    module: Any = importlib.import_module("xfuser.core.distributed.sharding")

    class OnCpu(module.FSDP):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs | {"device_id": torch.device("cpu")})

    module.FSDP = OnCpu
