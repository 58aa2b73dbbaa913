"""CFG-parallel: the two branches of classifier-free guidance run side by side, one on each rank of the cfg axis.

Pipelines come in two kinds. Some call the transformer once with the batch doubled; here each rank computes its half,
and the halves are gathered. Others call it twice a step, in the cache contexts "cond" and "uncond"; here the rank that
does not own a branch returns an empty buffer for it at once, and the buffers are filled, in place, when both branches
have been called, or, in a step without guidance, when the scheduler is about to use the only one.
"""

from __future__ import annotations

import functools
import inspect
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from omni_config.plan import Plan
from runtime import models
from runtime.compat.patches import Undo, replaced
from runtime.errors import CannotRunError
from runtime.features.feature import Feature, Handle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch
    from torch.distributed.device_mesh import DeviceMesh

    from runtime.models.family import Family

BRANCHES = ("cond", "uncond")  # by coordinate on the cfg axis


def wanted(plan: Plan) -> bool:
    """Whether the Plan splits guidance."""
    return plan.mesh.cfg > 1


def apply(pipe: Any, plan: Plan, mesh: DeviceMesh | None) -> Handle:
    """Replace the transformer's ``forward`` by one that computes this rank's branch.

    Raises:
        CannotRunError: guidance has two branches, so cfg_parallel_size must be 2.
    """
    assert mesh is not None
    if plan.mesh.cfg != len(BRANCHES):
        raise CannotRunError(f"cfg_parallel_size is {plan.mesh.cfg}; guidance has two branches, so it is 1 or 2")
    family, counts = models.of(pipe), {"alone": 0, "shared": 0}
    exchange = _Exchange(mesh, counts)
    inners = [(transformer, transformer.forward) for transformer in models.transformers(pipe)]
    for transformer, inner in inners:
        if plan.guidance_calls == "two":
            call = functools.partial(_two_calls, inner, transformer, family, exchange)
            transformer.cache_context = exchange.track(transformer.cache_context)
        else:
            signature = inspect.signature(type(transformer).forward.__get__(transformer))
            call = functools.partial(_one_call, inner, signature, family.batched_arguments, mesh, counts)
        transformer.forward = functools.wraps(inner)(call)
    scheduler = pipe.scheduler
    undo = replaced(scheduler, "step", exchange.finish_before(scheduler.step))
    return _Branches(inners, counts, undo)


@dataclass(frozen=True, slots=True)
class _Branches(Handle):
    inners: list[tuple[Any, Callable[..., Any]]]  # transformers, and how each computes what it is given
    counts: dict[str, int]
    patch: Undo

    def measure(self) -> dict[str, Any]:
        """Calls of the transformer whose branches were shared, and calls that had one branch only."""
        return {"calls_shared": self.counts["shared"], "calls_with_one_branch": self.counts["alone"]}

    def undo(self) -> None:
        """Compute both branches on every rank again."""
        # The replacements on the instances hid the methods of the classes.
        for transformer, inner in self.inners:
            transformer.forward = inner
            transformer.__dict__.pop("cache_context", None)
        self.patch()


def _one_call(
    inner: Callable[..., Any],
    signature: inspect.Signature,
    names: tuple[str, ...],
    mesh: DeviceMesh,
    counts: dict[str, int],
    *args: Any,
    **kwargs: Any,
) -> Any:
    """Arguments of these ``names`` have 2B items, a half for each branch; without guidance, B.

    They are lists, or tensors. The first ones are the latents.
    """
    import torch

    given = signature.bind(*args, **kwargs).arguments
    latents = given[names[0]]
    half = len(latents) // 2
    # Guidance repeats the latents; without it, each image has its own.
    if len(latents) % 2 or not all(torch.equal(a, b) for a, b in zip(latents[:half], latents[half:], strict=True)):
        counts["alone"] += 1
        return inner(*args, **kwargs)
    counts["shared"] += 1
    first = mesh.get_local_rank("cfg") * half
    mine = slice(first, first + half)
    own = {name: value[mine] if name in names and value is not None else value for name, value in given.items()}
    output = inner(**own)
    if isinstance(output, tuple):
        return tuple(_of_both(part, mesh) for part in output)
    return type(output)(**{name: _of_both(part, mesh) for name, part in output.items()})


def _of_both(mine: Any, mesh: DeviceMesh) -> Any:
    """What both ranks have made, a list or a tensor of one item an image."""
    import torch
    import torch.distributed as dist

    own = torch.stack(list(mine)).contiguous()
    gathered = [torch.empty_like(own) for _ in BRANCHES]
    dist.all_gather(gathered, own, group=mesh.get_group("cfg"))
    both = torch.cat(gathered)
    return list(both.unbind()) if isinstance(mine, list) else both


class _Exchange:
    """The branches of one step of a pipeline with two calls, until both ranks have both."""

    def __init__(self, mesh: DeviceMesh, counts: dict[str, int]) -> None:
        self.mine = BRANCHES[mesh.get_local_rank("cfg")]
        self.branch: str | None = None  # of the cache context that is open now
        self._group = mesh.get_group("cfg")
        self._counts = counts
        self._open: dict[str, torch.Tensor] = {}  # results, or the buffers for them

    def track(self, context: Callable[..., Any]) -> Callable[..., Any]:
        """``transformer.cache_context``, noting the branch."""

        @contextmanager
        def tracked(name: str, **where: Any) -> Iterator[None]:
            self.branch = name.removeprefix("pred_")  # as guiders call them
            try:
                with context(name, **where):
                    yield
            finally:
                self.branch = None

        return tracked

    def add(self, branch: str, tensor: torch.Tensor) -> None:
        """Note the result of a branch, or the buffer for it; the second one of a step completes both."""
        if branch in self._open:  # the last step was abandoned before its end
            self._open = {}
        self._open[branch] = tensor
        if len(self._open) == len(BRANCHES):
            self.finish()

    def finish(self) -> None:
        """Fill the buffers from their owners."""
        import torch.distributed as dist

        if self._open:
            self._counts["shared" if len(self._open) == len(BRANCHES) else "alone"] += 1
        for branch in sorted(self._open):
            owner = dist.get_global_rank(self._group, BRANCHES.index(branch))
            dist.broadcast(self._open[branch], owner, group=self._group)
        self._open = {}

    def finish_before(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """``scheduler.step``, after ``finish``."""

        @functools.wraps(step)
        def finished(*args: Any, **kwargs: Any) -> Any:
            self.finish()
            return step(*args, **kwargs)

        return finished


def _two_calls(
    inner: Callable[..., Any], transformer: Any, family: Family, exchange: _Exchange, *args: Any, **kwargs: Any
) -> Any:
    """Compute the branch that is called if it is this rank's, or return a buffer for it."""
    branch = exchange.branch
    if branch not in BRANCHES:
        return inner(*args, **kwargs)
    given = args[0] if args else kwargs["hidden_states"]
    shape = family.output_shape(transformer, given, **kwargs)
    if branch == exchange.mine:
        output = inner(*args, **kwargs)
        # A buffer that is filled in place must be one block of memory.
        sample = output[0][:, -shape[1] :].contiguous()
    else:
        sample = given.new_empty(shape)
    exchange.add(branch, sample)
    if kwargs.get("return_dict", True):
        from diffusers.models.modeling_outputs import Transformer2DModelOutput

        return Transformer2DModelOutput(sample=sample)
    return (sample,)


FEATURE = Feature("cfg_parallel", catalog=("cfg_parallel",), wanted=wanted, apply=apply)
