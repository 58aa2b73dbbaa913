"""Quirks of cache-dit (1.5.3), and its planners, which it has no public way to call with a part of a mesh."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from runtime.compat.patches import Undo, nothing, replaced

if TYPE_CHECKING:
    import torch
    from torch.distributed import ProcessGroup
    from torch.distributed.device_mesh import DeviceMesh
    from torch.nn import Module


def sequence_planner(transformer: Module) -> Any:
    """What knows where cache-dit (1.5.3) splits the tokens of a transformer; it would register all when first used.

    Raises:
        ValueError: cache-dit knows no plan for this transformer.
    """
    from cache_dit.distributed.transformers.dispatch import _ensure_cp_planners_activated
    from cache_dit.distributed.transformers.register import ContextParallelismPlannerRegister

    _ensure_cp_planners_activated()
    return ContextParallelismPlannerRegister.get_planner(transformer)()


def share_tokens(
    transformer: Module, hooks: dict[str, Any], part: DeviceMesh, device: torch.device, uneven: bool
) -> Undo:
    """Hook a transformer with cache-dit (1.5.3), whose own function would build a mesh over the whole world.

    ``part`` has the axes ring and ulysses. ``uneven``: ranks may have different numbers of tokens.
    """
    from cache_dit.distributed.core import _ContextParallelConfig, _enable_context_parallelism
    from cache_dit.distributed.core._context_parallel import _remove_context_parallel

    config = _ContextParallelConfig(ulysses_degree=part["ulysses"].size(), ring_degree=part["ring"].size())
    config.ulysses_anything = uneven  # set here, as the constructor takes it for Ulysses alone
    config.setup(part._flatten().get_local_rank(), part.size(), device, part)
    let_diffusers_read(config)
    undo = compile_around_ranks(config)
    transformer._cp_plan = hooks  # type: ignore[assignment]  # where diffusers has it
    _enable_context_parallelism(transformer, config=config, cp_plan=hooks)

    def remove() -> None:
        _remove_context_parallel(transformer, hooks)
        for module in transformer.modules():
            for holder in (module, getattr(module, "processor", None)):
                if getattr(holder, "_cp_config", None) is not None:
                    holder._cp_config = holder._parallel_config = None  # type: ignore[union-attr]
        undo()

    return remove


def order_mask(transformer: Module, mask: str, ranks: int) -> Undo:
    """Put the mask of text and image into the order in which cache-dit's (1.5.3) attention has their tokens.

    Each rank has a part of the text, then a part of the image, and the parts are joined rank by rank. The mask, which
    each rank has for all tokens, begins with all of the text.
    """
    import torch

    def reorder(_: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if kwargs.get(mask) is None:
            return None
        tokens = [kwargs[name].shape[1] for name in ("encoder_hidden_states", "hidden_states")]
        parts = [places.tensor_split(ranks) for places in torch.split_with_sizes(torch.arange(sum(tokens)), tokens)]
        order = torch.cat([part for of_a_rank in zip(*parts, strict=True) for part in of_a_rank])
        return args, kwargs | {mask: kwargs[mask][:, order]}

    return transformer.register_forward_pre_hook(reorder, with_kwargs=True).remove


def tensor_planner(transformer: Module, part: DeviceMesh) -> Any:
    """What splits a transformer over ``part`` with cache-dit (1.5.3); its own mesh would span the world.

    Raises:
        ValueError: cache-dit knows no plan for this transformer.
    """
    from cache_dit.distributed.transformers.dispatch import _ensure_tp_planners_activated
    from cache_dit.distributed.transformers.register import TensorParallelismPlannerRegister

    _ensure_tp_planners_activated()
    return _over(part, TensorParallelismPlannerRegister.get_planner(transformer)())


def text_encoder_planner(encoder: Module, part: DeviceMesh) -> Any:
    """The same of a text encoder.

    Raises:
        ValueError: cache-dit knows no plan for this encoder.
    """
    from cache_dit.distributed.text_encoders.dispatch import _ensure_text_encoder_tp_planners_activated
    from cache_dit.distributed.text_encoders.register import TextEncoderTensorParallelismPlannerRegister

    _ensure_text_encoder_tp_planners_activated()
    return _over(part, TextEncoderTensorParallelismPlannerRegister.get_planner(encoder)())


def tiling_planner(vae: Module) -> Any:
    """What shares the tiles of a VAE among ranks with cache-dit (1.5.3).

    Raises:
        ValueError: cache-dit knows no plan for this VAE.
    """
    from cache_dit.distributed.autoencoders.dispatch import _ensure_auto_encoder_dp_planners_activated
    from cache_dit.distributed.autoencoders.register import AutoEncoderDataParallelismPlannerRegister

    _ensure_auto_encoder_dp_planners_activated()
    return AutoEncoderDataParallelismPlannerRegister.get_planner(vae)()


def _over(part: DeviceMesh, planner: Any) -> Any:
    """Let a planner split over a part of our mesh, and not wait two seconds for memory that the whole weights had."""
    module, apply = sys.modules[type(planner).__module__], planner.apply

    def at_once(**named: Any) -> Any:
        undo = replaced(module, "maybe_empty_cache", nothing) if hasattr(module, "maybe_empty_cache") else nothing
        try:
            return apply(**named)
        finally:
            undo()

    planner.mesh = lambda *_, **__: part
    planner.apply = at_once
    return planner


def import_for_forks(pipelines: set[str]) -> None:
    """Import now what diffusers (0.42) and cache-dit (1.5.3) import when it is first used, before forks need it.

    cache-dit registers its plans in groups of which only the first asked for would be there.
    """
    import diffusers
    import peft.tuners.tuners_utils  # noqa: F401
    import torch.distributed.tensor.parallel  # noqa: F401
    from cache_dit.distributed.text_encoders.dispatch import _ensure_text_encoder_tp_planners_activated
    from cache_dit.distributed.transformers.dispatch import (
        _ensure_cp_planners_activated,
        _ensure_tp_planners_activated,
    )

    for name in pipelines:
        getattr(diffusers, name, None)
    _ensure_cp_planners_activated()
    _ensure_tp_planners_activated()
    _ensure_text_encoder_tp_planners_activated()


def split_single_layers(transformer: Module, lists: Iterable[str], hooks: dict[str, Any]) -> dict[str, Any]:
    """Restore what cache-dit (1.5.3) loses of lists of one layer that are split and gathered by themselves.

    Its plan splits the input of layer 0 and gathers the output of layer n - 1, as entries of one dictionary; where
    both are the same layer, the second entry replaces the first.
    """
    from cache_dit.distributed.core import _ContextParallelInput

    split = {"x": _ContextParallelInput(split_dim=1, expected_dims=3)}
    alone = [f"{name}.0" for name in lists if len(getattr(transformer, name, ())) == 1]
    return hooks | {name: [split, hooks[name]] for name in alone}


def leave_text_whole(hooks: dict[str, Any]) -> dict[str, Any]:
    """cache-dit's (1.5.3) plan without the splitting of text, which it has for VACE.

    Each rank attends to the text by itself (diffusers 0.42), and would to its part of it only.
    """
    return {
        name: {key: split for key, split in inputs.items() if key != "encoder_hidden_states"}
        if isinstance(inputs, dict)
        else inputs
        for name, inputs in hooks.items()
    }


def ring_attention_on_cpu() -> Undo:
    """Let cache-dit's ring attention (1.5.3) run on a CPU, and with a mask.

    It asks for CUDA's flash attention, whatever the device, and refuses a mask; the CPU has its own flash attention
    (torch 2.13), which gives the log-sum-exp and takes a mask. It merges the parts with a Triton kernel.
    """
    import torch
    from cache_dit.attention.backends import native
    from cache_dit.distributed.core import _templated_ring

    library = native._native_attention_forward_op
    if library.__module__ != native.__name__:
        return nothing  # replaced before
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default

    def _native_attention_forward_op(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
        return_lse: bool = False,
        _save_ctx: bool = True,
        _cp_config: Any = None,
    ) -> Any:
        """Attention of (batch, tokens, heads, head size) to the keys that are here now; with their log-sum-exp."""
        if not return_lse:
            return library(
                ctx, query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa, False, _save_ctx, _cp_config
            )
        if attn_mask is not None:
            # The keys come from the rank before: at the n-th call, they are those of n ranks before this one.
            ring = _cp_config._ring_mesh
            turn = getattr(ctx, "ring_turn", 0)
            ctx.ring_turn = turn + 1  # ctx is torch's, for what a call of an operation keeps
            owner = (ring.get_local_rank() - turn) % ring.size()
            ulysses = _cp_config._ulysses_mesh.size()
            parts = attn_mask.tensor_split(ring.size() * ulysses, dim=-1)  # as the tokens are, evenly or not
            attn_mask = torch.cat(parts[owner * ulysses : (owner + 1) * ulysses], dim=-1)
            if attn_mask.shape[-2] > 1:  # a row for each query, of which those of this rank are here
                rows, own = attn_mask.tensor_split(ring.size() * ulysses, dim=-2), ring.get_local_rank() * ulysses
                attn_mask = torch.cat(rows[own : own + ulysses], dim=-2)
            if attn_mask.dtype == torch.bool:
                attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill_(~attn_mask, float("-inf"))
            attn_mask = attn_mask.expand(query.shape[0], 1, query.shape[1], key.shape[1])
        query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
        out, lse = flash(query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale)
        if attn_mask is not None:  # where all keys here are masked, they have next to no weight: none would make NaN
            unseen = torch.isneginf(attn_mask).all(dim=-1).expand(lse.shape)
            out = out.masked_fill(unseen[..., None], 0.0)
            lse = lse.masked_fill(unseen, torch.finfo(lse.dtype).min / 2)
        return out.transpose(1, 2), lse.transpose(1, 2)

    def merge(
        out_a: torch.Tensor, lse_a: torch.Tensor, out_b: torch.Tensor, lse_b: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Attention to two sets of keys, from the attention to each."""
        weight = torch.sigmoid(lse_b - lse_a)
        if out_b.dtype != weight.dtype:
            out_a, out_b = out_a.to(weight.dtype), out_b.to(weight.dtype)
        return torch.lerp(out_a, out_b, weight), torch.logaddexp(lse_a, lse_b)

    undo = ExitStack()  # cache-dit allows masks by the function's name
    undo.callback(replaced(native, "_native_attention_forward_op", _native_attention_forward_op))
    undo.callback(replaced(_templated_ring, "fused_merge_attn_states", merge))
    return undo.close


