"""Repairs of a file: the safe ones leave what runs as it is, the others take the nearest configuration that works.

What is of another engine is edited in its own words (``fix_foreign``).
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from omni_config.checking.choices import Choices
from omni_config.checking.document import CheckResult
from omni_config.checking.edit import CannotEdit, Edit, apply, changed_part, rename_key
from omni_config.checking.files import check_bytes
from omni_config.checking.schema_findings import key_suggestion
from omni_config.engines.words import Words
from omni_config.findings import Finding
from omni_config.resolving.resolver import Resolution, resolve_settings
from omni_config.resolving.search import conflict, nearest
from omni_config.rules.quantities import THEIRS
from omni_config.rules.rule import Rule
from omni_config.schema.settings import FIELDS, PARAMETERS, Settings, validate

MOST_ROUNDS = 20  # each round repairs at least one finding; more rounds than findings would be a loop


@dataclass(frozen=True)
class Repaired:
    """A text after its repairs: the findings that were repaired, and those that could not be edited in place."""

    before: str
    after: str
    applied: tuple[Finding, ...]
    failed: tuple[str, ...] = ()

    def diff(self, name: str) -> str:
        """The repairs as a unified diff."""
        lines = difflib.unified_diff(
            self.before.splitlines(keepends=True), self.after.splitlines(keepends=True), name, name
        )
        return "".join(line if line.endswith("\n") else line + "\n" for line in lines)


def fix(
    name: str, text: str, *, unsafe: bool = False, policies: tuple[Rule, ...] = (), choices: Choices | None = None
) -> Repaired:
    """Repair a text until nothing more can be repaired of what is asked for.

    Raises:
        CannotCheck: the table of the repository cannot be used.
    """
    choices = choices or Choices(policies=policies)
    current = text
    applied: list[Finding] = []
    failed: dict[str, None] = {}
    for _ in range(MOST_ROUNDS):
        for checked in choices.check(name, current.encode()):
            try:
                step = _step(checked, unsafe, choices.policies, failed)
            except CannotEdit as error:
                failed[str(error)] = None
                continue
            if step is not None:
                current, repaired = step
                applied += repaired
                break
        else:
            break
    return Repaired(text, current, tuple(applied), tuple(failed))


def settings_written(checked: CheckResult) -> Settings:
    """The settings of a checked document as its author wrote them, before any adjustment; with the engine's own."""
    assert checked.node is not None
    assert checked.document is not None
    own = {THEIRS + name: option.value for name, option in checked.document.options.items()}
    return validate(checked.node.value) | own


#: Settings that decide what the image shows: no repair touches them where another one works.
IMAGE = {name for name, path in FIELDS.items() if path[0] in ("sampling", "model", "lora")}


def nearest_changes(checked: CheckResult, most: int = 3) -> list[Settings]:
    """The smallest changes after which a document has no errors, of what its file can say and the image does not show;
    others only where none of these work.
    """
    target = checked.unaccepted
    if not target.card.pipeline:  # of a file that names no model
        return []
    settings, words = settings_written(checked), words_of(checked)
    unsaid = {name for name in FIELDS if not words.can_say(name)} if words else set()
    found: list[Settings] = []
    for fixed in (IMAGE | unsaid, IMAGE, unsaid, set()) if unsaid else (IMAGE, set()):
        found = nearest(settings, target, fixed=fixed, most=most)
        if words and fixed >= unsaid:
            said = [step for step in found if all(words.phrase(*change) is not None for change in step.items())]
            found = said or ([] if fixed else found)
        if found:
            break

    def cost(changes: Settings) -> tuple[int, int, int]:
        left = resolve_settings(settings | changes, target).findings
        said = sum(words.said(name) is not None for name in changes) if words else 0
        return len(changes), sum(finding.severity == "warning" for finding in left), said

    return sorted(found, key=cost)


def words_of(checked: CheckResult) -> Words | None:
    """What the text of a file of another engine calls our settings; None for a file of ours."""
    return checked.document.words if checked.document else None


def repair_of(finding: Finding, checked: CheckResult) -> Settings | None:
    """The first repair of a finding's own rule, as changes of settings."""
    if checked.resolution is None:
        return None
    if finding.changes:
        return dict(finding.changes)
    rule = _rule(finding, checked.resolution)
    repairs = rule.repairs_for(checked.resolution.target.quantities(checked.resolution.settings)) if rule else []
    words = words_of(checked)
    if words:
        repairs = [step for step in repairs if all(words.phrase(*change) is not None for change in step.items())]
    return min(repairs, key=lambda changes: bool(changes.keys() & IMAGE)) if repairs else None


def _rule(finding: Finding, resolution: Resolution) -> Rule | None:
    """The rule that has found it; None where that was the reader of the file."""
    return next((rule for rule in resolution.target.rules if rule.code == finding.code), None)


def _step(
    checked: CheckResult, unsafe: bool, policies: tuple[Rule, ...], failed: dict[str, None]
) -> tuple[str, list[Finding]] | None:
    """The next repair of a document; what could not be edited, where others may be, goes to ``failed``."""
    if checked.resolution is None:
        if unsafe and checked.foreign and checked.exit_code:
            raise CannotEdit(_by_hand([finding for finding in checked.findings if finding.severity == "error"]))
        return _rename(checked) if unsafe else None
    for finding in checked.findings:
        rule = _rule(finding, checked.resolution)
        changes = repair_of(finding, checked) if rule and rule.safe else None
        try:
            if changes and (text := _applied(checked, changes, policies)) is not None:
                return text, [finding]
        except CannotEdit as error:
            if not checked.foreign:
                raise
            failed[f"{finding.code}: {error}"] = None
    broken = [finding for finding in checked.findings if finding.severity == "error"]
    if unsafe and broken:
        return _respelled(checked, broken, policies) or _nearest_step(checked, broken, policies)
    return None


