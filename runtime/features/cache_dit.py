"""Cache-DiT: DBCache reuses the middle blocks' residual while the first blocks' changes little (cache-dit).

With a SCM mask, which steps may be reused is decided beforehand; with TaylorSeer, the residual is extrapolated.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from omni_config.mesh import WITHIN_A_BRANCH
from omni_config.plan import CacheDiT, Plan
from runtime import compat
from runtime.errors import CannotRunError
from runtime.features.feature import Feature, Handle

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


def wanted(plan: Plan) -> bool:
    """Whether the Plan caches with Cache-DiT."""
    return isinstance(plan.cache, CacheDiT)


def apply(pipe: Any, plan: Plan, mesh: DeviceMesh | None) -> Handle:
    """Wrap the transformer's blocks. Ranks average the difference that decides, so they decide alike.

    Those of one branch of guidance do, or all, where they gather weights from each other.

    Raises:
        CannotRunError: a parameter that cache-dit does not take, or no SCM mask for this number of steps.
    """
    import cache_dit

    patches = ExitStack()
    if plan.mesh.cfg > 1 and plan.guidance_calls == "two" and plan.hsdp is None:
        assert mesh is not None
        patches.callback(compat.cache_dit.average_differences_over(compat.torch.group_over(mesh, WITHIN_A_BRANCH)))
    config, calibrator = _configs(plan)
    cache_dit.enable_cache(pipe, cache_config=config, calibrator_config=calibrator)
    return _Cache(pipe, patches)


@dataclass(frozen=True, slots=True)
class _Cache(Handle):
    pipe: Any
    patches: ExitStack

    def adapt(self, plan: Plan) -> None:
        """Forget earlier calls, and expect one with the steps and the guidance of this Plan.

        Raises:
            CannotRunError: no SCM mask for this number of steps.
        """
        import cache_dit

        config, calibrator = _configs(plan)
        cache_dit.refresh_context(self.pipe.transformer, cache_config=config, calibrator_config=calibrator)

    def measure(self) -> dict[str, Any]:
        """The steps that were reused, counted from 0."""
        import cache_dit

        stats = cache_dit.summary(self.pipe, logging=False)[0]
        return {"cached_steps": list(stats.cached_steps)}

    def undo(self) -> None:
        """Unwrap the blocks."""
        import cache_dit

        cache_dit.disable_cache(self.pipe)
        self.patches.close()


def _configs(plan: Plan) -> tuple[Any, Any]:
    """Of the cache and, with TaylorSeer, of its calibrator."""
    import cache_dit

    cache, steps = plan.cache, plan.sampling.num_inference_steps
    assert isinstance(cache, CacheDiT)
    two_calls = plan.guidance_calls == "two" and plan.sampling.guidance_branches == 2
    mask = cache.scm_steps_mask_policy
    try:
        config = cache_dit.DBCacheConfig(
            Fn_compute_blocks=cache.Fn_compute_blocks,
            Bn_compute_blocks=cache.Bn_compute_blocks,
            max_warmup_steps=cache.max_warmup_steps,
            max_cached_steps=cache.max_cached_steps,
            max_continuous_cached_steps=cache.max_continuous_cached_steps,
            residual_diff_threshold=cache.residual_diff_threshold,
            # It counts calls, and takes each second one for the other branch. Of two calls a step, a rank may make one.
            enable_separate_cfg=two_calls and plan.mesh.cfg == 1,
            num_inference_steps=steps,
            steps_computation_mask=mask and cache_dit.steps_mask(mask_policy=mask, total_steps=steps),
            steps_computation_policy=cache.scm_steps_policy,
        )
    except (AssertionError, TypeError) as error:
        raise CannotRunError(f"Cache-DiT cannot run with these parameters: {error}") from error
    order = cache.taylorseer_order
    return config, cache_dit.TaylorSeerCalibratorConfig(taylorseer_order=order) if cache.enable_taylorseer else None


FEATURE = Feature("cache_dit", catalog=("cache_dit",), wanted=wanted, apply=apply)
