"""Attention backend: which kernel computes the attention of the transformer (diffusers' dispatcher)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from omni_config.plan import Plan
from runtime import compat, models
from runtime.errors import CannotRunError
from runtime.features.feature import Feature, Handle

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch.distributed.device_mesh import DeviceMesh


def wanted(plan: Plan) -> bool:
    """Whether the Plan chooses another one than torch's own."""
    return plan.attention_backend != "native"


def apply(pipe: Any, plan: Plan, mesh: DeviceMesh | None) -> Handle:
    """Give every attention of the transformer the backend, once it has been tried on a few tokens.

    diffusers looks for a package, but not for a device and a precision; those fail in the middle of the first step.
    ``auto`` is the first that runs here and changes nothing; why it is that one is in the report.

    Raises:
        CannotRunError: the backend's package is missing, it cannot run on this device in this precision, or this
            transformer computes its attention without asking for one.
    """
    name = plan.attention_backend
    if not compat.diffusers.has_attention_backends(pipe.transformer):
        which = type(pipe.transformer).__name__
        raise CannotRunError(f"{which} computes its attention by itself; next: remove execution.attention_backend")
    if name == "auto":
        return _chosen(pipe, plan)
    if cause := _try(pipe, plan, name):
        raise CannotRunError(f"attention_backend {name} cannot run on {_where(plan)}: {cause}; native always can")
    return _counting(pipe, name, "it is what the config names")


def _chosen(pipe: Any, plan: Plan) -> Handle:
    """The first backend that runs here, or native; those before it with their reasons."""
    import torch

    if not torch.cuda.is_available():
        return _counting(pipe, "native", "there is no GPU, and a CPU has no other")
    passed = ["sage: it rounds, so only a config that names it gets it"]
    masked = models.of(pipe).masked or (plan.guidance_calls == "batched" and plan.mesh.cfg == 1)
    shared = plan.mesh.ulysses * plan.mesh.ring > 1
    for name in ("_flash_3", "flash", "_native_cudnn"):
        if masked and name != "_native_cudnn":
            passed.append(f"{name}: it takes no mask, which this model needs")
        elif shared and name == "_native_cudnn":
            passed.append(f"{name}: cache-dit does not share a sequence with it")
        elif cause := _try(pipe, plan, name):
            passed.append(f"{name}: {cause}")
        else:
            return _counting(pipe, name, "; ".join([*passed, f"{name}: it runs on {_where(plan)}"]))
    return _counting(pipe, "native", "; ".join(passed))


def _where(plan: Plan) -> str:
    from runtime.device import device

    return f"{device().type} in {plan.model.dtype}"


def _try(pipe: Any, plan: Plan, name: str) -> str | None:
    """Set a backend, and compute with it; why that fails, in one line, or None."""
    import torch

    from runtime.device import device

    try:
        _set(pipe, name)
        kernel = compat.diffusers.attention_kernel(name)
        tokens = torch.zeros(1, 16, 2, 64, dtype=getattr(torch, plan.model.dtype), device=device())
        kernel(query=tokens, key=tokens, value=tokens)
    except Exception as error:  # what the kernels' packages raise has no common class
        _set(pipe, "native")  # diffusers remembers the last one for all models
        return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
    return None


def _counting(pipe: Any, name: str, why: str) -> Handle:
    import torch

    calls = torch.zeros((), dtype=torch.int64)
    counted = _counted(compat.diffusers.attention_kernel(name), calls)
    return _Backend(pipe, name, why, calls, compat.diffusers.replace_attention_kernel(name, counted))


@dataclass(frozen=True, slots=True)
class _Backend(Handle):
    pipe: Any
    name: str
    why: str
    calls: torch.Tensor
    patch: Callable[[], None]

    def measure(self) -> dict[str, Any]:
        """The backend, why it is that one, and how often it was called."""
        return {"backend": self.name, "why": self.why, "calls": int(self.calls)}

    def undo(self) -> None:
        """Compute attention with torch's own again."""
        self.patch()
        _set(self.pipe, "native")


def _set(pipe: Any, name: str) -> None:
    for transformer in models.transformers(pipe):
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
