"""What may stand at a place: keys, flags, models, engines, and the values that are legal here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from omni_config.catalog.load import catalog
from omni_config.checking.document import CheckResult
from omni_config.checking.edit import written
from omni_config.checking.fix import settings_written
from omni_config.engines.facts import facts_of
from omni_config.engines.formats.way import Way
from omni_config.engines.words import Words
from omni_config.estimate.data import gpus
from omni_config.lsp.hover import about_flag, about_model, makes
from omni_config.lsp.opened import Opened, is_section, setting_at
from omni_config.mesh import AXES, FURTHER
from omni_config.output.described import described
from omni_config.resolving.resolver import resolve_settings
from omni_config.schema.settings import DEFAULTS, FIELDS, Settings

#: What a degree is tried with: those that divide the heads of models, and the GPUs of machines.
_DEGREES = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 15, 16, 20, 24, 28, 30, 32, 40, 48, 56, 60, 64)
_OF_RANKS = {axis.setting for axis in (*AXES, *FURTHER)} | {"gpus", "vae_patch_parallel_size", "data_parallel_size"}
#: Settings whose values are names that need no quotes, and of which all are proposed.
_NAMES = ("model", "engine")


@dataclass(frozen=True)
class Proposal:
    """A text that may stand from column ``start`` (from 0) to the cursor, and a few words about it."""

    text: str
    start: int
    kind: Literal["key", "flag", "value"]
    detail: str = ""
    about: str = ""


def complete(opened: Opened, line: int, column: int) -> list[Proposal]:
    """All that may stand at a place."""
    if line >= len(opened.lines):
        return []
    before = opened.lines[line][:column]
    if opened.ours:
        return list(_of_ours(opened, line, before))
    deployment = opened.deployment(line)
    if deployment is None:
        return []
    key = re.fullmatch(r"\s*(?:- )?(?P<rest>[\w-]*)", before)
    if key and deployment.document and deployment.document.draft and deployment.document.draft.form == "yaml":
        return list(_their_keys(deployment, _above(opened.lines, line, before), column - len(key["rest"])))
    if deployment.document and deployment.document.draft and deployment.document.draft.form == "python":
        inside = _open_call("\n".join([*opened.lines[:line], before]), opened.lines[line][column:])
        name = re.search(r"(?:[(,]|^)\s*(?P<rest>\w*)$", before)
        if inside is not None and name:
            return list(_arguments(deployment, inside, column - len(name["rest"])))
    return list(_of_theirs(deployment, before))


# Our format


def _of_ours(opened: Opened, line: int, before: str) -> Iterator[Proposal]:
    flow = re.search(r"(?P<key>\w+)\s*:\s*\{(?:[^{}]*,)?\s*(?P<rest>[^{},]*)$", before)
    rest = flow["rest"] if flow else before.lstrip().removeprefix("- ")
    path = (*_above(opened.lines, line, before), *((flow["key"],) if flow else ()))
    named = re.fullmatch(r"(\w+)\s*:\s*(\S*)", rest)
    if named and (flow or re.search(r":\s", rest)):
        yield from _values(opened, line, (*path, named[1]), len(before) - len(named[2]))
    elif re.fullmatch(r"\w*", rest):
        yield from _keys(opened, line, path, len(before) - len(rest), bool(flow))


def _above(lines: list[str], line: int, before: str) -> tuple[str, ...]:
    """The keys of the sections that a line stands in, by how far lines are indented."""
    indent = len(before) - len(before.lstrip())
    path: list[str] = []
    for text in reversed(lines[:line]):
        found = re.match(r"(\s*(?:- +)?)([\w-]+)\s*:\s*(?:#.*)?$", text)
        if text.startswith("---"):
            break
        if found and len(found[1]) < indent:
            indent = len(found[1])
            path.insert(0, found[2])
    return tuple(path)


def _around(opened: Opened, line: int, start: int, name: str) -> CheckResult | None:
    """What the document means where the value that is typed is the default."""
    default = DEFAULTS[name]
    text = opened.lines[line]
    stands = "null" if default is None else written(default)
    text = text[:start] + stands + re.sub(r"^[\w./=+-]*", "", text[start:])
    lines = [*opened.lines[:line], text, *opened.lines[line + 1 :]]
    results = opened.choices.check(opened.name, "\n".join(lines).encode())
    return next((one for one in results if one.resolution and one.document and line + 1 in one.document.lines), None)


def _keys(opened: Opened, line: int, path: tuple[str, ...], start: int, flow: bool) -> Iterator[Proposal]:
    said = [one.node.find(path) for one in opened.last if one.node is not None and not one.foreign]
    taken = {str(key) for node in said if node is not None for key in node.children}
    for name, inner in described().get(path, {}).get("keys", {}).items():
        if name not in taken or re.search(rf"\b{name}\s*:", opened.lines[line]):
            section = is_section((*path, name)) and inner.get("type") == "object" and not flow
            indent = " " * (start + 2)
            yield Proposal(f"{name}:\n{indent}" if section else f"{name}: ", start, "key", "", _about(inner))


def _about(node: dict[str, Any]) -> str:
    default = node.get("default")
    plain = default is not None and not isinstance(default, dict | list)
    return f"{node.get('description', '')}{f' Default: {written(default)}.' if plain else ''}"


def _values(opened: Opened, line: int, path: tuple[str, ...], start: int) -> Iterator[Proposal]:
    name = setting_at(path)
    if not name:
        return
    around = None if name in _NAMES else _around(opened, line, start, name)
    for value, detail in _legal(name, around):
        yield Proposal(value if name in _NAMES else written(value), start, "value", detail)


def _candidates(name: str) -> Iterable[Any]:
    node = described().get(FIELDS[name], {})
    if name == "version":
        return [1]
    if name == "model":
        return catalog().model_ids
    if name == "engine":
        return catalog().engine_ids
    if name == "gpu":
        return list(gpus())
    if name in _OF_RANKS:
        return _DEGREES
    if "enum" in node:
        return list(node["enum"])
    if node.get("type") == "boolean":
        return [True, False]
    return [node["default"]] if isinstance(node.get("default"), int | float) else []


def _legal(
    name: str, around: CheckResult | None, candidates: Iterable[Any] | None = None, others: Settings | None = None
) -> Iterator[tuple[Any, str]]:
    """Values of a setting with which no rule refuses or changes it, each with what becomes of it; ``others`` are
    settings that are as these say then.
    """
    candidates = _candidates(name) if candidates is None else candidates
    if name in _NAMES:
        yield from ((value, _about_name(name, value)) for value in candidates)
        return
    if around is None or around.resolution is None:
        yield from ((value, "") for value in candidates)
        return
    settings, target = settings_written(around) | (others or {}), around.unaccepted
    for value in candidates:
        resolved = resolve_settings(settings | {name: value}, target)
        broken = any(one.severity == "error" and name in one.fields for one in resolved.findings)
        if not broken and not any(name in dict(one.changes) for one in resolved.findings):
            yield value, makes(name, resolved)


def _about_name(name: str, value: str) -> str:
    if name == "model":
        card = catalog().model(value)
        return about_model(card) if card else ""
    engine = catalog().engine(value)
    return engine.title if engine else ""


# Files of other engines


def _their_keys(deployment: CheckResult, path: tuple[str, ...], start: int) -> Iterator[Proposal]:
    """Keys of engines' YAML that stand in a section: those that we know, and all that its class of settings has."""
    document = deployment.document
    assert document is not None
    words, draft = document.words, document.draft
    if words is None or draft is None:
        return
    base = tuple(key for key in words.base if isinstance(key, str))
    here = words.root.find((*words.base, *path[len(base) :])) if words.root else None
    taken = {str(key) for key in here.children} if here is not None else set()
    if path[: len(base)] != base:
        return
    found: dict[str, str] = {}
    for setting, ways in words.ways.items():
        for way in ways:
            inner = len(path) - len(base)
            if way.path[:inner] == path[len(base) :] and len(way.path) > inner and way.kind == "word":
                last = len(way.path) == inner + 1
                node = described()[FIELDS[setting]] if last and setting in FIELDS else {}
                found.setdefault(way.path[inner], node.get("description", ""))
    facts = facts_of(str(words.node.value["engine"]))
    if path == base and facts is not None:
        owners = {key.owner for key in draft.keys if key.name in taken and facts.has_field(key.owner, key.name)}
        found |= {name: "" for owner in sorted(owners) for name in facts.fields(owner) if name not in found}
    for name, about in found.items():
        if name not in taken:
            yield Proposal(f"{name}: ", start, "key", "", about)


