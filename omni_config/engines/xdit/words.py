"""How commands and scripts of xDiT say our settings."""

from __future__ import annotations

from collections.abc import Iterator

from omni_config.engines.formats.draft import Draft
from omni_config.engines.formats.way import ALL, Way, as_keys, guidance, of_flags
from omni_config.engines.xdit.read import CACHES, FLAGS


def ways(draft: Draft) -> Iterator[Way]:
    """The ways of its commands and scripts."""
    found = [
        *(Way(setting, ("cache-method",), True, method) for method, setting in CACHES.items()),
        *of_flags(FLAGS),
        Way("vae_patch_parallel_size", ("use-parallel-vae",), ALL),
        Way("hsdp_shard_size", ("fully-shard-degree",)),
        guidance(draft),
    ]
    yield from found if draft.form == "command" else as_keys(found, "")