def let_diffusers_read(config: Any) -> None:
    """Give cache-dit's context parallel config (1.5.3) what diffusers' offload (0.42) asks the model's config for."""
    config.tensor_parallel_config = None


def restore_heads(transformer: Module, heads: dict[str, int]) -> None:
    """Undo cache-dit's (1.5.3) division of the heads of Qwen-Image by the tensor ranks.

    Its attention (diffusers 0.42) takes the size of a head from the heads: with fewer, they would be larger.
    """
    for name, number in heads.items():
        transformer.get_submodule(name).heads = number  # type: ignore[assignment]


_config: Any = None  # of the attention that is one operation of a graph


@functools.cache
def _attention_over_ranks() -> Any:
    """cache-dit's attention over ranks as an operation of torch, which is registered once in a process."""
    import torch
    from cache_dit.attention.backends import native

    library = native._context_parallel_attention
    schema = "(Tensor query, Tensor key, Tensor value, Tensor? mask, float? scale) -> Tensor"

    @torch.library.custom_op("omni::attention_over_ranks", mutates_args=(), schema=schema)
    def operation(query: Any, key: Any, value: Any, mask: Any, scale: float | None) -> Any:
        forward, backward = native._native_attention_forward_op, native._native_attention_backward_op
        options = {"forward_op": forward, "backward_op": backward, "_cp_config": _config}
        return library(query, key, value, mask, scale=scale, **options).contiguous()

    @operation.register_fake
    def _(query: torch.Tensor, *_: Any) -> torch.Tensor:
        return query.new_empty(query.shape)

    return operation


