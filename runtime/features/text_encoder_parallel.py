"""Tensor parallelism of the text encoder: each tensor rank holds a part of its heads and feed-forward (cache-dit)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from omni_config.plan import Plan
from runtime import compat, models, weights
from runtime.errors import CannotRunError
from runtime.features.feature import Feature, Handle
from runtime.features.tensor_parallel import gather, local_bytes

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


def wanted(plan: Plan) -> bool:
    """Whether the Plan splits the text encoder."""
    return plan.text_encoder_tensor_parallel and plan.mesh.tensor > 1


def encoder_of(pipe: Any) -> Any:
    """The encoder that is split: the only one, or the one that is worth it.

    Raises:
        CannotRunError: the pipeline is of no family that is known.
    """
    return getattr(pipe, models.of(pipe).text_encoder)


def apply(pipe: Any, plan: Plan, mesh: DeviceMesh | None) -> Handle:
    """Read this rank's share of the encoder's blocks; the tensor ranks have the same prompt.

    Raises:
        CannotRunError: cache-dit knows no plan for this encoder.
    """
    import torch
    from cache_dit.distributed.config import ParallelismConfig

    assert mesh is not None
    encoder = encoder_of(pipe)
    sizes = [(module, module.n_heads, module.inner_dim) for module in _attentions_of_t5(encoder)]
    try:
        planner = compat.cache_dit.text_encoder_planner(encoder, mesh["tensor"])
    except ValueError as error:
        raise CannotRunError(f"cache-dit cannot split the encoder {type(encoder).__name__}") from error
    with weights.read_by_slices(encoder, getattr(torch, plan.model.dtype), mesh["tensor"]) as read:
        planner.apply(text_encoder=encoder, parallelism_config=ParallelismConfig(tp_size=plan.mesh.tensor))
    if mesh.device_type == "cpu":
        compat.torch.one_reduction_at_a_time(encoder)
    return _Slices(encoder, sizes, read.bytes)


@dataclass(frozen=True, slots=True)
class _Slices(Handle):
    encoder: Any
    sizes: list[tuple[Any, int, int]]  # attentions of a T5, with the heads and the width that they had
    bytes_read: int

    def measure(self) -> dict[str, Any]:
        """The bytes of the text encoder's weights that this rank holds, and that it has read."""
        return {"text_encoder_bytes": local_bytes(self.encoder), "bytes_read": self.bytes_read}

    def undo(self) -> None:
        """Gather the weights again; every rank must call it."""
        gather(self.encoder, {})
        for module, heads, width in self.sizes:
            module.n_heads, module.inner_dim = heads, width


def _attentions_of_t5(encoder: Any) -> list[Any]:
    return [module for module in encoder.modules() if hasattr(module, "n_heads") and hasattr(module, "inner_dim")]


FEATURE = Feature("text_encoder_parallel", catalog=("text_encoder_parallel",), wanted=wanted, apply=apply)
