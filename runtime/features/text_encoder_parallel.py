"""Tensor parallelism of the text encoder: each tensor rank holds a part of its heads and feed-forward (cache-dit)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omni_config.plan import Plan
from runtime import compat
from runtime.errors import CannotRunError
from runtime.features.tensor_parallel import gather, local_bytes

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


def wanted(plan: Plan) -> bool:
    """Whether the Plan splits the text encoder."""
    return plan.text_encoder_tensor_parallel and plan.mesh.tensor > 1


def encoder_of(pipe: Any) -> Any:
    """The encoder that is split: the only one, or FLUX's T5, beside which its CLIP is small."""
    return getattr(pipe, "text_encoder_2", None) or pipe.text_encoder


def apply(pipe: Any, plan: Plan, mesh: DeviceMesh | None) -> None:
    """Split the weights of the encoder's blocks over the tensor ranks, which have the same prompt.

    Raises:
        CannotRunError: cache-dit knows no plan for this encoder.
    """
    from cache_dit.distributed.config import ParallelismConfig
    from cache_dit.distributed.text_encoders.dispatch import _ensure_text_encoder_tp_planners_activated
    from cache_dit.distributed.text_encoders.register import TextEncoderTensorParallelismPlannerRegister

    assert mesh is not None
    _ensure_text_encoder_tp_planners_activated()
    encoder = encoder_of(pipe)
    encoder._omni_sizes = [(module, module.n_heads, module.inner_dim) for module in _attentions_of_t5(encoder)]
    try:
        planner = TextEncoderTensorParallelismPlannerRegister.get_planner(encoder)()
    except ValueError as error:
        raise CannotRunError(f"cache-dit cannot split the encoder {type(encoder).__name__}") from error
    planner.mesh = lambda *_, **__: mesh["tensor"]  # its own would span the world
    planner.apply(text_encoder=encoder, parallelism_config=ParallelismConfig(tp_size=plan.mesh.tensor))
    if mesh.device_type == "cpu":
        compat.one_reduction_at_a_time(encoder)


def measure(pipe: Any) -> dict[str, Any]:
    """The bytes of the text encoder's weights that this rank holds."""
    return {"text_encoder_bytes": local_bytes(encoder_of(pipe))}


def undo(pipe: Any) -> None:
    """Gather the weights again; every rank must call it."""
    encoder = encoder_of(pipe)
    gather(encoder)
    for module, heads, width in encoder._omni_sizes:
        module.n_heads, module.inner_dim = heads, width


def _attentions_of_t5(encoder: Any) -> list[Any]:
    return [module for module in encoder.modules() if hasattr(module, "n_heads") and hasattr(module, "inner_dim")]
