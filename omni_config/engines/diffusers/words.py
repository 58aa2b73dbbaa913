"""How scripts of diffusers say our settings."""

from __future__ import annotations

from collections.abc import Iterator

from omni_config.engines.diffusers.read import METHODS, SAMPLING, SETTINGS
from omni_config.engines.formats.draft import Draft
from omni_config.engines.formats.way import Way, guidance


def ways(draft: Draft) -> Iterator[Way]:
    """The ways of its scripts: arguments of its classes, methods, and what the pipeline is called with."""
    yield from (Way(setting, (owner, name)) for (owner, name), setting in SETTINGS.items())
    yield Way("ulysses_mode", ("ContextParallelConfig", "ulysses_anything"), "advanced_uaa")
    yield Way("dtype", ("from_pretrained", "torch_dtype"))
    yield from (Way(setting, ("", name)) for name, setting in SAMPLING.items())
    argument = guidance(draft, "guidance_scale")
    yield Way(argument.setting, ("", *argument.path))
    yield from (
        Way(name, (method,), kind="call") for method, names in METHODS.items() if len(names) == 1 for name in names
    )
