"""Files in, located findings out."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic_core import ValidationError

from omni_config.catalog.load import catalog
from omni_config.findings import Finding, Source, Span, spoken
from omni_config.reading.ignores import apply_ignores
from omni_config.reading.nodes import Node, Unreadable, decode, parse
from omni_config.resolving.resolver import Resolution, resolve_settings
from omni_config.rules.rule import Rule
from omni_config.schema.settings import FIELDS, Settings, keys_of, validate

if TYPE_CHECKING:
    from omni_config.cards import ModelCard
    from omni_config.plan import Plan
    from omni_config.schema.document import Document


@dataclass(frozen=True)
class Checked:
    """One document of a file after its check. ``resolution`` is None where the document could not be read."""

    source: Source
    findings: tuple[Finding, ...]
    resolution: Resolution | None = None
    node: Node | None = None
    index: int = 0  # of the document in its file
    ignored: tuple[Finding, ...] = ()
    foreign: bool = False  # a file of another engine, in whose text our keys do not stand
    left_out: tuple[str, ...] = ()  # its flags on which nothing depends that is judged here

    @property
    def plan(self) -> Plan | None:
        """The Plan of a document without errors, but for those that a comment accepts."""
        return self.resolution.accepted_plan() if self.resolution and self.exit_code == 0 else None

    @property
    def exit_code(self) -> int:
        """0 clean (warnings and advice included), 1 findings, 2 a document that cannot be used at all."""
        if not any(finding.severity == "error" for finding in self.findings):
            return 0
        return 1 if self.resolution else 2


def check(path: str | Path, policies: tuple[Rule, ...] = (), assume: Mapping[str, str] | None = None) -> list[Checked]:
    """Check every document of a file; a file that cannot be read is one Checked with a finding that says so.

    ``policies`` are an organisation's own rules (``omni_config.catalog.policies``). ``assume`` says the model, and the
    version of the engine, of a file of another engine that does not say them (``omni_config.checking.other_engines``).
    """
    name = str(path)
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        return [_unusable(Source(name, ""), "OMNI902", (error.strerror or "cannot be read").lower())]
    return check_bytes(name, data, policies, assume)


def check_bytes(
    name: str, data: bytes, policies: tuple[Rule, ...] = (), assume: Mapping[str, str] | None = None
) -> list[Checked]:
    """``check`` for a text that is in memory."""
    source = Source(name, "")
    nodes: list[Node] | None = None
    unreadable = None
    try:
        source = decode(name, data)
        nodes = parse(source)
    except Unreadable as error:
        unreadable = error.finding
    if source.text and not any(_is_ours(node) for node in nodes or ()):
        from omni_config.checking.other_engines import check_foreign

        if found := check_foreign(source, nodes, policies, assume):
            return found
    if nodes is None:
        assert unreadable is not None
        return [Checked(source, (documented(unreadable),))]
    if not nodes:
        return [_unusable(source, "OMNI906", "the file is empty; it needs at least version and model")]
    starts = [node.span.line for node in nodes[1:]]
    result = []
    for index, (node, first, end) in enumerate(zip(nodes, [1, *starts], [*starts, sys.maxsize], strict=True)):
        checked = replace(check_node(source, node, policies), index=index)
        remaining, ignored = apply_ignores(source, checked.findings, range(first, end))
        findings = tuple(finding if finding.name else documented(finding) for finding in remaining)
        result.append(replace(checked, findings=findings, ignored=tuple(ignored)))
    return result


def _is_ours(node: Node) -> bool:
    return isinstance(node.value, dict) and "version" in node.value and "model" in node.value


def load(path: str | Path) -> Document:
    """The document in a file.

    Raises:
        ValueError: it cannot be read or does not fit the schema; the message is the first finding.
    """
    try:
        source = decode(str(path), Path(path).read_bytes())
        node = parse(source)[0]
    except Unreadable as error:
        raise ValueError(f"{error.finding.span}: {error.finding.code} {error}") from None
    except IndexError:
        raise ValueError(f"{path}:1:1: OMNI906 the file is empty") from None
    settings, findings = _validate(node)
    if settings is None:
        raise ValueError(f"{findings[0].span}: {findings[0].code} {findings[0].message}")
    from omni_config.schema.document import Document

    return Document.model_validate(node.value)


def check_node(
    source: Source, node: Node, policies: tuple[Rule, ...] = (), stand_in: ModelCard | None = None
) -> Checked:
    """Check one parsed document; ``stand_in`` is judged, as far as that goes, where the model has no card."""
    settings, findings = _validate(node)
    if settings is None:
        return Checked(source, tuple(documented(finding) for finding in findings), node=node)
    known = catalog()
    card, engine = known.model(settings["model"]), known.engine(settings["engine"])
    if card is None and Path(settings["model"]).is_dir():
        from omni_config.catalog.folder_card import card_of_folder

        try:
            card = card_of_folder(Path(settings["model"]), known)
        except ValueError as error:
            place, fix = node.children["model"].span, "name a diffusers folder of a known pipeline"
            findings.append(Finding("OMNI501", f"{settings['model']}: {error}", fix=fix, fields=("model",), span=place))
    elif card is None and stand_in is None:
        findings.append(_unknown("OMNI501", "model", settings["model"], known.model_ids, node))
    if engine is None:
        near = known.nearest_engines(settings["engine"])
        findings.append(_unknown("OMNI502", "engine", settings["engine"], known.engine_ids, node, near))
    rules = (*known.rules, *policies)
    if card is None and engine is not None and stand_in is not None and not findings:
        from omni_config.checking.other_engines import rules_without_model

        card, rules = stand_in, rules_without_model(rules, settings, engine)
    if card is None or engine is None:
        return Checked(source, tuple(documented(finding) for finding in findings), node=node)
    resolution = resolve_settings(settings, card, engine, rules)
    findings = [_locate(finding, node) for finding in resolution.findings]
    if engine.id == "native":
        findings += map(documented, _missing_adapters(settings, node))
    located = sorted(findings, key=_place)
    return Checked(source, tuple(located), resolution, node)


def _missing_adapters(settings: Settings, node: Node) -> Iterator[Finding]:
    for number, adapter in enumerate(settings["lora"]):
        path = Path(adapter["path"])
        if path.suffix != ".safetensors" or not path.is_file():
            kind = "is no .safetensors file" if path.exists() else "no such file"
            place = node.find(("lora", number, "path")) or node
            yield Finding("OMNI610", f"LoRA adapter {path}: {kind}", fields=("lora",), span=place.span)


def _validate(node: Node) -> tuple[Settings | None, list[Finding]]:
    if not isinstance(node.value, dict):
        return None, [Finding("OMNI905", "a config is a mapping of keys to values", span=node.span)]
    try:
        return validate(node.value), []
    except ValidationError as error:
        return None, [_schema_finding(item, node) for item in error.errors(include_url=False, include_input=False)]


def _schema_finding(error: Mapping[str, Any], node: Node) -> Finding:
    path = tuple(part for part in error["loc"] if not str(part).startswith("function-"))
    place, depth = node, 0
    for part in path:
        if part not in place.children:
            break
        place, depth = place.children[part], depth + 1
    dotted = ".".join(map(str, path))
    if error["type"] == "extra_forbidden":
        return _unknown_key(path, place)
    if error["type"] == "missing":
        return Finding("OMNI906", f"{dotted} is missing", fix=f"add {dotted}", span=place.key_span or place.span)
    return Finding("OMNI905", f"{dotted}: {_reason(error, place)}", fields=(dotted,), span=place.span)


_TYPES = {
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "model_type": "must be a mapping of keys to values",
    "model_attributes_type": "must be a mapping of keys to values",
    "dict_type": "must be a mapping of keys to values",
    "tuple_type": "must be a list",
}


def _reason(error: Mapping[str, Any], place: Node) -> str:
    kind, value = error["type"], place.value
    if kind in _TYPES:
        reason = _TYPES[kind]
        if isinstance(value, str) and place.plain is None and kind in ("int_type", "float_type", "bool_type"):
            return f"{reason}, not text: remove the quotes"
        if kind == "string_type" and place.plain is not None:
            return f"{reason}; YAML reads {place.plain or 'an empty value'} as {spoken(value)}: quote it"
        if isinstance(value, int | float | str | bool | None):
            return f"{reason}, not {spoken(value)}"
        return f"{reason}, not a {'list' if isinstance(value, list) else 'mapping'}"
    message = str(error["msg"]).removeprefix("Value error, ").replace("Input should", "must")
    message = message.replace("Tuple should have", "must have").replace(" after validation", "")
    return message[0].lower() + message[1:]


def _unknown_key(path: tuple[Any, ...], place: Node) -> Finding:
    *section, key = path
    near = key_suggestion(path)
    message = f"unknown key '{spoken(key)}'" + (f" in {'.'.join(map(str, section))}" if section else "")
    if near:
        fix = f"did you mean '{near}'?"
    elif str(key) in FIELDS:
        fix = f"it belongs in {'.'.join(FIELDS[str(key)][:-1]) or 'the top level'}"
    elif str(key) in (other := instead()):
        fix = f"write {other[str(key)]}"
    else:
        import difflib

        nearest = difflib.get_close_matches(str(key), FIELDS, 1, 0.8)
        belongs = ".".join(FIELDS[nearest[0]]) if nearest else ""
        fix = f"did you mean '{belongs}'?" if belongs else f"known here: {', '.join(keys_of(path[:-1]))}"
    return Finding("OMNI904", message, fix=fix, fields=(".".join(map(str, path)),), span=place.key_span or place.span)


@cache
def instead() -> dict[str, str]:
    """What to write instead of keys that are retired, or that are other engines'."""
    path = Path(__file__).parents[1] / "schema" / "instead.yaml"
    return dict(parse(decode(path.name, path.read_bytes()))[0].value)


