"""How commands and files of SGLang-diffusion say our settings."""

from __future__ import annotations

from collections.abc import Iterator

from omni_config.engines.formats.draft import Draft
from omni_config.engines.formats.way import Way, as_keys, guidance, of_flags
from omni_config.engines.sglang.read import FLAGS, SWITCH, VARIABLES


def ways(draft: Draft) -> Iterator[Way]:
    """The ways of its commands, scripts and files."""
    found = [
        *of_flags(FLAGS),
        guidance(draft),
        Way("offload_components", ("component-residency",)),
        *(Way("offload_components", (flag,)) for flag in ("layerwise-offload-components", "cpu-offload-components")),
    ]
    if draft.form == "command":
        yield from found
        yield Way("cache_dit", (SWITCH,), kind="variable")
        yield from (Way(name, (variable,), kind="variable") for variable, name in VARIABLES.items())
    else:
        yield from as_keys(found, *([""] if draft.form == "python" else []))
