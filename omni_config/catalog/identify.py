"""The model that a name means where no card has it as its id: by case, by the end of a path, by another name that an
engine has for it, or as a relative of a model with other weights or fewer steps.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace

from omni_config.cards import ModelCard
from omni_config.catalog.load import Catalog

#: Parts of a name that say how the weights are stored, and those that change nothing that a card says.
_STORED = (
    r"nvfp4|mxfp[48]|fp[48](_e\dm\d\w*|_scaled)?|nf4|int[48]|w\d+a\d+|\d-?bits?|awq|gptq|gguf|bnb|torchao|svdq(uant)?"
    r"|nunchaku|q[2-8](_[01k](_[sml])?)?|quantized|onnx|tensorrt|smashed"
)
_PACKAGING = r"diffusers|safetensors|hf|comfyui|repackaged|bf16|fp16|fp32|lightx2v"
#: Parts that say that a model was distilled to few steps or without guidance.
_DISTILLED = r"lightning|turbo|hyper|flash|fast|lcm|tcd|dmd2?|((step|cfg)[-_]?)?distill(ed)?([-_]full)?|\d+[-_]?steps?"
#: What a card says that is not true of a relative: its steps and guidance by default, and what its weights take.
_OF_THE_STEPS = ("num_inference_steps", "cfg_scale", "guidance_scale")
_OF_THE_WEIGHTS = ("transformer_parameters",)
_CACHED = re.compile(r"models--(.+?)--(.+?)(/|$)")


def identify(name: str, known: Catalog) -> tuple[ModelCard, str] | None:
    """The card of a model that is named otherwise, and how it was found, for people; None where nothing fits.

    What is not true of a relative is left out of the card.
    """
    name = _plain(name)
    ways: tuple[Callable[[str, Catalog], tuple[str, str] | None], ...] = (_by_case, _by_end, _by_alias, _as_relative)
    for way in ways:
        if found := way(name, known):
            card = known.model(found[0])
            return (_but_for(_end(name), card), f"{name} is taken for {found[0]}: {found[1]}") if card else None
    return None


def _plain(name: str) -> str:
    """A name with its path as on Linux, or the id that a path in the cache of the hub holds."""
    name = name.replace("\\", "/").rstrip("/")
    cached = _CACHED.search(name)
    return f"{cached[1]}/{cached[2]}" if cached else name


def same(name: str, card: ModelCard) -> bool:
    """Whether the last part of a name, or of the id in a cache's path, is that of a card, so that it needs no word."""
    return _end(_plain(name)) == _end(card.id)


def _but_for(end: str, card: ModelCard) -> ModelCard:
    stored, distilled = _others(end, _end(card.id))
    return replace(
        card,
        defaults={name: value for name, value in card.defaults.items() if not distilled or name not in _OF_THE_STEPS},
        dims={name: size for name, size in card.dims.items() if not stored or name not in _OF_THE_WEIGHTS},
    )


def same_model(name: str, known: Catalog) -> ModelCard | None:
    """The card of a model by its id, or by a path that ends in the last part of its id, in any case of letters."""
    if (card := known.model(name)) is not None:
        return card
    found = identify(name, known)
    return found[0] if found is not None and same(name, found[0]) else None


def _by_case(name: str, known: Catalog) -> tuple[str, str] | None:
    wanted = name.lower()
    id_ = next((id_ for id_ in known.model_ids if id_.lower() == wanted), None)
    return (id_, "the same but for its case" if id_ != name else "the id in the path") if id_ else None


def _by_end(name: str, known: Catalog) -> tuple[str, str] | None:
    wanted = _end(name)
    id_ = next((id_ for id_ in known.model_ids if "/" in id_ and _end(id_) == wanted), None)
    return (id_, "the last part of its name") if id_ else None


def _by_alias(name: str, known: Catalog) -> tuple[str, str] | None:
    known_as = {alias.lower(): id_ for alias, id_ in reversed(known.model_aliases.items())}
    id_ = known_as.get(name.lower()) or known_as.get(_end(name))
    return (id_, "the name that an engine has for it") if id_ else None


def _as_relative(name: str, known: Catalog) -> tuple[str, str] | None:
    """First with other weights only, since a distilled model may have a card of its own."""
    # Of two ids with one key the one that says least of its packaging, else the first.
    ids = [id_ for id_ in reversed(known.model_ids) if "/" in id_]
    ids.sort(key=lambda id_: -len(_parts(_end(id_), _PACKAGING)))
    plain = {_key(_end(id_), _PACKAGING): id_ for id_ in ids}
    plain |= {_key(_end(alias), _PACKAGING): id_ for alias, id_ in known.model_aliases.items()} | plain
    for pattern in (f"{_STORED}|{_PACKAGING}", f"{_STORED}|{_PACKAGING}|{_DISTILLED}"):
        if id_ := plain.get(_key(_end(name), pattern)):
            return id_, "; ".join(_differences(_end(name), _end(id_))) or "the same name, written differently"
    return None


def _differences(end: str, other: str) -> Iterable[str]:
    """What the parts of a name say that those of the other do not."""
    stored, distilled = _others(end, other)
    if stored:
        yield f"its weights are stored otherwise ({', '.join(stored)}), so they take other memory than the card's dtype"
    if distilled:
        yield f"it is distilled ({', '.join(distilled)}), so its steps and its guidance are not the card's"


def _others(end: str, other: str) -> tuple[list[str], list[str]]:
    """The parts of a name about how weights are stored, and about how it was distilled, that the other has not."""
    stored, distilled = ([part for part in _parts(end, kind) if part not in other] for kind in (_STORED, _DISTILLED))
    return stored, distilled


def _end(name: str) -> str:
    return name.lower().rpartition("/")[2]


def _parts(end: str, pattern: str) -> list[str]:
    return [found[0] for found in re.finditer(rf"(?<![a-z0-9])({pattern})(?![a-z0-9])", end)]


def _key(end: str, pattern: str) -> str:
    """The letters and digits of a name without the parts of a pattern; two names with the same key mean one model."""
    return re.sub(r"[^a-z0-9]", "", re.sub(rf"(?<![a-z0-9])({pattern})(?![a-z0-9])", "", end))
