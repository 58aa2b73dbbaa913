"""Tensor parallelism: each rank holds a part of the heads and of the feed-forward of every block (cache-dit)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omni_config.plan import Plan
from runtime import compat
from runtime.errors import CannotRunError

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


def wanted(plan: Plan) -> bool:
    """Whether the Plan splits the weights."""
    return plan.mesh.tensor > 1


def apply(pipe: Any, plan: Plan, mesh: DeviceMesh | None) -> None:
    """Split the weights of the transformer's blocks; the text encoder and the VAE stay whole.

    Raises:
        CannotRunError: cache-dit knows no plan for this transformer, or its dimensions do not divide.
    """
    from cache_dit.distributed.config import ParallelismConfig
    from cache_dit.distributed.transformers.dispatch import _ensure_tp_planners_activated
    from cache_dit.distributed.transformers.register import TensorParallelismPlannerRegister

    assert mesh is not None
    transformer = pipe.transformer
    transformer._omni_heads = {name: module.heads for name, module in _attentions(transformer)}
    _ensure_tp_planners_activated()
    try:
        planner = TensorParallelismPlannerRegister.get_planner(transformer)()
        planner.mesh = lambda *_, **__: mesh["tensor"]  # its own would span the world
        planner.apply(transformer=transformer, parallelism_config=ParallelismConfig(tp_size=plan.mesh.tensor))
        compat.restore_heads(transformer, transformer._omni_heads)
    except ValueError as error:
        name, size = type(transformer).__name__, plan.mesh.tensor
        raise CannotRunError(f"cache-dit cannot split {name} over {size} tensor ranks: {error}") from error


def measure(pipe: Any) -> dict[str, Any]:
    """The bytes of the transformer's weights that this rank holds."""
    from torch.distributed.tensor import DTensor

    weights = [weight.to_local() if isinstance(weight, DTensor) else weight for weight in pipe.transformer.parameters()]
    return {"transformer_bytes": sum(weight.numel() * weight.element_size() for weight in weights)}


def undo(pipe: Any) -> None:
    """Gather the weights again; every rank must call it."""
    from torch import nn
    from torch.distributed.tensor import DTensor

    for module in pipe.transformer.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            if isinstance(weight, DTensor):
                whole = nn.Parameter(weight.full_tensor().detach(), requires_grad=weight.requires_grad)
                module.register_parameter(name, whole)
                module._forward_pre_hooks.clear()  # of a split layer: they turn its inputs and outputs into DTensors
                module._forward_hooks.clear()
    for name, module in _attentions(pipe.transformer):
        module.heads = pipe.transformer._omni_heads[name]


def _attentions(transformer: Any) -> list[tuple[str, Any]]:
    return [(name, module) for name, module in transformer.named_modules() if hasattr(module, "heads")]
