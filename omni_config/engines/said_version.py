"""Which version of an engine a deployment itself names: an image's tag, or a requirement for pip."""

from __future__ import annotations

import re
from typing import NamedTuple

from omni_config.engines import ENGINES

#: Packages and images, by the engine that they hold.
_PACKAGES = {package: name for name, engine in ENGINES.items() for package in engine.packages or (name,)}
_SAID = re.compile(
    rf"(?<![\w.-])({'|'.join(_PACKAGES)})(?:\[[\w,-]+\])?\s*(?:==\s*|:v?)(\d+(?:\.\d+)+(?:(?:rc|a|b|\.post)\d+)?)"
)


class SaidVersion(NamedTuple):
    """A version that a text names, and the words that do."""

    version: str
    words: str


def said_version(text: str, engine: str, offset: int) -> SaidVersion | None:
    """The version of an engine that holds at ``offset``: the last one that is named before it, else the first after."""
    found = [match for match in _SAID.finditer(text) if _PACKAGES[match[1]] == engine]
    if not found:
        return None
    before = [match for match in found if match.start() <= offset]
    match = before[-1] if before else found[0]
    return SaidVersion(match[2], match[0])
