"""Puts the features of a Plan onto a pipeline, in the one order that works."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omni_config.plan import Plan
from runtime.features import (
    attention_backend,
    cache_dit,
    cfg_parallel,
    compile,
    hsdp,
    lora,
    offload,
    quantization,
    sequence_parallel,
    tea_cache,
    tensor_parallel,
    text_encoder_parallel,
    vae,
    vae_patch_parallel,
)
from runtime.features.feature import Feature, Handle

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


# Adapters are read by the names and sizes of whole layers, so they come before anything is split.
# The cache wraps the blocks, and the parallel hooks must lie inside of it, so that a skipped block is skipped with its
# communication. Branches of guidance are split around all that. The VAE is independent of them.
# Sharding gives the blocks other classes, by whose names libraries know them.
# Offload moves what all of them have made.
ORDER: tuple[Feature, ...] = (
    lora.FEATURE,
    cache_dit.FEATURE,
    tea_cache.FEATURE,
    sequence_parallel.FEATURE,
    tensor_parallel.FEATURE,
    text_encoder_parallel.FEATURE,
    quantization.FEATURE,
    attention_backend.FEATURE,
    cfg_parallel.FEATURE,
    vae.FEATURE,
    vae_patch_parallel.FEATURE,
    compile.FEATURE,
    hsdp.FEATURE,
    offload.FEATURE,
)


def apply(pipe: Any, plan: Plan, mesh: DeviceMesh | None) -> dict[str, Handle]:
    """Switch on what the Plan asks for; the features that are on now by name, in the order in which they were applied.

    Raises:
        CannotRunError: a feature cannot run on this pipeline.
    """
    return {feature.name: feature.apply(pipe, plan, mesh) for feature in ORDER if feature.wanted(plan)}


def undo(handles: dict[str, Handle]) -> None:
    """Switch the features off again, the last one first; the pipeline computes what it did before ``apply``."""
    for handle in reversed(handles.values()):
        handle.undo()
