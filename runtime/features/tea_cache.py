"""TeaCache (Liu et al., 2024, arXiv:2411.19108): reuse the blocks' residual while their modulated input changes little.

The relative L1 distance of the first block's modulated input from that of the step before, rescaled by a polynomial of
the model family, adds up over the steps. While the sum is below ``rel_l1_thresh``, no block is computed, and what the
blocks added at the last computed step is added again. The first and the last step are always computed.
"""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from omni_config.mesh import WITHIN_A_BRANCH
from omni_config.plan import Plan, TeaCache
from runtime import compat, models
from runtime.compat.patches import Undo, replaced
from runtime.errors import CannotRunError
from runtime.features.feature import Feature, Handle

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import nn
    from torch.distributed.device_mesh import DeviceMesh

    from runtime.models.family import Family

HOOK = "omni_tea_cache"


def wanted(plan: Plan) -> bool:
    """Whether the Plan caches with TeaCache."""
    return isinstance(plan.cache, TeaCache)


def apply(pipe: Any, plan: Plan, mesh: DeviceMesh | None) -> Handle:
    """Hook the transformer's blocks, each branch of guidance with its own state.

    Raises:
        CannotRunError: no coefficients, or a transformer whose modulated input is not known here.
    """
    assert isinstance(plan.cache, TeaCache)
    if plan.cache.coefficients is None:
        raise CannotRunError(
            "TeaCache needs coefficients: no model card has them for this model; set them in the config, "
            "or measure them with omni calibrate teacache"
        )
    return attach(pipe, Cache(plan, mesh))


def attach(pipe: Any, cache: Cache) -> Handle:
    """Let a cache decide for the transformer's blocks.

    Raises:
        CannotRunError: a transformer whose modulated input is not known here.
    """
    from diffusers.hooks.hooks import HookRegistry

    family = models.of(pipe)
    if family.modulated_input is None:
        raise CannotRunError(f"TeaCache does not know the modulated input of {family.transformer}")
    blocks = family.blocks_of(pipe.transformer)
    for index, block in enumerate(blocks):
        hook = _make_hook(cache, family, type(block), first=index == 0, last=index == len(blocks) - 1)
        HookRegistry.check_if_exists_or_initialize(block).register_hook(hook, HOOK)
    # A pipeline that was called before has a list of its hooks, to which diffusers tells the branch of guidance.
    HookRegistry.check_if_exists_or_initialize(pipe.transformer).invalidate_child_registries_cache()
    scheduler = pipe.scheduler
    undo = replaced(scheduler, "set_timesteps", cache.reset_before(scheduler.set_timesteps))
    return _Hooks(blocks, cache, undo)


@dataclass(frozen=True, slots=True)
class _Hooks(Handle):
    blocks: list[Any]
    cache: Cache
    patch: Undo

    def measure(self) -> dict[str, Any]:
        """The steps that were reused, counted from 0, in the branch that this rank computed first; of all branches."""
        by_branch = {name: [*steps] for name, steps in self.cache.cached_steps.items()}
        return {"cached_steps": next(iter(by_branch.values()), []), "cached_steps_by_branch": by_branch}

    def undo(self) -> None:
        """Compute every block at every step again."""
        from diffusers.hooks.hooks import HookRegistry

        for block in self.blocks:
            HookRegistry.check_if_exists_or_initialize(block).remove_hook(HOOK, recurse=False)
        self.patch()

    def adapt(self, plan: Plan) -> None:
        """Expect a call with the steps of this Plan."""
        self.cache.steps = plan.sampling.num_inference_steps


