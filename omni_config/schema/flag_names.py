"""Names of flags: the document's own words with dashes, and the short forms of vLLM-Omni's guide."""

from __future__ import annotations

ALIASES = {"ulysses_degree": ["--usp"], "ring_degree": ["--ring"], "cfg_scale": ["--true-cfg-scale"]}


def dashed(name: str) -> str:
    """``ulysses_degree`` as ``--ulysses-degree``."""
    return "--" + name.replace("_", "-")
