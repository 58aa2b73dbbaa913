"""What changes between two deployments: settings as resolved, what follows from them, findings, and guarantees lost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from omni_config.checking.document import CheckResult
from omni_config.checking.export import unwritten
from omni_config.checking.upgrade import NewDefault, Renamed, lost_pipeline, new_defaults, renamed, word_of
from omni_config.findings import Finding
from omni_config.mesh import Mesh
from omni_config.schema.settings import FIELDS

Change = tuple[Any, Any]
#: What is not known of a file: that it is more or less says nothing of the deployment.
_NOT_KNOWN = ("OMNI604", "OMNI605")


@dataclass(frozen=True)
class Difference:
    """Before and after. ``settings`` are by their path in the document; ``facts`` are what follows from them.

    ``renamed`` and ``defaults`` are of another version of the same engine.
    """

    settings: dict[str, Change]
    facts: dict[str, Change]
    renamed: tuple[Renamed, ...]
    defaults: tuple[NewDefault, ...]
    appeared: tuple[Finding, ...]
    disappeared: tuple[Finding, ...]
    lost: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "settings": {name: list(change) for name, change in self.settings.items()},
            "facts": {name: list(change) for name, change in self.facts.items()},
            "renamed": [asdict(item) for item in self.renamed],
            "defaults": [asdict(item) for item in self.defaults],
            "appeared": [finding.to_dict() for finding in self.appeared],
            "disappeared": [finding.to_dict() for finding in self.disappeared],
            "lost": list(self.lost),
        }


def compare(old: CheckResult, new: CheckResult) -> Difference:
    """Two documents that could be resolved.

    Raises:
        ValueError: one of them cannot be used at all.
    """
    if old.resolution is None or new.resolution is None:
        raise ValueError("a config that cannot be read cannot be compared")
    before, after = old.resolution.settings, new.resolution.settings
    settings = {
        ".".join(path): (before[name], after[name]) for name, path in FIELDS.items() if before[name] != after[name]
    }
    facts_before, facts_after = _facts(old), _facts(new)
    facts = {name: (value, facts_after[name]) for name, value in facts_before.items() if value != facts_after[name]}
    said_before, said_after = _keys(old), _keys(new)
    other_names = renamed(old, new)
    return Difference(
        settings,
        facts,
        other_names,
        new_defaults(old, new),
        tuple(_respelled(finding, other_names) for key, finding in said_after.items() if key not in said_before),
        tuple(finding for key, finding in said_before.items() if key not in said_after),
        (
            *(
                f"{name}: {facts_before[name]} to {facts_after[name]}"
                for name, kept, gone in (("quality", "lossless", "lossy"), ("runs", "yes", "no"), ("fits", "yes", "no"))
                if facts_before[name] == kept and facts_after[name] == gone
            ),
            *([f"pipeline: {gone}"] if (gone := lost_pipeline(old, new)) else ()),
            *_refused(old, new),
            *_ignored(old, new),
        ),
    )


def _refused(old: CheckResult, new: CheckResult) -> Iterator[str]:
    """Errors about what was no error before, however it was worded."""
    known = {_about(finding) for finding in old.findings if finding.severity == "error"}
    for finding in new.findings:
        if finding.severity == "error" and _about(finding) not in known:
            yield f"{finding.code} {finding.message}"


def _about(finding: Finding) -> tuple[str, str]:
    """What a finding is about: the setting to look at first, or the flag or key of another engine's file."""
    return finding.code, finding.fields[0] if finding.fields else word_of(finding)


def _respelled(finding: Finding, other_names: tuple[Renamed, ...]) -> Finding:
    """A finding about a name that the engine no longer has, with the new one as its next step."""
    for name in other_names:
        if not finding.fields and word_of(finding) == name.old:
            return replace(finding, next_step=f"write {name.new}")
    return finding


def _ignored(old: CheckResult, new: CheckResult) -> Iterator[str]:
    """Settings that a deployment says and its engine changes, or has no words for, where the one before kept them.

    An engine that stays has the same words as before.
    """
    kept = {name for finding in old.findings for name, _ in finding.changes}
    for finding in new.findings:
        changed = [name for name, _ in finding.changes if name not in kept]
        if changed:
            yield f"{', '.join('.'.join(FIELDS[name]) for name in changed)}: {finding.code} {finding.message}"
    assert old.resolution is not None
    assert new.resolution is not None
    if old.resolution.engine is new.resolution.engine:
        return
    known = unwritten(old)
    for name in unwritten(new):
        if name not in known:
            yield f"{'.'.join(FIELDS[name])}: {new.resolution.engine.id} has nothing like it and ignores it"


def _facts(item: CheckResult) -> dict[str, Any]:
    """What a reviewer asks: does it run, on how many ranks, is the result that of one GPU, does it fit."""
    assert item.resolution is not None
    resolution = item.resolution
    q = resolution.target.quantities(resolution.settings)
    lossy = [feature.title for feature in q.features.values() if feature.lossy and q[feature.name]]
    fits = None
    said = q["memory"] is not None or q["gpu"] is not None
    if said and q["gpu_memory"] is not None and q["estimated_gib"] is not None:
        fits = "no" if any(finding.code == "OMNI801" for finding in resolution.findings) else "yes"
    return {
        "runs": "yes" if item.exit_code == 0 else "no",
        "ranks": q["world_size"],
        "mesh": f"{Mesh.of(resolution.settings, nodes=q['nodes'])}{q['further_degrees']}",
        "quality": "lossy" if lossy else "lossless",
        "lossy features": ", ".join(lossy) or "none",
        "GiB a GPU": q["estimated_gib"],
        "fits": fits,
    }


def _keys(item: CheckResult) -> dict[tuple[str, str], Finding]:
    """Findings by what they say, whatever the engine is called."""
    assert item.resolution is not None
    name = item.resolution.engine.id
    return {
        (finding.code, finding.message.replace(name, "")): finding
        for finding in item.findings
        if not (item.foreign and finding.code in _NOT_KNOWN)
    }
