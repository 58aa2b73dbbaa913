"""Tensor parallelism: each rank holds a part of the heads and of the feed-forward of every block (cache-dit)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omni_config.plan import Plan
from runtime import compat
from runtime.errors import CannotRunError
from runtime.features import transformers

if TYPE_CHECKING:
    from torch import nn
    from torch.distributed.device_mesh import DeviceMesh


def wanted(plan: Plan) -> bool:
    """Whether the Plan splits the weights."""
    return plan.mesh.tensor > 1


def apply(pipe: Any, plan: Plan, mesh: DeviceMesh | None) -> None:
    """Split the weights of the transformer's blocks; the VAE stays whole.

    Raises:
        CannotRunError: cache-dit knows no plan for this transformer, or its dimensions do not divide.
    """
    from cache_dit.distributed.config import ParallelismConfig
    from cache_dit.distributed.transformers.dispatch import _ensure_tp_planners_activated
    from cache_dit.distributed.transformers.register import TensorParallelismPlannerRegister

    assert mesh is not None
    _ensure_tp_planners_activated()
    if mesh.device_type == "cpu":
        compat.split_norms_on_cpu()
    for transformer in transformers(pipe):
        transformer._omni_heads = {name: module.heads for name, module in _attentions(transformer)}
        transformer._omni_modules = dict(transformer.named_modules())
        try:
            planner = TensorParallelismPlannerRegister.get_planner(transformer)()
            planner.mesh = lambda *_, **__: mesh["tensor"]  # its own would span the world
            planner.apply(transformer=transformer, parallelism_config=ParallelismConfig(tp_size=plan.mesh.tensor))
            compat.restore_heads(transformer, transformer._omni_heads)
            if mesh.device_type == "cpu":
                compat.one_reduction_at_a_time(transformer)
        except ValueError as error:
            name, size = type(transformer).__name__, plan.mesh.tensor
            raise CannotRunError(f"cache-dit cannot split {name} over {size} tensor ranks: {error}") from error


def measure(pipe: Any) -> dict[str, Any]:
    """The bytes of the transformer's weights that this rank holds."""
    return {"transformer_bytes": sum(local_bytes(transformer) for transformer in transformers(pipe))}


def undo(pipe: Any) -> None:
    """Gather the weights again; every rank must call it."""
    for transformer in transformers(pipe):
        gather(transformer)
        for name, module in transformer._omni_modules.items():
            if name and transformer.get_submodule(name) is not module:  # a norm that was split
                transformer.set_submodule(name, module)
        for name, module in _attentions(transformer):
            module.heads = transformer._omni_heads[name]


def local_bytes(model: nn.Module) -> int:
    """The bytes of a model's weights that this rank holds."""
    from torch.distributed.tensor import DTensor

    weights = [weight.to_local() if isinstance(weight, DTensor) else weight for weight in model.parameters()]
    return sum(weight.numel() * weight.element_size() for weight in weights)


def gather(model: nn.Module) -> None:
    """Make every split layer of a model whole again; every rank must call it."""
    from torch import nn
    from torch.distributed.tensor import DTensor

    for module in model.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            if isinstance(weight, DTensor):
                whole = nn.Parameter(weight.full_tensor().detach(), requires_grad=weight.requires_grad)
                if name == "weight":
                    compat.restore_packed_columns(module, whole.data, weight.device_mesh.size())
                module.register_parameter(name, whole)
                module._forward_pre_hooks.clear()  # of a split layer: they turn its inputs and outputs into DTensors
                module._forward_hooks.clear()


def _attentions(transformer: Any) -> list[tuple[str, Any]]:
    return [(name, module) for name, module in transformer.named_modules() if hasattr(module, "heads")]
