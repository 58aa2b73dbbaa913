"""What a shell completes as the value of an option."""

from __future__ import annotations

from omni_config.catalog.load import catalog


def models(begun: str) -> list[str]:
    """Models with a card."""
    return [name for name in catalog().model_ids if name.lower().startswith(begun.lower())]


def engines(begun: str) -> list[str]:
    """Engines in the versions that are known."""
    return [name for name in catalog().engine_ids if name.startswith(begun)]


def codes(begun: str) -> list[tuple[str, str]]:
    """Codes of rules, with their names."""
    return [(rule.code, rule.name) for rule in catalog().rules if rule.code.startswith(begun.upper())]


def gpus(begun: str) -> list[tuple[str, str]]:
    """GPUs of which memory and speed are known."""
    from omni_config.estimate.data import gpus as known

    return [(gpu.id, gpu.title) for gpu in known().values() if gpu.id.startswith(begun)]
