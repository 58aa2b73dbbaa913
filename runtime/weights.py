"""Weights on their way from the files to a device.

The libraries map safetensors files into memory (safetensors 0.8): a loaded model is no more than addresses, and what is
read is what is used. So a rank that keeps a part of a weight copies that part to its device, and reads no more than it;
what several ranks of a machine read, they read from the same page cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from runtime import compat

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.distributed.device_mesh import DeviceMesh


class Read:
    """The bytes of files that were copied to a device, by tensor parallelism or HSDP of a model."""

    def __init__(self) -> None:
        self.bytes = 0

    def to_device(self, part: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """A copy of a mapped weight, or of a part of it, on this rank's device."""
        import torch

        from runtime.device import device

        self.bytes += part.nbytes
        copied = torch.empty(part.shape, dtype=dtype, device=device())
        return copied.copy_(part)


def place(model: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Move a whole model to a device, one weight at a time; where it is there in this precision, it stays mapped."""
    for name, weight in model.state_dict(keep_vars=True).items():
        if weight.is_floating_point():
            weight.data = weight.data.to(device, compat.diffusers.precision(model, name, dtype))
    model.to(device)  # buffers that are in no file, and numbers


def share(weight: torch.Tensor, dim: int, parts: int, index: int, blocks: Sequence[int] = ()) -> torch.Tensor:
    """One of equal parts of a weight along a dim, the last of which may be smaller or empty, as torch counts them.

    Where the dim is of ``blocks`` side by side, a part of each.
    """
    import torch

    pieces = []
    for block in torch.split(weight, list(blocks), dim) if blocks else [weight]:
        size = -(-block.shape[dim] // parts)
        start = min(index * size, block.shape[dim])
        pieces.append(block.narrow(dim, start, min(size, block.shape[dim] - start)))
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim)


@contextmanager
def read_by_slices(model: nn.Module, dtype: torch.dtype, mesh: DeviceMesh) -> Iterator[Read]:
    """While it is open, torch's tensor parallel styles take this rank's slices of a mapped model to its device.

    What they leave whole, as norms, is there at the end, too. ``dtype`` is the precision of the pipeline.
    """
    from torch import nn
    from torch.distributed.tensor import DTensor, Shard

    from runtime.device import device

    read = Read()
    packed = compat.cache_dit.packed_columns(model)
    mapped: dict[int, torch.Tensor] = {}
    for name, weight in list(model.named_parameters()):
        if weight.ndim < 2:  # planners take parts of vectors by themselves
            weight.data = read.to_device(weight.data, compat.diffusers.precision(model, name, dtype))
        elif name in packed:  # whose columns the planner would rearrange in a copy of the whole
            layer, _, own = name.rpartition(".")
            empty = nn.Parameter(weight.to("meta"), requires_grad=weight.requires_grad)
            mapped[id(empty)] = weight.data
            model.get_submodule(layer).register_parameter(own, empty)
    names = {id(weight): name for name, weight in model.named_parameters()}

    def split(weight: torch.Tensor, placement: Any) -> DTensor:
        name, part = names[id(weight)], mapped.get(id(weight), weight.data)
        if isinstance(placement, Shard):
            blocks = packed.get(name, ()) if placement.dim == 1 else ()
            part = share(part, placement.dim, mesh.size(), mesh.get_local_rank(), blocks)
        if weight.ndim < 2:
            local = part.clone()
        else:
            local = read.to_device(part, compat.diffusers.precision(model, name, dtype))
        return DTensor.from_local(local, mesh, [placement], run_check=False, shape=weight.shape, stride=weight.stride())

    with compat.torch.tensor_parallel_styles_split_by(split):
        yield read
    for name, weight in model.named_parameters():
        if not isinstance(weight, DTensor) and weight.ndim > 1:
            weight.data = read.to_device(weight.data, compat.diffusers.precision(model, name, dtype))
    model.to(device())  # buffers
