"""Cache-DiT: DBCache reuses the middle blocks' residual while the first blocks' changes little (cache-dit).

With a SCM mask, which steps may be reused is decided beforehand; with TaylorSeer, the residual is extrapolated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omni_config.plan import Plan
from runtime import compat
from runtime.errors import CannotRunError

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


def wanted(plan: Plan) -> bool:
    """Whether the Plan caches with Cache-DiT."""
    return plan.cache.backend == "cache_dit"


def apply(pipe: Any, plan: Plan, mesh: DeviceMesh | None) -> None:
    """Wrap the transformer's blocks. Ranks average the difference that decides, so they decide alike.

    Raises:
        CannotRunError: a parameter that cache-dit does not take, or no SCM mask for this number of steps.
    """
    import cache_dit

    if _splits_two_calls(pipe, plan):
        assert mesh is not None
        compat.average_differences_over(mesh["ring", "ulysses", "tensor"]._flatten().get_group())
    config, calibrator = _configs(pipe, plan)
    cache_dit.enable_cache(pipe, cache_config=config, calibrator_config=calibrator)


def adapt(pipe: Any, plan: Plan) -> None:
    """Forget earlier calls, and expect one with the steps and the guidance of this Plan.

    Raises:
        CannotRunError: no SCM mask for this number of steps.
    """
    import cache_dit

    config, calibrator = _configs(pipe, plan)
    cache_dit.refresh_context(pipe.transformer, cache_config=config, calibrator_config=calibrator)


def _splits_two_calls(pipe: Any, plan: Plan) -> bool:
    return plan.mesh.cfg > 1 and hasattr(pipe.transformer, "cache_context")


def _configs(pipe: Any, plan: Plan) -> tuple[Any, Any]:
    """Of the cache and, with TaylorSeer, of its calibrator."""
    import cache_dit

    parameters = dict(plan.cache.parameters)
    two_calls = hasattr(pipe.transformer, "cache_context") and plan.sampling.guidance_branches == 2
    # cache-dit counts calls: it takes each second one for the other branch. Of two calls a step, a rank may make one.
    parameters["enable_separate_cfg"] = two_calls and plan.mesh.cfg == 1
    steps = plan.sampling.num_inference_steps
    taylorseer = parameters.pop("enable_taylorseer")
    order = parameters.pop("taylorseer_order")
    mask_policy = parameters.pop("scm_steps_mask_policy")
    steps_policy = parameters.pop("scm_steps_policy")
    try:
        config = cache_dit.DBCacheConfig(
            **parameters,
            num_inference_steps=steps,
            steps_computation_mask=mask_policy and cache_dit.steps_mask(mask_policy=mask_policy, total_steps=steps),
            steps_computation_policy=steps_policy,
        )
    except (AssertionError, TypeError) as error:
        raise CannotRunError(f"Cache-DiT cannot run with these parameters: {error}") from error
    return config, cache_dit.TaylorSeerCalibratorConfig(taylorseer_order=order) if taylorseer else None


def measure(pipe: Any) -> dict[str, Any]:
    """The steps that were reused, counted from 0."""
    import cache_dit

    stats = cache_dit.summary(pipe, logging=False)[0]
    return {"cached_steps": list(stats.cached_steps)}


def undo(pipe: Any) -> None:
    """Unwrap the blocks."""
    import cache_dit

    cache_dit.disable_cache(pipe)
