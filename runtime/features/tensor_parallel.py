"""Tensor parallelism: each rank holds a part of the heads and of the feed-forward of every block (cache-dit)."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from omni_config.plan import Plan
from runtime import compat, models
from runtime.errors import CannotRunError
from runtime.features.feature import Feature, Handle

if TYPE_CHECKING:
    from torch import nn
    from torch.distributed.device_mesh import DeviceMesh


def wanted(plan: Plan) -> bool:
    """Whether the Plan splits the weights."""
    return plan.mesh.tensor > 1


def apply(pipe: Any, plan: Plan, mesh: DeviceMesh | None) -> Handle:
    """Split the weights of the transformer's blocks; the VAE stays whole.

    Raises:
        CannotRunError: cache-dit knows no plan for this transformer, or its dimensions do not divide.
    """
    from cache_dit.distributed.config import ParallelismConfig

    assert mesh is not None
    family, patches = models.of(pipe), ExitStack()
    on_cpu = mesh.device_type == "cpu"
    if on_cpu:
        patches.callback(compat.cache_dit.split_norms_on_cpu())
    wholes = [_Whole(transformer) for transformer in models.transformers(pipe)]
    for whole in wholes:
        transformer = whole.transformer
        try:
            planner = compat.cache_dit.tensor_planner(transformer, mesh["tensor"])
            planner.apply(transformer=transformer, parallelism_config=ParallelismConfig(tp_size=plan.mesh.tensor))
        except ValueError as error:
            size = plan.mesh.tensor
            raise CannotRunError(
                f"cache-dit cannot split {family.transformer} over {size} tensor ranks: {error}"
            ) from error
        if family.heads_stay:
            compat.cache_dit.restore_heads(transformer, whole.heads)
        if on_cpu:
            compat.torch.one_reduction_at_a_time(transformer)
    return _Slices(wholes, patches)


class _Whole:
    """A transformer, and what splitting it replaces beside its weights."""

    def __init__(self, transformer: Any) -> None:
        self.transformer = transformer
        self.modules = dict(transformer.named_modules())
        self.heads = {name: module.heads for name, module in self.modules.items() if hasattr(module, "heads")}

    def restore(self) -> None:
        """Gather the weights, and put modules and numbers of heads back."""
        gather(self.transformer)
        for name, module in self.modules.items():
            if name and self.transformer.get_submodule(name) is not module:  # a norm that was split
                self.transformer.set_submodule(name, module)
        compat.cache_dit.restore_heads(self.transformer, self.heads)


@dataclass(frozen=True, slots=True)
class _Slices(Handle):
    wholes: list[_Whole]
    patches: ExitStack

    def measure(self) -> dict[str, Any]:
        """The bytes of the transformer's weights that this rank holds."""
        return {"transformer_bytes": sum(local_bytes(whole.transformer) for whole in self.wholes)}

    def undo(self) -> None:
        """Gather the weights again; every rank must call it."""
        for whole in self.wholes:
            whole.restore()
        self.patches.close()


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
                    compat.cache_dit.restore_packed_columns(module, whole.data, weight.device_mesh.size())
                module.register_parameter(name, whole)
                compat.torch.unhook(module)


FEATURE = Feature("tensor_parallel", catalog=("tensor_parallel",), wanted=wanted, apply=apply)
