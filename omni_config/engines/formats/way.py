"""How an engine's files say our settings: one entry a flag, key, keyword argument, variable or call."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

from omni_config.catalog.load import catalog
from omni_config.engines.formats.draft import Draft
from omni_config.engines.formats.flags import Flags

#: The value of a switch that means all ranks, however many there are.
ALL: Final = "all ranks"


@dataclass(frozen=True, slots=True)
class Way:
    """One way to say a setting.

    ``path``: of a command, a flag without its dashes, with a key of its JSON behind it where there is one; of YAML, the
    keys from the outside in; of Python, the class that takes the argument (empty: what starts the engine), and its
    name. ``value``: the only one that it says, as a switch or by the ``text`` behind it.
    """

    setting: str
    path: tuple[str, ...]
    value: Any = None
    text: str = ""
    kind: Literal["word", "variable", "call"] = "word"

    def says(self, value: Any) -> bool:
        """Whether it can say a value of its setting."""
        if self.value == ALL:
            return isinstance(value, int) and value > 1
        return self.value is None or bool(self.value == value)


def of_flags(flags: Flags) -> Iterator[Way]:
    """The ways of a table of flags."""
    for name, target in flags.settings.items():
        yield Way(target, (name,)) if isinstance(target, str) else Way(target[0], (name,), target[1])


def guidance(draft: Draft, flag: str = "guidance-scale") -> Way:
    """The guidance of the model by the one flag that an engine has for it: the distilled one, or the scale of CFG."""
    card = catalog().model(str(draft.get("model"))) if draft.has("model") else None
    own = card is not None and card.guidance is not None and card.guidance.argument == "guidance_scale"
    return Way("cfg_scale" if own else "guidance_scale", (flag,))


def as_keys(ways: Iterable[Way], *outer: str) -> Iterator[Way]:
    """Flags as the keys of a file, or as the arguments of a call: with underscores, inside of ``outer``."""
    for way in ways:
        yield Way(way.setting, (*outer, *(part.replace("-", "_") for part in way.path)), way.value, way.text, way.kind)
