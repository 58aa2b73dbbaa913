"""Puts the features of a Plan onto a pipeline, in the one order that works."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol, cast

from omni_config.plan import Plan
from runtime.features import (
    attention_backend,
    cache_dit,
    cfg_parallel,
    compile,
    lora,
    offload,
    sequence_parallel,
    tea_cache,
    tensor_parallel,
    text_encoder_parallel,
    vae,
    vae_patch_parallel,
)

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


class Feature(Protocol):
    """The surface of every module in ``runtime.features``."""

    __name__: str

    def wanted(self, plan: Plan) -> bool:
        """Whether the Plan switches it on."""

    def apply(self, pipe: Any, plan: Plan, mesh: DeviceMesh | None) -> None:
        """Switch it on; raises CannotRunError where this pipeline does not allow it."""

    def measure(self, pipe: Any) -> dict[str, Any]:
        """What shows, after a call of the pipeline, that it was on; JSON-ready."""

    def undo(self, pipe: Any) -> None:
        """Switch it off again; the pipeline computes what it did before ``apply``."""


# Adapters fit whole layers only, so they come before anything is split.
# The cache wraps the blocks, and the parallel hooks must lie inside of it, so that a skipped block is skipped with its
# communication. Branches of guidance are split around all that. The VAE is independent of them.
# Offload moves what all of them have made.
_MODULES: tuple[ModuleType, ...] = (
    lora,
    cache_dit,
    tea_cache,
    sequence_parallel,
    tensor_parallel,
    text_encoder_parallel,
    attention_backend,
    cfg_parallel,
    vae,
    vae_patch_parallel,
    compile,
    offload,
)
ORDER = cast("tuple[Feature, ...]", _MODULES)


def apply(pipe: Any, plan: Plan, mesh: DeviceMesh | None) -> tuple[Feature, ...]:
    """Switch on what the Plan asks for; the features that are on now, in the order in which they were applied.

    Raises:
        CannotRunError: a feature cannot run on this pipeline.
    """
    features = tuple(feature for feature in ORDER if feature.wanted(plan))
    for feature in features:
        feature.apply(pipe, plan, mesh)
    return features


def adapt(features: tuple[Feature, ...], pipe: Any, plan: Plan) -> None:
    """Prepare the features that are on for a call whose sampling differs from that of the call before.

    Raises:
        CannotRunError: a feature cannot run with this sampling.
    """
    for feature in features:
        if hasattr(feature, "adapt"):
            feature.adapt(pipe, plan)
