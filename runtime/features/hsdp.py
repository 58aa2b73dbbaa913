"""HSDP: ranks share the weights of the transformer, and gather those of a block when its turn comes (torch's FSDP2).

All ranks stand in rows: those of a row hold one copy of the weights between them, and each row holds the same. Each
rank reads no more than what it holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from omni_config.plan import Plan
from runtime import compat, models, weights
from runtime.errors import CannotRunError
from runtime.features.feature import Feature, Handle

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.distributed.device_mesh import DeviceMesh

    from runtime.models.family import Family


def wanted(plan: Plan) -> bool:
    """Whether the Plan shards the weights."""
    return plan.hsdp is not None


def apply(pipe: Any, plan: Plan, mesh: DeviceMesh | None) -> Handle:
    """Read this rank's share of each weight, and hook the blocks, which gather theirs before they compute.

    What is in no block is gathered in the first step, and stays.

    Raises:
        CannotRunError: the weights would be offloaded, too: FSDP2 gathers shards from where they were when it hooked.
    """
    import torch
    from torch.distributed.device_mesh import init_device_mesh

    assert mesh is not None
    assert plan.hsdp is not None
    if plan.offload != "none":
        raise CannotRunError("shards of HSDP cannot be offloaded; next: set parallel.use_hsdp or the offload to false")
    shape = (plan.hsdp.replicate, plan.hsdp.shard)
    rows = init_device_mesh(mesh.device_type, shape, mesh_dim_names=("replicate", "shard"))
    read = weights.Read()
    for transformer in models.transformers(pipe):
        _shard(transformer, models.of(pipe), rows, getattr(torch, plan.model.dtype), read)
    return _Shards(pipe, read.bytes)


def _shard(transformer: nn.Module, family: Family, rows: DeviceMesh, dtype: torch.dtype, read: weights.Read) -> None:
    from torch import nn
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor

    mapped = {}
    for path, module in transformer.named_modules():
        for own, weight in list(module.named_parameters(recurse=False)):
            mapped[f"{path}.{own}" if path else own] = weight.data
            module.register_parameter(own, nn.Parameter(weight.to("meta"), requires_grad=False))
    for name in (*family.blocks, *family.lists_of_their_own):
        for block in getattr(transformer, name, ()):
            fully_shard(block, mesh=rows)
    known_as = type(transformer).__name__
    fully_shard(transformer, mesh=rows)
    type(transformer).__name__ = known_as  # FSDP2 makes a class of its own, and families go by the name
    parts, index = rows.size(1), rows.get_local_rank("shard")
    for path, module in transformer.named_modules():  # one at a time, as FSDP2 pads some shards in copies
        held = {}
        for own, weight in module.named_parameters(recurse=False):
            assert isinstance(weight, DTensor)
            name = f"{path}.{own}" if path else own
            share = weights.share(mapped.pop(name), 0, parts, index)
            local = read.to_device(share, compat.diffusers.precision(transformer, name, dtype))
            held[own] = DTensor.from_local(
                local, rows, weight.placements, run_check=False, shape=weight.shape, stride=weight.stride()
            )
        module.load_state_dict(held, assign=True, strict=False)  # what is in it has its own turn


@dataclass(frozen=True, slots=True)
class _Shards(Handle):
    pipe: Any
    bytes_read: int

    def measure(self) -> dict[str, Any]:
        """The bytes of the transformer's weights that this rank holds between two calls, and that it has read."""
        held = sum(compat.torch.bytes_of_shards(transformer) for transformer in models.transformers(self.pipe))
        return {"transformer_bytes": held, "bytes_read": self.bytes_read}

    def undo(self) -> None:
        """Gather the weights for good; every rank must call it."""
        for transformer in models.transformers(self.pipe):
            compat.torch.unshard(transformer)


FEATURE = Feature("hsdp", catalog=("hsdp",), wanted=wanted, apply=apply)