def key_suggestion(path: tuple[Any, ...]) -> str | None:
    """The key that an unknown one was probably meant to be, among those of its section."""
    import difflib

    return next(iter(difflib.get_close_matches(str(path[-1]), keys_of(path[:-1]), 1, 0.6)), None)


def _unknown(code: str, key: str, value: str, known: list[str], node: Node, nearest: Sequence[str] = ()) -> Finding:
    """A model or engine without a card; ``nearest`` are the versions of the engine beside the one that is named."""
    import difflib

    folded = {name.lower(): name for name in known}
    near = [folded[name] for name in difflib.get_close_matches(value.lower(), folded, 3, 0.6)]
    fix = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
    if nearest:
        fix = f"the nearest versions that have one: {', '.join(nearest)}"
    place = node.children.get(key, node)
    return Finding(code, f"no card for {key} '{spoken(value)}'", fix=fix, fields=(key,), span=place.span)


def _unusable(source: Source, code: str, message: str) -> Checked:
    return Checked(source, (documented(Finding(code, message, span=Span(source, 1, 1, 1))),))


def documented(finding: Finding) -> Finding:
    """A finding of the reader with the name, the reason and, where it has none, the next step of its rule."""
    rule = catalog().by_code[finding.code]
    return replace(finding, name=rule.name, why=rule.why, fix=finding.fix or rule.fix)


def _locate(finding: Finding, node: Node) -> Finding:
    """Put a finding where its first field that the file says stands; the other fields become related places."""
    spans = list(_spans(finding.fields, node)) or [node.children["model"].span]
    return replace(finding, span=spans[0], related=tuple(spans[1:]))


def _place(finding: Finding) -> tuple[int, int]:
    return (finding.span.line, finding.span.column) if finding.span else (0, 0)


def _spans(fields: tuple[str, ...], node: Node) -> Iterator[Span]:
    for name in fields:
        place = node.find(FIELDS[name])
        if place is not None:
            yield (place.key_span or place.span) if isinstance(place.value, dict) else place.span
