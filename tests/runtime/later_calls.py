"""What a case does with its pipeline after the first call; each call's last latents are kept under a name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from omni_config.plan import Plan
from runtime.features.feature import Handle
from runtime.pipeline import apply

#: Calls the pipeline with changed arguments, and keeps what it made under the name.
Call = Callable[..., None]


def undone(handles: dict[str, Handle], call: Call) -> None:
    """The same call again; then every feature is undone, the last one first, and it is called once more."""
    call("again")
    apply.undo(handles)
    call("undone")


def guidance(pipe: Any, plan: Plan, call: Call) -> None:
    """Calls whose steps have no guidance, or end early, or fail between the branches; and a plain call after each."""
    off = {"guidance_scale": 1.0} if hasattr(pipe, "video_processor") else {"true_cfg_scale": 1.0}
    batched = plan.guidance_calls == "batched"
    call("without guidance", **({"guidance_scale": 0.0} if batched else off))
    call("after that")

    def stop(pipe: Any, step: int) -> None:
        pipe._interrupt = step >= 1

    call("interrupted", at_step=stop)
    call("after the interruption")
    if batched:
        call("truncated and normalised", cfg_truncation=0.6, cfg_normalization=True)
    elif hasattr(pipe, "video_processor"):

        def end_guidance(pipe: Any, step: int) -> None:
            pipe._guidance_scale = 1.0 if step >= 1 else 4.0

        call("guidance at the start", at_step=end_guidance)
    if not batched:
        context = pipe.transformer.cache_context

        def failing(name: str, **where: Any) -> Any:
            if name == "uncond":
                raise InterruptedError
            return context(name, **where)

        pipe.transformer.cache_context = failing
        try:
            call("failed between the branches")
        except InterruptedError:
            pipe.transformer.cache_context = context
        call("after the failure")
