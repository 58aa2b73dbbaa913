"""A config of ours in the making: each setting with its place in the file of another engine."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from omni_config.catalog.identify import same_model
from omni_config.catalog.load import catalog
from omni_config.engines.formats.text import File, Text
from omni_config.findings import Decision, Finding, Mark, Severity, Source, Span
from omni_config.reading.nodes import Unreadable, YamlNode, parse
from omni_config.rules.quantities import UNKNOWN
from omni_config.schema.settings import DEFAULTS, FIELDS, SWITCHES

if TYPE_CHECKING:
    from omni_config.engines.formats.given import Given
    from omni_config.engines.formats.shell import Command, Word

#: What a file is, as far as its words go.
Form = Literal["command", "yaml", "python"]

#: Settings that are text, also where they look like numbers.
TEXTS = {
    "model",
    "engine",
    "prompt",
    "negative_prompt",
    "image",
    "output",
    "host",
    "api_key",
    "dtype",
    "quantization",
    "ulysses_mode",
}
_DTYPES = {"half": "float16", "fp16": "float16", "bf16": "bfloat16", "float": "float32", "fp32": "float32"}
_QUANTIZATIONS = ("fp8", "int8", "fp8_weight_only", "int8_weight_only")


@dataclass(slots=True)
class Typed:
    """A flag as it was typed: its name with the dashes, its place, its words, and whether a setting of ours took it.

    ``word`` is the one that it stands in, and ``used`` how many of its words are its own.
    """

    name: str
    span: Span
    words: tuple[Word, ...]
    taken: bool
    word: Word
    used: int = 0


@dataclass(frozen=True, slots=True)
class Key:
    """A key of a file, and the class of the engine's settings that it is given to.

    ``taken``: a setting of ours, or another reader, has judged it.
    """

    owner: str
    name: str
    node: YamlNode
    taken: bool = False


class Draft:
    """What one command or stage says, as a document of ours; ``notes`` is what could not be taken over."""

    def __init__(self, file: File, engine: str, place: Span) -> None:
        self.file = file
        self.place = place
        self.form: Form = "command"
        self.command: Command | None = None  # that it was read from
        self.notes: list[Finding] = []
        self.not_judged: list[tuple[str, Span]] = []
        self.left_out: list[str] = []  # flags on which nothing depends that is judged here
        self.later: list[Callable[[], None]] = []  # what can be read only once the rest is known
        self.of_version: Callable[[str], None] | None = None  # what can be read only once the version is known
        self.pipeline = ""  # the class of the model, where the file says it
        self.typed: list[Typed] = []  # every flag of a command
        self.old_names: frozenset[str] = frozenset()  # of keys, which the engine takes beside its fields
        self.keys: list[Key] = []  # of files and of JSON in flags
        self.registered: list[tuple[str, str, YamlNode]] = []  # values that a registry must have: its name, what, which
        self.pipelines: Mapping[str, str] = {}  # of models without a card: by the last part of the id, small letters
        self.forms: re.Pattern[str] | None = None  # of flags that it takes though no parser declares them
        self.says_more = False  # whether the command has flags that only a run knows
        self.not_run = ""  # where in the engine's source its program stands, if another one is started
        self.own_parser = False  # whether the engine's own parser reads them, which refuses what it does not know
        self.unknown: set[str] = set()  # settings that it says in words whose value only a run knows
        self.options: dict[str, YamlNode] = {}  # the engine's own settings, for which there is none of ours
        self.image = ""  # of the container that it is started in
        self.given: Given | None = None  # the GPUs that the deployment says it has
        self.used: YamlNode | None = None  # the GPUs that it takes, where its ranks do not say it
        self.nodes = 1  # machines that the command itself is for
        self.staged: tuple[str, ...] = ()  # families of models of which other stages take GPUs, too
        self.decisions: list[Decision] = []  # what the engine chooses where nothing is said
        self.root = YamlNode({}, place)
        self._put(("version",), YamlNode(1, place))
        self._put(("engine",), YamlNode(engine, place))

    def has(self, setting: str) -> bool:
        """Whether the file says this setting."""
        return self.root.find(FIELDS[setting]) is not None

    def get(self, setting: str) -> Any:
        """The value of a setting, or its default."""
        found = self.root.find(FIELDS[setting])
        return found.value if found else DEFAULTS[setting]

    def set(self, setting: str, value: Any, span: Span) -> None:
        """Say a setting; the last word wins, as on a command line. A word that is not ours is not judged."""
        if value is UNKNOWN:
            self.not_known((setting,), setting, span)
            return
        if setting == "dtype":
            value = _DTYPES.get(str(value).removeprefix("torch."), str(value).removeprefix("torch."))
        if (setting == "dtype" and value not in _DTYPES.values()) or (
            setting == "quantization" and value not in _QUANTIZATIONS
        ):
            if value not in ("auto", None):
                self.leave_unjudged(f"{setting} {value}", span)
            return
        node = YamlNode(value, span)
        if setting in SWITCHES:
            if not value:
                self.drop(setting)
                return
            node = self.root.find(FIELDS[setting]) or YamlNode({}, span)
        self._put(FIELDS[setting], node)

    def decide(self, setting: str, value: Any, mark: Mark, source: str, why: str = "", *, judged: bool = True) -> None:
        """What the engine chooses for a setting that is not said; one of ours is judged as if it was said, unless it
        is a default, or rules of the engine find the same.
        """
        self.decisions.append(Decision(setting, value, mark, source, why))
        if judged and setting in FIELDS and mark != "default":
            self.set(setting, value, self.place)

    def drop(self, setting: str) -> None:
        """Take a setting back."""
        parent = self.root.find(FIELDS[setting][:-1])
        if parent is not None:
            parent.children.pop(FIELDS[setting][-1], None)
            parent.value.pop(FIELDS[setting][-1], None)

    def words(self, setting: str, text: Text, span: Span) -> None:
        """Say a setting in the words of a command line."""
        self.set(setting, text.value if setting in TEXTS else plain(text.value), span)

    def guidance(self, value: Any, span: Span, *, is_true: bool = False) -> None:
        """``guidance_scale``: an input of some models, and the scale of classifier-free guidance of others; where
        ``is_true``, of those too whose pipeline calls that ``true_cfg_scale``.
        """
        card = same_model(str(self.get("model")), catalog()) if self.has("model") else None
        guidance = card.guidance if card else None
        if guidance and guidance.distilled_argument == "guidance_scale":
            self.set("guidance_scale", value, span)
        elif guidance and guidance.argument in ("guidance_scale", *(["true_cfg_scale"] if is_true else [])):
            self.set("cfg_scale", value, span)
        else:
            self.leave_unjudged(f"guidance_scale {value}", span)

    def leave_unjudged(self, name: str, span: Span) -> None:
        """Something that no setting of ours stands for."""
        self.not_judged.append((name, span))

    def not_known(self, settings: Iterable[str], name: str, span: Span) -> None:
        """Something that the file says in words whose value only a run knows: no rule is asked about the settings."""
        self.unknown.update(settings)
        self.leave_unjudged(f"{name} (known only to a run)", span)

    def ranks_not_known(self, name: str, span: Span) -> None:
        """Ranks that no setting of ours stands for: no degrees are held against the GPUs."""
        self.leave_unjudged(name, span)
        gpus = self.root.find(FIELDS["gpus"])
        self.used = self.used or gpus or YamlNode(UNKNOWN, span)
        self.drop("gpus")

    def note(
        self,
        code: str,
        message: str,
        span: Span,
        severity: Severity = "error",
        *,
        next_step: str = "",
        related: tuple[Span, ...] = (),
    ) -> None:
        """A finding that only the reader of this file can make."""
        finding = Finding(code, message, severity, next_step=next_step, span=span, related=related)
        if finding not in self.notes:  # the same argument may be read twice
            self.notes.append(finding)

    def finish(self) -> None:
        """Read what had to wait: the guidance of a model, the parameters of a cache."""
        for read in self.later:
            read()
        self.later.clear()

    def findings(self) -> list[Finding]:
        """The notes, with one for all that is not judged."""
        if not self.not_judged:
            return self.notes
        names = ", ".join(dict.fromkeys(name for name, _ in self.not_judged))
        spans = [span for _, span in self.not_judged]
        passed = Finding("OMNI605", f"not judged: {names}", "advice", span=spans[0], related=tuple(spans[1:]))
        return [*self.notes, passed]

    def json(self, text: Text, name: str, any_value: bool = False) -> YamlNode | None:
        """A JSON argument as nodes whose places are in the file; None, with a finding, where it is none.

        ``any_value``: it need not be an object.
        """
        try:
            nodes = parse(Source(name, text.value))
        except Unreadable as error:
            self.note("OMNI905", f"{name}: {error}", text.span)
            return None
        if not nodes or not (any_value or isinstance(nodes[0].value, dict)):
            self.note("OMNI905", f"{name}: expected a JSON object", text.span)
            return None
        return self._moved(nodes[0], text)

    def _moved(self, node: YamlNode, text: Text) -> YamlNode:
        place = text[node.start : max(node.end, node.start + 1)].span
        key = node.key
        if key is not None:
            key = replace(key, place=text[key.start : key.start + key.span.end - key.span.column].span)
        children = {name: self._moved(child, text) for name, child in node.children.items()}
        return replace(node, place=place, key=key, children=children)

    def _put(self, path: tuple[str, ...], node: YamlNode) -> None:
        place = self.root
        for section in path[:-1]:
            if section not in place.children:
                place.children[section] = YamlNode({}, node.span)
                place.value[section] = place.children[section].value
            place = place.children[section]
        place.children[path[-1]] = node
        place.value[path[-1]] = node.value


@cache
def plain(text: str) -> Any:
    """A value typed on a command line: a number, true or false, or text."""
    try:
        nodes = parse(Source("", text))
    except Unreadable:
        return text
    return nodes[0].value if nodes and isinstance(nodes[0].value, int | float | bool) else text
