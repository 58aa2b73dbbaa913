"""What the compiled facts of a version (``engines/NAME/facts``) say of its flags, settings and pipelines."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache, cached_property
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
_SWITCHES = ("store_true", "store_false", "StoreBoolean", "BooleanOptionalAction", "version", "help", "count")


@dataclass(frozen=True, slots=True)
class Flag:
    """A flag of an engine: its name, the setting that it fills, and what it takes."""

    name: str
    setting: str
    type: str | None
    choices: tuple[Any, ...]
    action: str | None
    nargs: str | int | None
    default: Any
    at: str
    of: str | None  # the package whose parser has it, where that is not the engine's own

    @property
    def most_values(self) -> int | None:
        """How many words may follow it; None for any number."""
        if self.action in _SWITCHES:
            return 1 if self.action in ("StoreBoolean",) or self.nargs == "?" else 0
        if isinstance(self.nargs, int):
            return self.nargs
        return None if self.nargs in ("*", "+", "...") else 1


class Facts:
    """The facts of one version of an engine."""

    def __init__(self, data: dict[str, Any]) -> None:
        self._data = data
        #: Whether every flag of its parsers is known: of those of other packages, only where they were compiled too.
        self.closed = not data["flags_of_others"]
        self._flags: dict[str, tuple[str, dict[str, Any]]] = {}
        for name, places in data["flags"].items():
            for spelling in (name, *(alias for place in places for alias in place.get("aliases", ()))):
                self._flags.setdefault(plain_name(spelling), (name, places[0]))
        self._flags.setdefault("help", ("--help", {"aliases": ["-h"], "action": "help", "at": "argparse"}))
        self._flags.setdefault("h", self._flags["help"])

    def flag(self, name: str) -> Flag | None:
        """A flag by its name, an alias, or what argparse takes as one: a beginning that no other flag has, where all
        are known. Behind a point a key of its JSON may follow.
        """
        whole = plain_name(name)
        wanted = whole.partition(".")[0]
        found = self._flags.get(whole) or self._flags.get(wanted)
        if found is None and len(wanted) > 1 and self.closed:
            longer = {entry[0]: entry for spelling, entry in self._flags.items() if spelling.startswith(wanted)}
            found = next(iter(longer.values())) if len(longer) == 1 else None
        if found is None and wanted.startswith("no-"):
            positive = self._flags.get(wanted[3:])
            found = positive if positive and positive[1].get("action") == "BooleanOptionalAction" else None
        if found is None:
            return self._by_hand(name)
        name, place = found
        return Flag(
            name,
            place.get("dest") or plain_name(name).replace("-", "_"),
            place.get("type"),
            tuple(place.get("choices") or ()),
            place.get("action"),
            place.get("nargs"),
            place.get("default"),
            place["at"],
            place.get("of"),
        )

    def _by_hand(self, name: str) -> Flag | None:
        """A flag that no parser declares, such as ``--component-paths.vae`` or ``-O3``."""
        spelled = name.replace("_", "-") if name.startswith("--") else name
        for pattern, at in self._data["flags_by_hand"].items():
            if fnmatchcase(spelled, pattern):
                attached = not pattern.startswith("--") and spelled != pattern.rstrip("*")  # its value is in the word
                setting = plain_name(name).replace("-", "_")
                return Flag(name, setting, None, (), None, 0 if attached else None, None, at, None)
        return None

    @property
    def flags(self) -> list[tuple[str, ...]]:
        """The flags of its parsers, each with its aliases."""
        return [
            (name, *(alias for place in places for alias in place.get("aliases", ())))
            for name, places in self._data["flags"].items()
        ]

    @property
    def flag_names(self) -> list[str]:
        """Its flags by their names, and the forms of those that no parser declares (a star is any text)."""
        return [*self._data["flags"], *self._data["flags_by_hand"]]

    def near(self, name: str) -> str | None:
        """The flag that an unknown one was probably meant to be."""
        found = difflib.get_close_matches(plain_name(name), self._flags, 1, 0.75)
        return self._flags[found[0]][0] if found else None

    def has_field(self, owner: str, name: str) -> bool:
        """Whether a class of settings, or one that it extends, has a field."""
        return any(f"{each}.{name}" in self._data["fields"] for each in self._lineage(owner))

    def field(self, owner: str, name: str) -> dict[str, Any] | None:
        """What is known of a field of a class of settings; None where the class does not have it."""
        found: dict[str, Any] | None = self._data["fields"].get(f"{owner}.{name}")
        return found

    def described(self, owner: str, name: str) -> tuple[dict[str, Any], str] | None:
        """What is known of a field of a class or of one that it extends, with file and line; None where unknown."""
        for each in self._lineage(owner):
            found = self._data["fields"].get(f"{each}.{name}")
            if found is not None:
                at = self._data["classes"][each]["at"].partition(":")[0]
                return found, f"{at}:{found['line']}"
        return None

    def default(self, owner: str, name: str) -> tuple[Any, str] | None:
        """The default of a field of a class or of one that it extends, with file and line; None where unknown."""
        found = self.described(owner, name)
        return (found[0]["default"], found[1]) if found and "default" in found[0] else None

    def method(self, owner: str, name: str) -> str:
        """File and line of a method of a class of settings; empty where the version has none."""
        entry = self._data["classes"].get(owner, {})
        line = entry.get("methods", {}).get(name)
        return f"{entry['at'].partition(':')[0]}:{line}" if line else ""

    def fields(self, owner: str) -> list[str]:
        """The fields of a class of settings, with those of the classes that it extends."""
        owners = tuple(self._lineage(owner))
        return [key.partition(".")[2] for key in self._data["fields"] if key.partition(".")[0] in owners]

    def _lineage(self, owner: str) -> Iterator[str]:
        """A class of settings and those that it extends."""
        yield owner
        for base in self._data["classes"].get(owner, {}).get("bases", ()):
            yield from self._lineage(base)

    def unknown_keys(self, owner: str) -> str:
        """What becomes of a key that a class of settings does not have: ``refused``, ``dropped``, or nothing known."""
        stated = self._data["classes"].get(owner, {}).get("unknown")
        return stated if stated in ("refused", "dropped") else ""

    @cached_property
    def names(self) -> frozenset[str]:
        """Every setting that any of its classes or flags has."""
        fields = {key.rpartition(".")[2] for key in self._data["fields"]}
        flags = {
            place.get("dest") or plain_name(name).replace("-", "_") for name, (place, *_) in self._data["flags"].items()
        }
        return frozenset(fields | flags)

    @property
    def data(self) -> dict[str, Any]:
        """The facts as they were compiled."""
        return self._data

    @property
    def pipelines(self) -> dict[str, dict[str, Any]]:
        """The pipelines that the version registers, by name."""
        found: dict[str, dict[str, Any]] = self._data["pipelines"]
        return found

    def table(self, name: str) -> Any:
        """The values of a table of its source, by topic and name; empty where the version has none."""
        return self._data["registries"].get(name, {}).get("values", {})

    def reads_variable(self, name: str) -> bool:
        """Whether it reads a variable of the environment."""
        return name in self._data["environment"]

    def variable(self, name: str) -> tuple[list[str], list[Any]]:
        """Where it reads a variable of the environment, and with which defaults."""
        found = self._data["environment"].get(name, {})
        return found.get("at", []), found.get("defaults", [])

    def registers(self, pipeline: str) -> bool:
        """Whether the version registers a pipeline class."""
        return pipeline in self.pipelines or f"pipeline {pipeline}" in self.pipelines

    def declares(self, flag: str) -> bool:
        """Whether a parser has the flag by this very name, rather than by its form."""
        return plain_name(flag) in self._flags

    def registry(self, name: str) -> tuple[str, ...]:
        """The names in a registry of the source, or its values; empty where it has none of this name."""
        found = self._data["registries"].get(name, {})
        return tuple(found.get("names") or found.get("values", ()))

    @property
    def decides(self) -> frozenset[str]:
        """The settings that some guard reads."""
        return frozenset(name for guard in self._data["guards"].values() for name in guard["reads"])

    @property
    def guards(self) -> dict[str, dict[str, Any]]:
        """The guards of the source, by id."""
        found: dict[str, dict[str, Any]] = self._data["guards"]
        return found


def plain_name(flag: str) -> str:
    """A flag without its dashes in front, and with dashes for underscores."""
    return flag.lstrip("-").replace("_", "-")


@cache
def facts_of(engine: str) -> Facts | None:
    """The facts of an engine's version by its id, such as ``vllm-omni==0.30``; None where none were compiled."""
    family, _, version = engine.partition("==")
    folder = FOLDER / family.replace("-", "_") / "facts"
    files = (folder / f"{name}.json" for name in (version, version.removesuffix(".0")) if name)  # 0.30.0 is 0.30
    path = next((file for file in files if file.is_file()), None)
    return Facts(json.loads(path.read_bytes())) if path is not None else None


def shipped(family: str = "") -> list[str]:
    """The ids of the versions of which facts are shipped, of one engine or of all, each engine's oldest first."""
    from packaging.version import Version

    files = [path for path in FOLDER.glob("*/facts/*.json") if family.replace("-", "_") in ("", path.parts[-3])]
    return [
        f"{path.parts[-3].replace('_', '-')}=={path.stem}"
        for path in sorted(files, key=lambda path: (path.parts[-3], Version(path.stem)))
    ]
