"""Stages of PipeFusion that send to each other at once: gloo waits until the other receives, and NCCL does not.

Nor does gloo keep what is sent where nobody holds its handle, as xDiT 0.6 and 0.7 do not.
"""

from __future__ import annotations

import importlib
from typing import Any

FOR = "no GPU"

_sending: list[Any] = []


class _Sent:
    def wait(self) -> None:
        pass


def _kept(handle: Any, tensor: Any) -> _Sent:
    _sending.append((handle, tensor))
    return _Sent()


def apply(xfuser: Any) -> None:
    """After the import, in the group of the stages."""
    if xfuser is None:
        return
    import torch.distributed

    coordinator: Any = importlib.import_module("xfuser.core.distributed.group_coordinator").PipelineGroupCoordinator
    distributed: Any = torch.distributed
    together = distributed.batch_isend_irecv

    def send(once: Any) -> Any:
        def sent(self: Any, tensor: Any) -> Any:
            copy = tensor.clone()  # the next step may write over it
            return _kept(once(self, copy), copy)

        return sent

    def communicate(operations: list[Any]) -> list[Any]:
        handles = together(operations)
        return [
            _kept(handle, one.tensor) if one.op is distributed.isend else handle
            for one, handle in zip(operations, handles, strict=True)
        ]

    for name in ("_pipeline_isend", "_pipeline_isend_skip"):
        setattr(coordinator, name, send(getattr(coordinator, name)))
    distributed.batch_isend_irecv = communicate
