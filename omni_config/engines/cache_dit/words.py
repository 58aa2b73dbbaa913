"""How files, scripts and commands of cache-dit say our settings."""

from __future__ import annotations

from collections.abc import Iterator

from omni_config.engines.cache_dit.read import CACHE_FLAGS, FLAGS, PARALLEL
from omni_config.engines.diffusers.words import ways as of_diffusers
from omni_config.engines.formats.draft import Draft
from omni_config.engines.formats.way import Way, of_flags
from omni_config.schema.settings import PARAMETERS


def ways(draft: Draft) -> Iterator[Way]:
    """The ways of its commands, scripts and files."""
    if draft.form == "command":
        yield from of_flags(FLAGS)
        yield from (Way(setting, (flag,)) for flag, (setting, _) in CACHE_FLAGS.items())
        yield Way("cache_dit", ("cache",), True)
        yield Way("ulysses_mode", ("ulysses-anything",), "advanced_uaa")
        return
    python = draft.form == "python"
    cache, parallel = ("DBCacheConfig", "ParallelismConfig") if python else ("cache_config", "parallelism_config")
    yield Way("cache_dit", ("enable_cache",) if python else (cache,), True, kind="call" if python else "word")
    yield from (Way(name, (cache, name)) for name in PARAMETERS["cache_dit"])
    yield from (Way(setting, (parallel, key)) for key, setting in PARALLEL.items())
    yield Way("ulysses_mode", (parallel, "ulysses_anything"), "advanced_uaa")
    if python:
        yield Way("taylorseer_order", ("TaylorSeerCalibratorConfig", "taylorseer_order"))
        yield from of_diffusers(draft)
