"""Tensor parallelism: each rank holds a part of the heads and of the feed-forward of every block (cache-dit).

It reads no more than that part. Adapters are added to the slices: beside them, with the sizes of whole layers, they
would not fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from omni_config.plan import Plan
from runtime import compat, models, weights
from runtime.errors import CannotRunError
from runtime.features.feature import Feature, Handle

if TYPE_CHECKING:
    from torch import nn
    from torch.distributed.device_mesh import DeviceMesh


def wanted(plan: Plan) -> bool:
    """Whether the Plan splits the weights."""
    return plan.mesh.tensor > 1


def apply(pipe: Any, plan: Plan, mesh: DeviceMesh | None) -> Handle:
    """Read this rank's share of the transformer's blocks, and add that of the adapters; the VAE stays whole.

    Raises:
        CannotRunError: cache-dit knows no plan for this transformer, or its dimensions do not divide.
    """
    import torch
    from cache_dit.distributed.config import ParallelismConfig

    assert mesh is not None
    family, patches = models.of(pipe), ExitStack()
    on_cpu = mesh.device_type == "cpu"
    wholes, read = [_Whole(transformer) for transformer in models.transformers(pipe)], 0
    for whole in wholes:
        transformer = whole.transformer
        try:
            planner = compat.cache_dit.tensor_planner(transformer, mesh["tensor"])
            if on_cpu:  # not before, as that makes Wan's planner the only one that cache-dit knows
                patches.callback(compat.cache_dit.split_norms_on_cpu())
            with weights.read_by_slices(transformer, getattr(torch, plan.model.dtype), mesh["tensor"]) as reader:
                planner.apply(transformer=transformer, parallelism_config=ParallelismConfig(tp_size=plan.mesh.tensor))
        except ValueError as error:
            size = plan.mesh.tensor
            raise CannotRunError(
                f"cache-dit cannot split {family.transformer} over {size} tensor ranks: {error}"
            ) from error
        read += reader.bytes
        if family.heads_stay:
            compat.cache_dit.restore_heads(transformer, whole.heads)
        if on_cpu:
            compat.torch.one_reduction_at_a_time(transformer)
        whole.merge(1)
    return _Slices(wholes, patches, read)


class _Whole:
    """A transformer, and what splitting it replaces beside its weights: layers with adapters, norms, and heads."""

    def __init__(self, transformer: Any) -> None:
        from peft.tuners.tuners_utils import BaseTunerLayer

        self.transformer = transformer
        modules = dict(transformer.named_modules())
        self.adapted = {name: layer for name, layer in modules.items() if isinstance(layer, BaseTunerLayer)}
        for name, layer in self.adapted.items():
            transformer.set_submodule(name, layer.get_base_layer())
        self.modules = dict(transformer.named_modules())
        self.heads = {name: module.heads for name, module in self.modules.items() if hasattr(module, "heads")}
        self.packed = compat.cache_dit.packed_columns(transformer)

    def merge(self, sign: int) -> None:
        """Add the adapters to this rank's slices, a layer at a time, or take them off."""
        import torch
        from torch.distributed.tensor import DTensor, Shard

        for name, layer in self.adapted.items():
            weight = layer.get_base_layer().weight.data
            adapters = layer.to(weight.device)
            for adapter in adapters.active_adapters:
                change = adapters.get_delta_weight(adapter)
                local = weight
                if isinstance(weight, DTensor):
                    [placement], mesh, local = weight.placements, weight.device_mesh, weight.to_local()
                    if isinstance(placement, Shard):
                        blocks = self.packed.get(f"{name}.weight", ()) if placement.dim == 1 else ()
                        change = weights.share(change, placement.dim, mesh.size(), mesh.get_local_rank(), blocks)
                with torch.no_grad():
                    local.add_(change.to(local.dtype), alpha=sign)

    def restore(self) -> None:
        """Gather the weights, and put layers, norms and numbers of heads back."""
        self.merge(-1)
        gather(self.transformer, self.packed)
        for name, module in self.modules.items():
            if name and self.transformer.get_submodule(name) is not module:  # a norm that was split
                self.transformer.set_submodule(name, module)
        for name, layer in self.adapted.items():
            self.transformer.set_submodule(name, layer)
        compat.cache_dit.restore_heads(self.transformer, self.heads)


@dataclass(frozen=True, slots=True)
class _Slices(Handle):
    wholes: list[_Whole]
    patches: ExitStack
    bytes_read: int

    def measure(self) -> dict[str, Any]:
        """The bytes of the transformer's weights that this rank holds, and that it has read."""
        held = sum(local_bytes(whole.transformer) for whole in self.wholes)
        return {"transformer_bytes": held, "bytes_read": self.bytes_read}

    def undo(self) -> None:
        """Gather the weights again; every rank must call it."""
        for whole in self.wholes:
            whole.restore()
        self.patches.close()


def local_bytes(model: nn.Module) -> int:
    """The bytes of a model's weights that this rank holds."""
    return sum(map(bytes_of, model.parameters()))


def bytes_of(weight: Any) -> int:
    """The bytes of a weight that this rank holds; a quantized one has its scale beside it."""
    from torch.distributed.tensor import DTensor

    parts = (weight.qdata, weight.scale) if hasattr(weight, "qdata") else (weight,)
    return sum((part.to_local() if isinstance(part, DTensor) else part).nbytes for part in parts)


def gather(model: nn.Module, packed: Mapping[str, Sequence[int]]) -> None:
    """Make every split layer of a model whole again; every rank must call it. ``packed``: blocks of columns, if any."""
    from torch import nn
    from torch.distributed.tensor import DTensor

    for path, module in model.named_modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            if isinstance(weight, DTensor):
                whole = nn.Parameter(weight.full_tensor().detach(), requires_grad=weight.requires_grad)
                if blocks := packed.get(f"{path}.{name}"):
                    compat.cache_dit.restore_packed_columns(whole.data, blocks, weight.device_mesh.size())
                module.register_parameter(name, whole)
                compat.torch.unhook(module)


FEATURE = Feature("tensor_parallel", catalog=("tensor_parallel",), wanted=wanted, apply=apply)