def compile_around_ranks(config: Any) -> Undo:
    """Let torch (2.13) compile around cache-dit's (1.5.3) attention over ranks and its hooks, which it would trace.

    Attention is one operation of a graph: traced, a ring makes more than twenty graphs a block, and Ulysses with parts
    of different lengths none. Hooks run outside of graphs: traced, each of their numbers makes more graphs, until torch
    gives up. While it traces, it even exchanges lengths, and not as often on a rank that finds the graph in inductor's
    cache: the ranks wait for each other for ever.

    Args:
        config: cache-dit's context parallel config, which the operation works with from now on.
    """
    import torch
    from cache_dit.attention.backends import native
    from cache_dit.distributed.core import _context_parallel, _hooks

    global _config
    _config = config
    library, register = native._context_parallel_attention, _hooks.HookRegistry.register_hook
    if library.__module__ == __name__:
        return nothing  # replaced before
    operation = _attention_over_ranks()

    def attention(*args: Any, **options: Any) -> Any:
        query, key, value, mask, dropout, causal, scale, *others = args
        if torch.compiler.is_compiling() and not any((dropout, causal, *others)):  # which inference leaves out
            return operation(query, key, value, mask, scale)
        return library(*args, **options)

    outside: Any = torch.compiler.disable

    def register_outside(registry: Any, hook: Any, name: str) -> None:
        register(registry, hook, name)
        module = registry._module_ref
        module.forward = outside(module.forward, recursive=False)

    undo = ExitStack()
    undo.callback(replaced(native, "_context_parallel_attention", attention))
    undo.callback(replaced(_hooks.HookRegistry, "register_hook", register_outside))
    for hook in (_context_parallel._ContextParallelSplitHook, _context_parallel._ContextParallelGatherHook):
        for method in ("pre_forward", "post_forward"):
            undo.callback(replaced(hook, method, outside(getattr(hook, method))))
    return undo.close


