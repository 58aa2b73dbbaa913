"""LoRA adapters that come and go between calls: loaded when first asked for, and a bound on how many stay."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from omni_config.plan import Plan
from runtime.errors import CannotRunError


class Adapter(NamedTuple):
    """An adapter that a request names; a file that has changed since is another version."""

    path: str
    scale: float
    version: int


class Adapters:
    """Those beside a pipeline. The Plan's own stay, and count in every call."""

    def __init__(self, pipe: Any, plan: Plan, most: int) -> None:
        from runtime.features import lora

        self._pipe = pipe
        self._own = {name: adapter.scale for name, adapter in zip(lora.names(plan.lora), plan.lora, strict=True)}
        self._most = most
        self._loaded: dict[tuple[str, int], str] = {}  # names of peft's, the one that was used last at the end
        self._number = 0
        self._used: tuple[Adapter, ...] | None = ()

    def use(self, wanted: Sequence[Adapter]) -> None:
        """Let the next call have these adapters and those of the Plan, and no others.

        Raises:
            CannotRunError: a file is missing, damaged, or for another transformer; the next call must name others.
        """
        wanted = tuple(wanted)
        if wanted == self._used:
            return
        self._used = None
        keys = [(adapter.path, adapter.version) for adapter in wanted]
        for key in keys:
            if key in self._loaded:
                self._loaded[key] = self._loaded.pop(key)
        missing = [key for key in dict.fromkeys(keys) if key not in self._loaded]
        for key in [key for key in self._loaded if key not in keys]:
            if len(self._loaded) + len(missing) > self._most:
                self._pipe.delete_adapters(self._loaded.pop(key))
        for key in missing:
            self._load(key)
        scales = self._own | {self._loaded[key]: adapter.scale for key, adapter in zip(keys, wanted, strict=True)}
        if scales:
            self._pipe.enable_lora()
            self._pipe.set_adapters([*scales], [*scales.values()])
        elif self._loaded:
            self._pipe.disable_lora()
        self._used = wanted

    def _load(self, key: tuple[str, int]) -> None:
        from runtime.features import lora

        path = Path(key[0])
        self._number += 1
        name = f"request{self._number}"
        try:
            lora.load_one(self._pipe, path, name)
        except CannotRunError as error:
            if any(name in there for there in self._pipe.get_list_adapters().values()):  # of some layers
                self._pipe.delete_adapters(name)
            raise CannotRunError(str(error).replace(str(path), f"the adapter {path.stem}")) from error
        self._loaded[key] = name
