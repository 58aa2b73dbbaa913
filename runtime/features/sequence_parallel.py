"""Sequence parallelism (cache-dit): ranks share the tokens of the transformer's blocks.

Ulysses swaps tokens for heads in each attention; in a ring, keys and values travel from rank to rank. With both, a
ring of Ulysses groups.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omni_config.plan import Plan
from runtime import compat
from runtime.errors import CannotRunError
from runtime.features import transformers

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.distributed.device_mesh import DeviceMesh


def wanted(plan: Plan) -> bool:
    """Whether the Plan splits the sequence."""
    return plan.mesh.ulysses * plan.mesh.ring > 1


def apply(pipe: Any, plan: Plan, mesh: DeviceMesh | None) -> None:
    """Hook the transformer: its blocks see a share of the tokens, its last layer gathers them.

    cache-dit would build a mesh over the whole world; ours has more axes, so its planner and its hooks are called
    one by one, with a part of our mesh.

    Raises:
        CannotRunError: cache-dit knows no plan for this transformer.
    """
    from cache_dit.distributed.config import ParallelismConfig
    from cache_dit.distributed.core import _ContextParallelConfig, _enable_context_parallelism
    from cache_dit.distributed.transformers.dispatch import _ensure_cp_planners_activated
    from cache_dit.distributed.transformers.register import ContextParallelismPlannerRegister

    from runtime.pipeline.mesh import device

    assert mesh is not None
    name = type(pipe.transformer).__name__
    _ensure_cp_planners_activated()
    if plan.mesh.ring > 1 and mesh.device_type == "cpu":
        compat.ring_attention_on_cpu()
    # Z-Image pads its tokens to a multiple of 32. Others have prompts of any length, beside the picture's tokens.
    uneven = not name.startswith("ZImage") or 32 % (plan.mesh.ulysses * plan.mesh.ring) > 0
    if uneven and mesh.device_type == "cpu":
        compat.gather_uneven_parts_on_cpu()
    if uneven and plan.mesh.ring > 1:
        compat.ring_attention_of_uneven_parts()
    try:
        planner = ContextParallelismPlannerRegister.get_planner(pipe.transformer)()
    except ValueError as error:
        raise CannotRunError(f"cache-dit cannot split the sequence of {name}") from error
    degrees = ParallelismConfig(ulysses_size=plan.mesh.ulysses, ring_size=plan.mesh.ring)
    part = mesh["ring", "ulysses"]
    rank = part._flatten().get_local_rank()
    for transformer in transformers(pipe):
        hooks = planner.apply(transformer=transformer, parallelism_config=degrees)
        transformer._cp_plan = hooks = compat.split_single_layers(transformer, hooks)
        config = _ContextParallelConfig(ulysses_degree=plan.mesh.ulysses, ring_degree=plan.mesh.ring)
        config.ulysses_anything = uneven  # set here, as the constructor takes it for Ulysses alone
        config.setup(rank, part.size(), device(), part)
        compat.let_diffusers_read(config)
        compat.compile_around_ranks(config)
        _enable_context_parallelism(transformer, config=config, cp_plan=hooks)
        transformer.set_attention_backend("native")
        transformer._omni_tokens = _count_tokens(transformer)


def measure(pipe: Any) -> dict[str, Any]:
    """The most tokens of one picture that an attention of this rank was given."""
    return {"tokens_per_rank": max(int(transformer._omni_tokens[0]) for transformer in transformers(pipe))}


def undo(pipe: Any) -> None:
    """Take the hooks off; every rank computes all tokens again."""
    from cache_dit.distributed.core._context_parallel import _remove_context_parallel

    for transformer in transformers(pipe):
        _, handles = transformer._omni_tokens
        for handle in handles:
            handle.remove()
        _remove_context_parallel(transformer, transformer._cp_plan)
        for module in (transformer, *transformer.modules()):
            for holder in (module, getattr(module, "processor", None)):
                if holder is not None and getattr(holder, "_cp_config", None) is not None:
                    holder._cp_config = holder._parallel_config = None


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