def ring_attention_of_uneven_parts() -> Undo:
    """Let cache-dit's ring attention (1.5.3) take parts of different lengths; it allows that for Ulysses only.

    It receives each part into a tensor of the shape of its own.
    """
    from cache_dit.distributed.core import _templated_ring
    from cache_dit.distributed.core._distributed_primitives import _gather_size, _RingP2PComm

    class UnevenRing(_RingP2PComm):  # type: ignore[misc]
        def send_recv_kv(self, k: Any, v: Any, k_buffer: Any = None, v_buffer: Any = None) -> Any:
            if not hasattr(self, "lengths"):
                self.lengths = _gather_size(k.shape[1], self._process_group)
                self.turn = 0
            self.turn += 1
            length = self.lengths[(self.rank - self.turn) % self.world_size]
            shape = (k.shape[0], length, *k.shape[2:])
            return super().send_recv_kv(k, v, k.new_empty(shape), v.new_empty(shape))

    return replaced(_templated_ring, "_RingP2PComm", UnevenRing)


def gather_uneven_parts_on_cpu() -> Undo:
    """Let cache-dit (1.5.3) gather parts of different lengths on a CPU; gloo (torch 2.13) takes equal ones only."""
    import torch
    import torch.distributed as dist
    from cache_dit.distributed.core import _context_parallel

    def gather(tensor: torch.Tensor, dim: int, group: ProcessGroup) -> torch.Tensor:
        lengths = _context_parallel._gather_size(tensor.shape[dim], group)
        filled = tensor.new_zeros([max(lengths) if at == dim else size for at, size in enumerate(tensor.shape)])
        filled.narrow(dim, 0, tensor.shape[dim]).copy_(tensor)
        parts = [torch.empty_like(filled) for _ in lengths]
        dist.all_gather(parts, filled, group=group)
        return torch.cat([part.narrow(dim, 0, length) for part, length in zip(parts, lengths, strict=True)], dim=dim)

    return replaced(_context_parallel, "_all_gather_anything", gather)


