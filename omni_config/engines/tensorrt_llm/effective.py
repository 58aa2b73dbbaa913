"""What TensorRT-LLM VisualGen makes of a deployment where nothing is said."""

from __future__ import annotations

from omni_config.engines.facts import Facts
from omni_config.engines.formats.draft import Draft


def decide(draft: Draft, facts: Facts) -> None:
    """Add what the engine chooses to a deployment."""
    field = facts.field("CpuOffloadConfig", "pin_memory")
    if field and draft.get("enable_cpu_offload") is True and not draft.has("pin_cpu_memory"):
        draft.decide("pin_cpu_memory", field["default"], "default", "its published schema, CpuOffloadConfig.pin_memory")