def _of_theirs(deployment: CheckResult, before: str) -> Iterator[Proposal]:
    document = deployment.document
    assert document is not None
    assert document.draft is not None
    assert deployment.node is not None
    facts = facts_of(str(deployment.node.value["engine"]))
    flag = re.search(r"(?<![\w-])(--[\w-]*)$", before)
    if flag and facts is not None and document.draft.form == "command":
        for name in facts.flag_names:
            if name.startswith("--") and "*" not in name and (found := facts.flag(name)):
                ours = _setting_of(document.words, found.name)
                about = described()[FIELDS[ours]].get("description", "") if ours else ""
                kind = "|".join(map(str, found.choices)) if found.choices else found.type or ""
                yield Proposal(name, flag.start(1), "flag", kind, f"{about}\n\n{about_flag(found)}".strip())
        return
    value = re.search(
        r"(?P<name>--[\w-]+|\b[\w.]+)[\"']?(?:\s*[=:]\s*[\"']?|\s+|[\"'],\s*[\"'])(?P<rest>[\w./-]*)$", before
    )
    if value is None:
        return
    start = len(before) - len(value["rest"])
    quoted = before[:start].endswith(("'", '"'))
    known = facts.flag(value["name"]) if facts and value["name"].startswith("--") else None
    ours = (
        "model" if value["name"].strip("-") in ("model", "model-path") else _setting_of(document.words, value["name"])
    )
    texts = _texts(document.words, value["name"])
    if texts:
        others = {setting: DEFAULTS[setting] for setting, _ in texts}
        for setting, said in texts:
            if next(_legal(setting, deployment, [said.value], others), None):
                text = said.text if quoted or document.draft.form != "python" else repr(said.text)
                yield Proposal(text, start, "value", described()[FIELDS[setting]].get("description", ""))
    elif known and known.choices and not ours:
        yield from (Proposal(str(choice), start, "value") for choice in known.choices)
    elif ours and document.words is not None:
        for item, detail in _legal(ours, deployment):
            way = document.words.way(ours, item)
            stands = way.text if way is not None and way.text else item
            if isinstance(item, bool) and document.draft.form == "command":
                continue
            text = repr(stands) if document.draft.form == "python" and not quoted else written(stands)
            yield Proposal(text, start, "value", detail)


