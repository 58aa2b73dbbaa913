"""LoRA adapters that a request names: files of the one folder that the config allows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from runtime.pipeline.adapters import Adapter
from runtime.serving.errors import RequestError

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_. -]{0,127}")


class LoraRequest(BaseModel):
    """One adapter, in vLLM-Omni's words and their other spellings."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str = Field(
        validation_alias=AliasChoices("name", "lora_name", "adapter"), description="Of its file, without .safetensors."
    )
    scale: float = Field(
        default=1.0, ge=-10, le=10, validation_alias=AliasChoices("scale", "lora_scale"), description="Strength."
    )
    path: str | None = Field(
        default=None,
        validation_alias=AliasChoices("path", "local_path", "lora_path", "lora_local_path"),
        description="Left out, or a file of the folder, in place of the name.",
    )
    int_id: int | None = Field(
        default=None,
        validation_alias=AliasChoices("int_id", "lora_int_id"),
        description="Taken for vLLM-Omni's sake; nothing depends on it.",
    )


def names_in(folder: str | None) -> list[str]:
    """Those that requests may name."""
    return [] if folder is None else sorted(path.stem for path in Path(folder).glob("*.safetensors"))


def adapters_of(asked: Sequence[LoraRequest], folder: str | None, most: int) -> list[Adapter]:
    """The adapters that a request asks for, each once.

    Raises:
        RequestError: the server allows none, too many are asked for, or one is not in the folder.
    """
    if not asked:
        return []
    if folder is None:
        raise RequestError(400, "no adapters are served here", param="lora", code="lora_not_allowed")
    if len(asked) > most:
        raise RequestError(400, f"at most {most} adapters a request", param="lora")
    found = [_adapter(one, Path(folder)) for one in asked]
    if len({adapter.path for adapter in found}) < len(found):
        raise RequestError(400, "an adapter is there twice", param="lora")
    return found


def _adapter(asked: LoraRequest, folder: Path) -> Adapter:
    name = asked.name
    if asked.path is not None:
        path = Path(asked.path)
        name = path.stem
        if "\0" in asked.path or path.suffix != ".safetensors" or path.parent.resolve() != folder.resolve():
            raise RequestError(400, "adapters are named, and come from one folder", param="lora", code="lora_not_found")
    file = folder.resolve() / f"{name}.safetensors"
    if not _NAME.fullmatch(name) or not file.is_file():
        raise RequestError(400, f"there is no adapter {name}", param="lora", code="lora_not_found")
    return Adapter(str(file), asked.scale, file.stat().st_mtime_ns)