def average_differences_over(group: ProcessGroup) -> Undo:
    """Let cache-dit (1.5.3) average the difference that decides over the ranks of a group; it takes the whole world."""
    from types import SimpleNamespace

    import torch.distributed as dist
    from cache_dit.caching.cache_contexts import cache_manager

    def all_reduce(tensor: Any, op: Any) -> None:
        dist.all_reduce(tensor, op=op, group=group)

    return replaced(cache_manager, "dist", SimpleNamespace(all_reduce=all_reduce, ReduceOp=dist.ReduceOp))


def split_norms_on_cpu() -> Undo:
    """Let cache-dit's norm over split heads (1.5.3), which Wan needs, run on a CPU; it asserts that it does not."""
    import torch
    import torch.distributed as dist
    from cache_dit.distributed.transformers import wan

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        mean_square = torch.mean(x * x, dim=-1, keepdim=True)
        dist.all_reduce(mean_square, op=dist.ReduceOp.SUM, group=self.tp_mesh.get_group())
        normed = x / torch.sqrt(mean_square / self.tp_mesh.size() + self.eps)
        return normed * self.weight if self.elementwise_affine else normed

    return replaced(wan.DistributedRMSNorm, "forward", forward)


def packed_columns(transformer: Module) -> dict[str, list[int]]:
    """By weight, the blocks of its columns, each of which cache-dit (1.5.3) splits over the ranks by itself.

    In single blocks such as FLUX's, a layer takes attention and feed-forward side by side. cache-dit deals the columns
    of the whole weight out to the ranks before it is split.
    """
    return {
        f"{name}.proj_out.weight": [block.attn.to_q.out_features, block.proj_mlp.out_features]
        for name, block in transformer.named_modules()
        if hasattr(block, "attn") and hasattr(block, "proj_mlp") and hasattr(block, "proj_out")
    }


def restore_packed_columns(weight: Any, blocks: Sequence[int], parts: int) -> None:
    """Undo, in place, the order of columns in which a weight of ``packed_columns`` is gathered from the ranks."""
    import torch

    dealt = [part.split([size // parts for size in blocks], dim=1) for part in weight.chunk(parts, dim=1)]
    weight.copy_(torch.cat([part for block in zip(*dealt, strict=True) for part in block], dim=1))


def keep_tile_sizes(vae: Module, tiled_decode: Any) -> Any:
    """``tiled_decode`` of cache-dit (1.5.3), which leaves larger tiles behind after a picture of 1024 px or more.

    Ranks that do not decode have the old size, and would encode the next input picture in other tiles.
    """
    import functools

    @functools.wraps(tiled_decode)
    def decode(*args: Any, **kwargs: Any) -> Any:
        before = {name: size for name, size in vars(vae).items() if name.startswith("tile_")}
        try:
            return tiled_decode(*args, **kwargs)
        finally:
            vars(vae).update(before)

    return decode


def let_ranks_be_without_tiles() -> Undo:
    """Let a rank that has no tile wait for the others in cache-dit's (1.5.3) tile parallelism; it fails instead."""
    from cache_dit.distributed.autoencoders.utils import TileBatchedP2PComm

    def sync(self: Any) -> None:
        if self._ops:
            self.commit()
            self.wait()

    return replaced(TileBatchedP2PComm, "sync", sync)