def _by_hand(broken: list[Finding]) -> str:
    """Why nothing is edited, and what is to be done."""
    steps = {finding.code: finding.next_step for finding in broken}
    return "; ".join(f"{code} has no repair that is known here, so by hand: {step}" for code, step in steps.items())


def _respelled(
    checked: CheckResult, broken: list[Finding], policies: tuple[Rule, ...]
) -> tuple[str, list[Finding]] | None:
    """A file of another engine with its misspelt words righted, and what is then left repaired: all or nothing."""
    if not checked.foreign:
        return None
    from omni_config.checking.fix_foreign import respelled

    if (text := respelled(checked, policies)) is None:
        return None
    assume = checked.document.assume if checked.document else {}
    after = check_bytes(checked.source.name, text.encode(), policies, assume)[checked.index]
    left = [finding for finding in after.findings if finding.severity == "error"]
    step = _respelled(after, left, policies) if left else None
    if left and step is None and after.resolution is not None:
        step = _nearest_step(after, left, policies)
    return (step[0] if step else text), broken


def _nearest_step(
    checked: CheckResult, broken: list[Finding], policies: tuple[Rule, ...]
) -> tuple[str, list[Finding]] | None:
    """The nearest configuration that works and can be written."""
    reason = _by_hand(broken)
    if checked.foreign and not checked.unaccepted.card.pipeline:
        reason = f"the file names no model that is known here, so no configuration is searched for; {reason}"
    for changes in nearest_changes(checked, most=3 if checked.foreign else 1):
        try:
            if (text := _applied(checked, changes, policies, clean=True)) is not None:
                return text, broken
        except CannotEdit as error:
            if not checked.foreign:
                raise
            reason = str(error)
    if checked.foreign:
        raise CannotEdit(reason)
    return None


def edit_after(checked: CheckResult, changes: Settings) -> Edit | None:
    """``text_after`` as the one edit that makes it."""
    after = text_after(checked, changes)
    return None if after is None else changed_part(checked.source.text, after)


def text_after(checked: CheckResult, changes: Settings) -> str | None:
    """The text of a file after changes; None where they change nothing, or cannot be written into it."""
    try:
        return _applied(checked, changes)
    except CannotEdit:
        return None


def _applied(
    checked: CheckResult, changes: Settings, policies: tuple[Rule, ...] = (), clean: bool = False
) -> str | None:
    if checked.foreign:
        from omni_config.checking.fix_foreign import edited

        text = edited(checked, changes, policies, clean=clean)
    else:
        text = apply(checked.source, checked.index, changes)
    return None if text == checked.source.text else text


def _rename(checked: CheckResult) -> tuple[str, list[Finding]] | None:
    for finding in checked.findings:
        path = tuple(finding.fields[0].split(".")) if finding.code == "OMNI904" else ()
        name = key_suggestion(path) if path else None
        if name and checked.node is not None and checked.node.find((*path[:-1], name)) is None:
            return rename_key(checked.source, checked.node, path, name), [finding]
    return None


def diff_of(checked: CheckResult, changes: Settings) -> list[str]:
    """The lines that changes remove from a file (``- ...``) and add to it (``+ ...``), in its own words."""
    if words_of(checked):
        return lines_of(checked, changes)
    try:
        after = apply(checked.source, checked.index, changes)
    except CannotEdit:
        return [f"+ {'.'.join(FIELDS[name])}: {value}{SHOWN * (name in IMAGE)}" for name, value in changes.items()]
    lines = list(difflib.unified_diff(checked.source.text.splitlines(), after.splitlines(), n=0, lineterm=""))[2:]
    shown = re.compile(rf"\b({'|'.join(FIELDS[name][-1] for name in changes if name in IMAGE) or 'none of them'})[:\s]")
    return [f"{line[0]} {line[1:]}{SHOWN * bool(shown.search(line))}" for line in lines if line[0] in "+-"]


def lines_of(checked: CheckResult, changes: Settings) -> list[str]:
    """The same for a file of another engine, each setting by itself; of a file of ours, its settings."""
    words, before = words_of(checked), settings_written(checked)
    found = []
    for name, value in changes.items():
        lines = words.lines(name, before[name], value) if words else [f"+ {'.'.join(FIELDS[name])}: {_shown(value)}"]
        found += [line + SHOWN * (name in IMAGE) for line in lines]
        for inner in PARAMETERS.get(name, ()) if not value else ():  # which go with their switch
            said = words.said(inner) if words else None
            if words and said and said.way.kind == "word":
                found.append(f"- {words.phrase(inner, before[inner])}")
    return found


#: What is said of a line of a repair that changes what the image shows.
SHOWN = " (changes the image)"


def conflict_of(checked: CheckResult) -> list[str]:
    """The smallest set of written settings that cannot hold together, in the file's words; empty: there is none."""
    assert checked.resolution is not None
    assert checked.node is not None
    if not checked.resolution.card.pipeline:  # of a file that names no model
        return []
    settings, words = settings_written(checked), words_of(checked)
    concerned = {name for finding in checked.findings if finding.severity == "error" for name in finding.fields}
    written = [name for name in FIELDS if name in concerned and checked.node.find(FIELDS[name]) is not None]
    written = [name for name in written if words is None or words.said(name) is not None]
    core = conflict(settings, checked.unaccepted, written)
    shown = {name: f"{'.'.join(FIELDS[name])}: {_shown(settings[name])}" for name in core}
    return [(words.phrase(name, settings[name]) if words else "") or ours for name, ours in shown.items()]


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