class Cache:
    """What the hooks of all blocks share."""

    def __init__(self, plan: Plan, mesh: DeviceMesh | None) -> None:
        from diffusers.hooks.hooks import BaseState, CacheContext, StateManager

        class State(BaseState):
            def __init__(self) -> None:
                self.reset()

            def reset(self, *_: Any, **__: Any) -> None:
                self.step = 0
                self.accumulated = 0.0
                self.modulated: Any = None
                self.residual: Any = None

        assert isinstance(plan.cache, TeaCache)
        assert plan.cache.coefficients is not None
        self.coefficients = plan.cache.coefficients
        self.threshold = plan.cache.rel_l1_thresh
        self.steps = plan.sampling.num_inference_steps
        self.states: Any = StateManager(cast(Any, State))  # diffusers switches it between the branches of guidance
        two_calls = plan.guidance_calls == "two"
        if not two_calls:
            self.states.set_context(CacheContext("both"))
        # Ranks must decide alike, or they would wait for each other for ever. Where both branches are one batch, they
        # share the decision; where they are two calls, each branch has its own.
        self.group = None
        self.shared = mesh is not None
        if mesh is not None and two_calls and plan.mesh.cfg > 1:
            self.shared = mesh[WITHIN_A_BRANCH].size() > 1
            self.group = compat.torch.group_over(mesh, WITHIN_A_BRANCH) if self.shared else None
        self.skipping = False
        self.entered: Any = None
        self.cached_steps: dict[str, list[int]] = {}

    def decide(self, modulated: torch.Tensor) -> None:
        """Set ``skipping`` for this call of the transformer."""
        state = self.states.get_state()
        cached = self.cached_steps.setdefault(self.states.context.name, [])
        if state.modulated is not None:
            change, rescaled = self.change(modulated, state.modulated), 0.0
            for coefficient in self.coefficients:
                rescaled = rescaled * change + coefficient
            state.accumulated += rescaled
        boundary = state.step == 0 or state.step >= self.steps - 1 or state.residual is None
        self.skipping = not boundary and state.accumulated < self.threshold
        if self.skipping:
            cached.append(state.step)
        else:
            state.accumulated = 0.0
        state.modulated = modulated
        state.step += 1

    def keep(self, residual: torch.Tensor) -> None:
        """Keep what the blocks added in this call."""
        self.states.get_state().residual = residual

    def change(self, now: torch.Tensor, before: torch.Tensor) -> float:
        """The relative L1 distance, over the tokens of all ranks."""
        import torch
        import torch.distributed as dist

        sums = torch.stack([(now - before).abs().sum(dtype=torch.float32), before.abs().sum(dtype=torch.float32)])
        if self.shared:
            dist.all_reduce(sums, group=self.group)
        difference, size = sums.tolist()
        return float(difference / size)

    def reset_before(self, set_timesteps: Callable[..., Any]) -> Callable[..., Any]:
        """``scheduler.set_timesteps``, with which a call of the pipeline begins, after forgetting the last call."""

        @functools.wraps(set_timesteps)
        def reset(*args: Any, **kwargs: Any) -> Any:
            compat.diffusers.forget(self.states)
            self.cached_steps.clear()
            return set_timesteps(*args, **kwargs)

        return reset


def _make_hook(cache: Cache, family: Family, block: type[nn.Module], first: bool, last: bool) -> Any:
    import torch
    from diffusers.hooks.hooks import ModelHook

    # What decides is Python with numbers of its own, for each of which a compiled block would be compiled again.
    outside: Any = torch.compiler.disable
    decide, keep = outside(cache.decide), outside(cache.keep)
    modulated_input: Any = outside(family.modulated_input) if first else None
    signature = inspect.signature(block.forward)
    name, text = family.image_tokens, family.text_tokens

    class TeaCacheHook(ModelHook):
        _is_stateful = True

        def __init__(self) -> None:
            super().__init__()  # type: ignore[no-untyped-call]
            self.states = cache.states  # where diffusers looks for what it switches between branches

        def reset_state(self, module: nn.Module) -> nn.Module:
            return module

        @outside(recursive=False)  # type: ignore[untyped-decorator]
        def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            original: Any = self.fn_ref.original_forward
            if not (first or last or cache.skipping):
                return original(*args, **kwargs)
            bound = signature.bind(module, *args, **kwargs).arguments
            hidden = bound[name]
            if first:
                arguments = {key: value for key, value in bound.items() if key != "self"}
                decide(modulated_input(module, **arguments))
                cache.entered = hidden
            if cache.skipping:
                if first:
                    hidden = hidden + cache.states.get_state().residual
                if text is None:
                    return hidden
                return (hidden, bound[text]) if family.image_comes_first else (bound[text], hidden)
            output = original(*args, **kwargs)
            if last:
                out = output if text is None else output[0 if family.image_comes_first else 1]
                keep(out - cache.entered)
            return output

    return TeaCacheHook()


FEATURE = Feature("tea_cache", catalog=("tea_cache",), wanted=wanted, apply=apply)
