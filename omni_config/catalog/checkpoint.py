"""A model card from a checkpoint's own files: configurations, the headers of its safetensors files, and the signature
of its pipeline in diffusers, which is read as text where it is installed. No weights are read and nothing is imported.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from omni_config.cards import ModelCard
from omni_config.catalog.folder_card import TEXT_ENCODERS, card_of_folder
from omni_config.catalog.load import Catalog
from omni_config.reading.safetensors import MOST, numbers_of
from omni_config.rules.quantities import DIMS

MAX_FILES = 512
MAX_SOURCE = 2_000_000
#: Ours and theirs: what a pipeline's arguments are called.
_ARGUMENTS = {
    "width": ("width",),
    "height": ("height",),
    "num_frames": ("num_frames",),
    "fps": ("fps", "frame_rate"),
    "num_inference_steps": ("num_inference_steps",),
}
_DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}

#: In which file of diffusers a class is, by its kind and name, as the facts of a version have it.
Places = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Weights:
    """What the headers of a component's safetensors files say: numbers by dtype, in the words of the format."""

    numbers: dict[str, int]

    @property
    def dtype(self) -> str | None:
        """That of most numbers, in our words; None where it is none of ours."""
        return _DTYPES.get(max(self.numbers, key=self.numbers.__getitem__, default=""))

    @property
    def millions(self) -> int | None:
        """Parameters; None where some numbers are packed or scaled, as those of quantized weights are."""
        return round(sum(self.numbers.values()) / 1e6) if self.numbers and set(self.numbers) <= set(_DTYPES) else None


@dataclass(frozen=True)
class Described:
    """A card, and what of it is not from the folder: taken from the card of a like pipeline, or not known at all."""

    card: ModelCard
    taken_over: tuple[str, ...]
    unknown: tuple[str, ...]


def describe(folder: Path, known: Catalog, places: Places) -> Described:
    """The card of a checkpoint in a folder.

    Raises:
        ValueError: a file of it cannot be read, or no card has its pipeline class.
    """
    card = card_of_folder(folder, known)
    alike = known.model_of_pipeline(card.pipeline) or card
    transformers = [weights_of(folder / name) for name in ("transformer", "transformer_2", "unet")]
    encoders = [weights_of(folder / name) for name in TEXT_ENCODERS]
    counted = {"transformer_parameters": _millions(transformers), "text_encoder_parameters": _millions(encoders)}
    dims = card.dims | {name: number for name, number in counted.items() if number}
    stated = _defaults(card, places)
    dtype = next((weights.dtype for weights in transformers if weights), None)
    card = replace(
        card,
        dims={name: dims[name] for name in DIMS if name in dims},
        defaults=card.defaults | stated,
        dtype=dtype or card.dtype,  # type: ignore[arg-type]  # _DTYPES holds no other
        claims={},
        teacache_coefficients=None,
        teacache_fit=None,
        sources=(f"the configurations and headers in {folder}", *_signature_source(stated)),
    )
    taken = ["family", "task", "guidance", *([] if dtype else ["dtype"])]
    taken += [f"the default {name}" for name in card.defaults if name not in stated]
    missing = [DIMS[name] for name in alike.dims if name not in dims]
    return Described(card, tuple(taken), tuple(missing))


def weights_of(folder: Path) -> Weights | None:
    """Of the safetensors files of a component; None where it has none.

    Raises:
        ValueError: a header is damaged, or larger than any real one.
    """
    numbers, left = Counter[str](), MOST  # for all headers of a component together
    files = sorted(path for path in folder.glob("*.safetensors") if path.is_file())
    variants = [path for path in files if path.name.count(".") > 1]  # such as model.fp16.safetensors, a second copy
    files = [path for path in files if path not in variants] or variants
    if len(files) > MAX_FILES:
        raise ValueError(f"{folder.name} has {len(files)} safetensors files")
    for path in files:
        found, length = numbers_of(path, left)
        numbers, left = numbers + found, left - length
    return Weights(dict(numbers)) if files else None


def _millions(parts: list[Weights | None]) -> int | None:
    there = [part for part in parts if part]
    counts = [part.millions for part in there]
    return None if None in counts or not counts else sum(count for count in counts if count)


def _defaults(card: ModelCard, places: Places) -> dict[str, float]:
    """The defaults that the pipeline's call states in the diffusers that is installed here; empty where none is."""
    names = dict(_ARGUMENTS)
    if card.guidance and card.guidance.branches > 1:
        names["cfg_scale"] = (card.guidance.argument,)
    if card.guidance and card.guidance.distilled_argument:
        names["guidance_scale"] = (card.guidance.distilled_argument,)
    arguments = call_of(card.pipeline, places)
    found: dict[str, float] = {}
    for ours, theirs in names.items():
        value = next((arguments[name] for name in theirs if type(arguments.get(name)) in (int, float)), None)
        if value is not None:
            found[ours] = float(value) if ours.endswith("_scale") else int(value)
    return found


def call_of(pipeline: str, places: Places) -> dict[str, Any]:
    """The arguments of a pipeline's call with their defaults where those are literals; empty without diffusers."""
    place = places.get(f"pipeline {pipeline}", {}).get("at")
    installed = find_spec("diffusers")
    if not place or installed is None or not installed.submodule_search_locations:
        return {}
    path = Path(installed.submodule_search_locations[0]).parent / str(place).rpartition(":")[0]
    try:
        source = path.read_bytes()
        tree = ast.parse(source if len(source) <= MAX_SOURCE else b"")
    except (OSError, ValueError, SyntaxError, RecursionError):
        return {}  # another version, whose pipeline lies elsewhere
    calls = (
        node
        for kind in tree.body
        if isinstance(kind, ast.ClassDef) and kind.name == pipeline
        for node in kind.body
        if isinstance(node, ast.FunctionDef) and node.name == "__call__"
    )
    call = next(calls, None)
    if call is None:
        return {}
    positional = call.args.args[len(call.args.args) - len(call.args.defaults) :]
    pairs = [
        *zip(positional, call.args.defaults, strict=True),
        *zip(call.args.kwonlyargs, call.args.kw_defaults, strict=True),
    ]
    return {argument.arg: node.value for argument, node in pairs if isinstance(node, ast.Constant)}


def _signature_source(stated: dict[str, Any]) -> tuple[str, ...]:
    return ("the signature of its pipeline in the diffusers that is installed",) if stated else ()
