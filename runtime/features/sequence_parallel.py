"""Sequence parallelism (cache-dit): ranks share the tokens of the transformer's blocks.

Ulysses swaps tokens for heads in each attention; in a ring, keys and values travel from rank to rank. With both, a
ring of Ulysses groups.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from omni_config.plan import Plan
from runtime import compat, models
from runtime.errors import CannotRunError
from runtime.features.feature import Feature, Handle

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.distributed.device_mesh import DeviceMesh


def wanted(plan: Plan) -> bool:
    """Whether the Plan splits the sequence."""
    return plan.mesh.ulysses * plan.mesh.ring > 1


def apply(pipe: Any, plan: Plan, mesh: DeviceMesh | None) -> Handle:
    """Hook the transformer: its blocks see a share of the tokens, its last layer gathers them.

    cache-dit's planner and hooks are called one by one, with a part of our mesh.

    Raises:
        CannotRunError: cache-dit knows no plan for this transformer.
    """
    from cache_dit.distributed.config import ParallelismConfig

    from runtime.device import device

    assert mesh is not None
    family, patches = models.of(pipe), ExitStack()
    uneven = family.padded_to % (plan.mesh.ulysses * plan.mesh.ring) > 0
    if plan.mesh.ring > 1 and mesh.device_type == "cpu":
        patches.callback(compat.cache_dit.ring_attention_on_cpu())
    if uneven and mesh.device_type == "cpu":
        patches.callback(compat.cache_dit.gather_uneven_parts_on_cpu())
    if uneven and plan.mesh.ring > 1:
        patches.callback(compat.cache_dit.ring_attention_of_uneven_parts())
    try:
        planner = compat.cache_dit.sequence_planner(pipe.transformer)
    except ValueError as error:
        raise CannotRunError(f"cache-dit cannot split the sequence of {family.transformer}") from error
    degrees = ParallelismConfig(ulysses_size=plan.mesh.ulysses, ring_size=plan.mesh.ring)
    part = mesh["ring", "ulysses"]
    counts = []
    for transformer in models.transformers(pipe):
        hooks = planner.apply(transformer=transformer, parallelism_config=degrees)
        if family.text_stays_whole:
            hooks = compat.cache_dit.leave_text_whole(hooks)
        hooks = compat.cache_dit.split_single_layers(transformer, family.lists_of_their_own, hooks)
        patches.callback(compat.cache_dit.share_tokens(transformer, hooks, part, device(), uneven))
        if family.mask is not None:
            patches.callback(compat.cache_dit.order_mask(transformer, family.mask, part.size()))
        transformer.set_attention_backend("native")
        tokens, handles = _count_tokens(transformer)
        counts.append(tokens)
        for handle in handles:
            patches.callback(handle.remove)
    return _SharedTokens(counts, patches)


@dataclass(frozen=True, slots=True)
class _SharedTokens(Handle):
    counts: list[torch.Tensor]
    patches: ExitStack  # of hooks and of libraries

    def measure(self) -> dict[str, Any]:
        """The most tokens of one image that an attention of this rank was given."""
        return {"tokens_per_rank": max(int(tokens) for tokens in self.counts)}

    def undo(self) -> None:
        """Take the hooks off; every rank computes all tokens again."""
        self.patches.close()


def _count_tokens(transformer: nn.Module) -> tuple[torch.Tensor, list[Any]]:
    """The most tokens that the attentions get, as a tensor, and the handles of the hooks.

    For a number in Python that changes, blocks would be compiled again.
    """
    import torch
    from diffusers.models.attention import AttentionModuleMixin
    from diffusers.models.attention_processor import Attention

    most = torch.zeros((), dtype=torch.int64)

    def count(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        most.clamp_(min=(args[0] if args else kwargs["hidden_states"]).shape[1])

    attentions = [module for module in transformer.modules() if isinstance(module, (Attention, AttentionModuleMixin))]
    return most, [module.register_forward_pre_hook(count, with_kwargs=True) for module in attentions]


FEATURE = Feature("sequence_parallel", catalog=("ulysses", "ring"), wanted=wanted, apply=apply)
