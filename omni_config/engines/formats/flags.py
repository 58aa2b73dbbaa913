"""A command line, flag by flag, into settings by the table of an engine; what is in no table is named, not judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from omni_config.catalog.load import catalog
from omni_config.engines.facts import Flag, facts_of
from omni_config.engines.formats.draft import Draft, Typed
from omni_config.engines.formats.shell import Word
from omni_config.findings import Span
from omni_config.schema.settings import DEFAULTS, SWITCHES

#: Switches that engines have on or off by themselves.
EITHER = ("pin_cpu_memory",)
#: Texts that may be taken as they are written, variables in them included: no rule asks what they say.
_AS_WRITTEN = ("prompt", "negative_prompt", "image")
REST = -1  # all words up to the next flag


@dataclass(frozen=True)
class Flags:
    """The flags of an engine that our settings stand for, without their dashes, underscores written as dashes.

    ``settings``: the setting that takes the value, or a pair (setting, value) for a switch. ``special``: a reader of
    its own. ``quiet``: flags on which nothing depends that is judged here, with how many values they take.
    ``model_first``: the first word that is no flag names the model.
    """

    engine: str
    settings: Mapping[str, str | tuple[str, Any]]
    special: Mapping[str, Callable[[Draft, Word, Span], None]] = field(default_factory=dict)
    quiet: Mapping[str, int] = field(default_factory=dict)
    model_first: bool = False

    def read(self, draft: Draft, words: Sequence[Word]) -> list[Word]:
        """Take over the arguments of a command; its positional words are returned."""
        positional = []
        at = 0
        while at < len(words):
            word = words[at]
            at += 1
            if not _is_flag(word):
                positional.append(word)
                if word.unknown and not (len(positional) == 1 and self.model_first and word.names_model):
                    draft.says_more |= len(positional) > 1 or "@" in word.value
                    draft.leave_unjudged(f"{word.value} (known only to a run)", word.text.span)
                continue
            name, equals, _ = word.value.partition("=")
            values = [Word(word.text[len(name) + 1 :], word.unknown)] if equals else []
            while not equals and at + len(values) < len(words) and not _is_flag(words[at + len(values)]):
                values.append(words[at + len(values)])
            used = self._flag(draft, word, name.lstrip("-").replace("_", "-"), values)
            draft.typed[-1].used = 1 if equals else used
            at += 0 if equals else used
        return positional

    def _known(self, name: str) -> Flag | None:
        """What the newest version knows of a flag, as far as facts of it were compiled."""
        facts = next((found for engine in catalog().versions(self.engine) if (found := facts_of(engine))), None)
        return facts.flag(name) if facts else None

    def _flag(self, draft: Draft, word: Word, name: str, values: list[Word]) -> int:
        """Read one flag; how many of the words behind it are its own."""
        flag = word.text[: len(word.value.partition("=")[0])]
        span = _span(draft, flag, values)
        taken = (
            name in self.quiet
            or name in self.special
            or name in self.settings
            or (name[:3] == "no-" and name[3:] in self.settings)
        )
        if not taken:
            known = self._known(name)
            values = values[: known.most_values] if known is not None else values
        draft.typed.append(Typed(flag.value, span if values else flag.span, tuple(values), taken, word))
        negated = name.startswith("no-") and name[3:] in self.settings
        target = self.settings.get(name[3:] if negated else name)
        if name in self.quiet:
            draft.left_out.append(flag.value)
            count = self.quiet[name]
            return len(values) if count == REST else min(count, len(values))
        switch = isinstance(target, tuple) or (
            isinstance(target, str) and (DEFAULTS[target] is False or target in (*SWITCHES, *EITHER))
        )
        if switch:
            said = bool(values) and values[0].value.lower() in ("true", "false", "1", "0")
            on = (not said or values[0].value.lower() in ("true", "1")) != negated
            setting, value = target if isinstance(target, tuple) else (str(target), True)
            if on:
                draft.set(setting, value, span)
            elif not isinstance(target, tuple):
                draft.set(setting, False, span)
            return int(said)
        if name not in self.special and target is None:
            return len(values)  # the facts of the version say what it is
        if not values or (values[0].unknown and target not in _AS_WRITTEN and not _is_model(name, target, values[0])):
            draft.unknown.update([target] if isinstance(target, str) and values else ["gpus"] if values else [])
            draft.leave_unjudged(f"{flag.value} (its value is known only to a run)" if values else flag.value, span)
        elif name in self.special:
            self.special[name](draft, values[0], span)
        else:
            draft.words(str(target), values[0].text, span)
        return 1 if len(values) < 2 else self._more(draft, name, flag.value, values)

    def _more(self, draft: Draft, name: str, flag: str, values: list[Word]) -> int:
        """How many words a flag of ours has that takes several; our setting is the first of them."""
        known = self._known(name)
        count = min(len(values), known.most_values or len(values)) if known is not None else 1
        if count > 1:
            draft.leave_unjudged(f"further words of {flag}", values[1].text.span)
        return count


def _is_model(name: str, target: object, word: Word) -> bool:
    """Whether a flag names a model, in words of which a run need not know more."""
    return "model" in (name, target) and word.names_model


def _is_flag(word: Word) -> bool:
    text = word.value
    return len(text) > 1 and text[0] == "-" and not text[1:].replace(".", "", 1).isdigit()


def _span(draft: Draft, flag: Any, values: list[Word]) -> Span:
    """The flag with its value, where they stand on one line one after the other."""
    span: Span = flag.span
    if values and values[0].text.offsets:
        end = values[0].text.span
        if end.line == span.line and span.column < end.column <= span.end + 2:
            return Span(span.source, span.line, span.column, end.end)
    return span
