"""What xDiT's runner makes of a deployment where nothing is said: its processes, and the model's own defaults."""

from __future__ import annotations

from typing import Any

from omni_config.engines.facts import Facts
from omni_config.engines.formats.draft import Draft

#: What a call may leave to the model's class.
_REQUEST = ("num_inference_steps", "width", "height", "num_frames", "negative_prompt", "guidance_scale")


def decide(draft: Draft, facts: Facts) -> None:
    """Add what the runner chooses to a deployment."""
    model = str(draft.options["model"].value) if "model" in draft.options else str(draft.get("model"))
    found = next((one for one in facts.pipelines.values() if model in one.get("names", ())), None)
    if found is None:
        return
    _defaults(draft, found.get("default_input_values", {}), found.get("default_input_values_at", ""))
    settings, at = found.get("settings", {}), found.get("settings_at", "")
    if (
        isinstance(backend := settings.get("default_attention_backend"), str)
        and "attention_backend" not in draft.options
    ):
        draft.decide("attention_backend", backend, "default", at)
    caches = settings.get("step_cache_config")
    method = draft.options.get("cache_method")
    preset = caches.get(method.value, {}) if isinstance(caches, dict) and method else {}
    if isinstance(preset, dict) and isinstance(preset.get("preset"), dict):
        for name, value in preset["preset"].items():
            draft.decide(name, value, "default", at, f"the preset of {method.value if method else ''} for this model")


def _defaults(draft: Draft, values: dict[str, Any], at: str) -> None:
    for name in _REQUEST:
        if values.get(name) is not None and name not in draft.options:
            draft.decide(name, values[name], "default", at)
