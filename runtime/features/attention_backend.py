"""Attention backend: which kernel computes the attention of the transformer (diffusers' dispatcher)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from omni_config.plan import Plan
from runtime import compat
from runtime.errors import CannotRunError
from runtime.features.feature import Feature, Handle
from runtime.models import transformers

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch.distributed.device_mesh import DeviceMesh


def wanted(plan: Plan) -> bool:
    """Whether the Plan chooses another one than torch's own."""
    return plan.attention_backend != "native"


def apply(pipe: Any, plan: Plan, mesh: DeviceMesh | None) -> Handle:
    """Give every attention of the transformer the backend, and try it on a few tokens.

    diffusers looks for a package, but not for a device and a precision; those fail in the middle of the first step.

    Raises:
        CannotRunError: the backend's package is missing, it cannot run on this device in this precision, or this
            transformer computes its attention without asking for one.
    """
    import torch

    from runtime.device import device

    name = plan.attention_backend
    if not compat.diffusers.has_attention_backends(pipe.transformer):
        which = type(pipe.transformer).__name__
        raise CannotRunError(f"{which} computes its attention by itself; next: remove execution.attention_backend")
    try:
        _set(pipe, name)
        kernel = compat.diffusers.attention_kernel(name)
        tokens = torch.zeros(1, 16, 2, 64, dtype=getattr(torch, plan.model.dtype), device=device())
        kernel(query=tokens, key=tokens, value=tokens)
    except Exception as error:  # what the kernels' packages raise has no common class
        _set(pipe, "native")  # diffusers remembers the last one for all models
        cause = str(error).strip().partition("\n")[0].rstrip(".")
        where = f"{device().type} in {plan.model.dtype}"
        raise CannotRunError(f"attention_backend {name} cannot run on {where}: {cause}; native always can") from error
    calls = torch.zeros((), dtype=torch.int64)
    return _Backend(pipe, name, calls, compat.diffusers.replace_attention_kernel(name, _counted(kernel, calls)))


@dataclass(frozen=True, slots=True)
class _Backend(Handle):
    pipe: Any
    name: str
    calls: torch.Tensor
    patch: Callable[[], None]

    def measure(self) -> dict[str, Any]:
        """The backend, and how often it was called."""
        return {"backend": self.name, "calls": int(self.calls)}

    def undo(self) -> None:
        """Compute attention with torch's own again."""
        self.patch()
        _set(self.pipe, "native")


def _set(pipe: Any, name: str) -> None:
    for transformer in transformers(pipe):
        transformer.set_attention_backend(name)


def _counted(kernel: Callable[..., Any], calls: torch.Tensor) -> Callable[..., Any]:
    """The kernel, which counts in a tensor: for each number in Python, blocks would be compiled again."""
    import functools

    @functools.wraps(kernel)
    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.add_(1)
        return kernel(*args, **kwargs)

    return counted


FEATURE = Feature("attention_backend", catalog=("attention_backend",), wanted=wanted, apply=apply)
