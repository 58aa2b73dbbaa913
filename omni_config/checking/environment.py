"""What a check looks up on this machine: a model's folder and adapters, where a config names them by path."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from omni_config.cards import EngineCard, ModelCard
from omni_config.catalog.load import catalog
from omni_config.findings import Finding
from omni_config.reading.nodes import Unreadable, YamlNode
from omni_config.schema.settings import Settings


def folder_card(folder: str, node: YamlNode) -> tuple[ModelCard | None, list[Finding]]:
    """The card of a local diffusers folder; None, with the reason, where it holds no known pipeline."""
    from omni_config.catalog.folder_card import card_of_folder

    try:
        return card_of_folder(Path(folder), catalog()), []
    except ValueError as error:
        place, next_step = node.children["model"].span, "name a diffusers folder of a known pipeline"
        return None, [Finding("OMNI501", f"{folder}: {error}", next_step=next_step, fields=("model",), span=place)]


def pipeline_of_folder(folder: Path) -> str:
    """The pipeline class that a folder's model_index.json names; empty where it names none."""
    try:
        index = json.loads((folder / "model_index.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return ""
    named = index.get("_class_name") if isinstance(index, dict) else None
    return named if isinstance(named, str) else ""


def unusable_machine(settings: Settings, node: YamlNode) -> Iterator[Finding]:
    """What is wrong with the file of hardware.machine: at its place there, and beside it where the config names it."""
    if settings["machine"] is None:
        return
    from omni_config.estimate.machine import machine_of

    try:
        machine_of(settings["machine"])
    except Unreadable as error:
        found, place = error.finding, (node.find(("hardware", "machine")) or node).span
        yield replace(found, fields=("machine",), span=found.span or place, related=(place,) if found.span else ())


def missing_adapters(settings: Settings, engine: EngineCard, node: YamlNode) -> Iterator[Finding]:
    """LoRA adapters that are no .safetensors file here; other engines run elsewhere, and take other sources."""
    if engine.id != "native":
        return
    for number, adapter in enumerate(settings["lora"]):
        path = Path(adapter["path"])
        if path.suffix != ".safetensors" or not path.is_file():
            kind = "is no .safetensors file" if path.exists() else "no such file"
            place = node.find(("lora", number, "path")) or node
            yield Finding("OMNI610", f"LoRA adapter {path}: {kind}", fields=("lora",), span=place.span)
