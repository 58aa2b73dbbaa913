"""What another version of an engine means for a file that stays as it is: new spellings, and defaults that changed."""

from __future__ import annotations

import difflib
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
    first, last = _engine(old).partition("==")[2], _engine(new).partition("==")[2]
    words = {*_words(old), *_words(new)}
    entries = (Renamed(**entry) for entry in stated(_engine(new).partition("==")[0])["renamed"])
    return tuple(
        entry for entry in entries if Version(first) < Version(entry.since) <= Version(last) and entry.old in words
    )


def new_defaults(old: CheckResult, new: CheckResult) -> tuple[NewDefault, ...]:
    """The defaults that changed between two versions of an engine and matter to what this file leaves unsaid."""
    versions = _versions(old, new)
    if versions is None:
        return ()
    assert new.resolution is not None
    q = new.resolution.target.quantities(new.resolution.settings)
    found: dict[str, NewDefault] = {}
    for key, entry in stated(_engine(new).partition("==")[0])["defaults"].items():
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


def lost_pipeline(old: CheckResult, new: CheckResult) -> str:
    """What to say where only the older version registers the class of the model, and no finding says so; else empty."""
    versions = _versions(old, new)
    if versions is None or any(finding.code == "OMNI614" for finding in new.findings):
        return ""
    assert old.resolution is not None
    assert old.document is not None
    name, form = old.resolution.card.pipeline, old.document.options.get("diffusion_load_format")
    before, after = ({key.removeprefix("pipeline ") for key in facts.pipelines} for facts in versions)
    if name not in before or name in after or (form and form.value == "diffusers"):
        return ""
    near = difflib.get_close_matches(name, sorted(after), 1, 0.6)
    return f"{name} is no longer registered{f' (did you mean {near[0]}?)' if near else ''}"


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
    if _engine(old) == _engine(new) or _engine(old).partition("==")[0] != _engine(new).partition("==")[0]:
        return None
    before, after = facts_of(_engine(old)), facts_of(_engine(new))
    return (before, after) if before and after else None


def _engine(item: CheckResult) -> str:
    assert item.resolution is not None
    return item.resolution.engine.id


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
