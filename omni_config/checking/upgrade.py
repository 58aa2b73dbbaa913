"""What another version of an engine means for a file that stays as it is: new spellings, and defaults that changed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from packaging.version import Version

from omni_config.checking.document import CheckResult
from omni_config.engines.facts import FOLDER, Facts, facts_of
from omni_config.findings import Finding, Span
from omni_config.rules.expressions import parse
from omni_config.schema.settings import FIELDS


@dataclass(frozen=True)
class Renamed:
    """A flag (with dashes in front) or a key of a file that has another name from a version on."""

    old: str
    new: str
    since: str


@dataclass(frozen=True)
class NewDefault:
    """A setting that the file leaves unsaid, its default in each version, and what that does to this deployment."""

    setting: str
    before: Any
    after: Any
    says: str


@cache
def stated(family: str) -> Mapping[str, Any]:
    """The content of an engine's ``upgrade.yaml``: what is ``renamed``, and what its changed ``defaults`` do."""
    path = FOLDER / family.replace("-", "_") / "upgrade.yaml"
    if not path.is_file():
        return {"renamed": (), "defaults": {}}
    import yaml

    content: Mapping[str, Any] = yaml.safe_load(path.read_bytes())
    return content


def renamed(old: CheckResult, new: CheckResult) -> tuple[Renamed, ...]:
    """The flags and keys of another engine's file for which its newer version has another name."""
    if not new.foreign or _versions(old, new) is None:
        return ()
    assert old.resolution is not None
    assert new.resolution is not None
    first, last = (Version(item.resolution.engine.id.partition("==")[2]) for item in (old, new) if item.resolution)
    words = set(_words(old)) | set(_words(new))
    entries = (Renamed(**entry) for entry in stated(new.resolution.engine.family)["renamed"])
    return tuple(entry for entry in entries if first < Version(entry.since) <= last and entry.old in words)


def new_defaults(old: CheckResult, new: CheckResult) -> tuple[NewDefault, ...]:
    """The defaults that changed between two versions of an engine and matter to what this file leaves unsaid."""
    versions = _versions(old, new)
    if versions is None:
        return ()
    assert new.resolution is not None
    q = new.resolution.target.quantities(new.resolution.settings)
    found: dict[str, NewDefault] = {}
    for key, entry in stated(new.resolution.engine.family)["defaults"].items():
        before, after = (default_of(facts, key) for facts in versions)
        name = setting_of(key)
        if "when" not in entry or before == after or name in found or _says(new, name):
            continue
        try:
            matters = parse(entry["when"])(q)
        except TypeError:  # a setting that it asks for has a value that only a run knows
            continue
        if matters:
            found[name] = NewDefault(name, before, after, entry["says"].format_map(q))
    return tuple(found.values())


def default_of(facts: Facts, key: str) -> Any:
    """The default of a flag, or of a field by its class and name; None also where the version has none such."""
    if key.startswith("-"):
        places = facts.data["flags"].get(key)
        return places[0].get("default") if places else None
    return facts.data["fields"].get(key, {}).get("default")


def setting_of(key: str) -> str:
    """The setting that a flag, or a field with its class, is about."""
    return key.lstrip("-").replace("-", "_").rpartition(".")[2]


def word_of(finding: Finding) -> str:
    """The flag or key on which a finding stands; empty where it stands on none."""
    return _word(finding.span) if finding.span else ""


def _versions(old: CheckResult, new: CheckResult) -> tuple[Facts, Facts] | None:
    """The facts of two versions of one engine; None where it is not one, or not known."""
    assert old.resolution is not None
    assert new.resolution is not None
    before, after = old.resolution.engine, new.resolution.engine
    if before.family != after.family or before.id == after.id:
        return None
    facts = facts_of(before.id), facts_of(after.id)
    return (facts[0], facts[1]) if facts[0] and facts[1] else None


def _says(item: CheckResult, name: str) -> bool:
    assert item.document is not None
    assert item.node is not None
    return name in item.document.options or (name in FIELDS and item.node.find(FIELDS[name]) is not None)


def _words(item: CheckResult) -> Iterator[str]:
    """The flags and keys that a file of another engine says, as far as something is known or found of them."""
    for finding in (*item.findings, *item.ignored):
        yield from (_word(span) for span in (finding.span, *finding.related) if span)
    if item.document:
        for node in item.document.options.values():
            yield _word(node.key_span or node.span)


def _word(span: Span) -> str:
    """A flag with its dashes as the engine's pages spell it, or a key."""
    found = re.match(r"(--)?([\w.-]+)", span.source.line(span.line)[span.column - 1 : span.end - 1])
    if found is None:
        return ""
    return f"--{found[2].replace('_', '-')}" if found[1] else found[2]