def _texts(words: Words | None, name: str) -> list[tuple[str, Way]]:
    """The settings that a flag, key or argument switches on by a text, as a backend of caches does."""
    plain = name.lstrip("-").rpartition(".")[2].replace("_", "-")
    found = words.ways.items() if words else ()
    return [(setting, way) for setting, ways in found for way in ways if way.text and _plain(way) == plain]


def _plain(way: Way) -> str:
    return way.path[-1].replace("_", "-")


@dataclass(frozen=True)
class _Call:
    """A call that is not closed yet: its name, where that stands (from 1), and what else is said in it."""

    name: str
    line: int
    column: int
    said: str


def _open_call(text: str, rest: str) -> _Call | None:
    """The call of Python that the end of a text stands in; ``rest`` is the rest of the line."""
    blank = re.compile(r"\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'|#[^\n]*")
    plain = blank.sub(lambda found: " " * len(found[0]), text)
    depth = 0
    for at in range(len(plain) - 1, -1, -1):
        if plain[at] in ")]}":
            depth += 1
        elif plain[at] in "([{" and depth:
            depth -= 1
        elif plain[at] in "([{":
            name = re.search(r"[\w.]+$", plain[:at]) if plain[at] == "(" else None
            if name is None:
                return None
            start = name.start()
            line, begin = plain.count("\n", 0, start), plain.rfind("\n", 0, start) + 1
            return _Call(name[0], line + 1, start - begin + 1, plain[at:] + rest.partition(")")[0])
    return None


def _arguments(deployment: CheckResult, call: _Call, start: int) -> Iterator[Proposal]:
    """Arguments of a call of Python that say settings of ours, and fields of the engine's class of settings."""
    document = deployment.document
    assert document is not None
    words, draft = document.words, document.draft
    if words is None or draft is None:
        return
    starts = (call.line, call.column) == (draft.place.line, draft.place.column)
    owner = call.name.rpartition(".")[2]
    made = re.search(r"(\w+)\s*=\s*$", draft.place.source.line(draft.place.line)[: draft.place.column - 1])
    runs = made is not None and call.name == made[1]  # the pipeline itself is called
    found: dict[str, str] = {}
    for setting, ways in words.ways.items():
        for way in ways:
            own = runs if FIELDS[setting][0] == "sampling" else starts
            takes = way.path[0] == owner or (own and not way.path[0])
            if way.kind == "word" and len(way.path) > 1 and takes:
                found.setdefault(way.path[1], described()[FIELDS[setting]].get("description", ""))
    facts = facts_of(str(words.node.value["engine"]))
    found |= {name: "" for name in (facts.fields(owner) if facts else ()) if name not in found}
    said = set(re.findall(r"(\w+)\s*=", call.said))
    yield from (Proposal(f"{name}=", start, "key", "", about) for name, about in found.items() if name not in said)


def _setting_of(words: Words | None, name: str) -> str:
    """The setting of ours that a flag or key says; empty for none."""
    plain = name.lstrip("-").rpartition(".")[2].replace("_", "-")
    if words is None:
        return ""
    for setting, ways in words.ways.items():
        if setting in FIELDS and any(way.kind == "word" and not way.text and _plain(way) == plain for way in ways):
            return setting
    return ""
