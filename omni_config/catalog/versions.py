"""Versions of engines as pip writes them: ``vllm-omni==0.30.0`` is ``vllm-omni==0.30``, ``vllm-omni>=0.30`` a range.

Ranges are resolved when the catalog is compiled, so that a check compares names only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

_REQUIREMENT = re.compile(r"([a-z][a-z0-9-]*)\s*((?:[=<>~!]=|[<>]).*)?", re.DOTALL)


def family(engine: str) -> str:
    """The engine without its version."""
    return engine.partition("==")[0]


def resolve(stated: str, engines: Mapping[str, Iterable[str]]) -> list[str]:
    """The ids that a requirement means; ``engines`` are all ids, each with its aliases.

    A name alone means every version, another alias the card that it stands for.

    Raises:
        ValueError: it is no requirement, or means no engine that is known.
    """
    found = [name for name, aliases in engines.items() if stated in aliases and stated != family(name)]
    match = _REQUIREMENT.fullmatch(stated)
    if match and not found:
        named, versions = match[1], match[2]
        found = [
            name
            for name, aliases in engines.items()
            if family(name) == named and (not versions or any(_within(known, versions) for known in (name, *aliases)))
        ]
    if not found:
        raise ValueError(f"no engine is {stated}; known: {', '.join(engines)}")
    return found


def _within(engine: str, versions: str) -> bool:
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    version = engine.partition("==")[2]
    try:
        return bool(version) and SpecifierSet(versions).contains(version, prereleases=True)
    except InvalidSpecifier:
        return False


def newest_first(engines: Iterable[str]) -> list[str]:
    """Those that name a version; a release candidate is older than any release, as for pip."""
    from packaging.version import Version

    versions = {name: Version(name.partition("==")[2]) for name in engines if "==" in name}
    return sorted(versions, key=lambda name: (not versions[name].is_prerelease, versions[name]), reverse=True)


def same(engine: str, engines: Iterable[str]) -> str | None:
    """The one of the engines that is the same version, written differently; None where none is."""
    from packaging.version import InvalidVersion, Version

    named, equals, version = (part.strip() for part in engine.partition("=="))
    try:
        wanted = Version(version) if equals else None
    except InvalidVersion:
        wanted = None
    if wanted is None:
        return None
    known = (name for name in engines if family(name) == named and "==" in name)
    return next((name for name in known if Version(name.partition("==")[2]) == wanted), None)


def neighbours(engine: str, engines: Iterable[str]) -> list[str]:
    """The nearest versions that are known, the older one first; empty where the engine is not, or it is no version."""
    from packaging.version import InvalidVersion, Version

    named, _, version = (part.strip() for part in engine.partition("=="))
    known = {name: Version(name.partition("==")[2]) for name in engines if family(name) == named and "==" in name}
    try:
        wanted = Version(version)
    except InvalidVersion:
        return []
    older = [name for name in known if known[name] < wanted]
    newer = [name for name in known if known[name] > wanted]
    nearest = [max(older, key=known.__getitem__)] if older else []
    return [*nearest, min(newer, key=known.__getitem__)] if newer else nearest
