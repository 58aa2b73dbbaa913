"""The model that a name means where no card has it as its id: by case, by the end of a path, by another name that an
engine has for it, or as a relative of a model with other weights or fewer steps.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from omni_config.cards import ModelCard
from omni_config.catalog.load import Catalog

#: Parts of a name that say how the weights are stored, and those that change nothing that a card says.
_STORED = (
    r"nvfp4|mxfp[48]|fp[48](_e\dm\d\w*|_scaled)?|nf4|int[48]|w\d+a\d+|\d-?bits?|awq|gptq|gguf|bnb|torchao|svdq(uant)?"
    r"|nunchaku|q[2-8](_[01k](_[sml])?)?|quantized"
)
_PACKAGING = r"diffusers|safetensors|hf|comfyui|repackaged|bf16|fp16|fp32"
#: Parts that say that a model was distilled to few steps or without guidance.
_DISTILLED = r"lightning|turbo|hyper|flash|fast|lcm|tcd|dmd2?|(step[-_]?)?distill(ed)?|\d+[-_]?steps?"
_CACHED = re.compile(r"models--(.+?)--(.+?)(/|$)")


def identify(name: str, known: Catalog) -> tuple[ModelCard, str] | None:
    """The card of a model that is named otherwise, and how it was found, for people; None where nothing fits."""
    name = name.replace("\\", "/").rstrip("/")
    if cached := _CACHED.search(name):
        name = f"{cached[1]}/{cached[2]}"
    ways: tuple[Callable[[str, Catalog], tuple[str, str] | None], ...] = (_by_case, _by_end, _by_alias, _as_relative)
    for way in ways:
        if found := way(name, known):
            card = known.model(found[0])
            return (card, f"{name} is taken for {found[0]}: {found[1]}") if card else None
    return None


def same_model(name: str, known: Catalog) -> ModelCard | None:
    """The card of a model by its id, or by a path that ends in the last part of its id, in any case of letters."""
    if (card := known.model(name)) is not None:
        return card
    same = identify(name, known)
    end = same[0].id.rpartition("/")[2].lower() if same else ""
    return same[0] if same and name.lower().rstrip("/").endswith(end) else None


def _by_case(name: str, known: Catalog) -> tuple[str, str] | None:
    wanted = name.lower()
    id_ = next((id_ for id_ in known.model_ids if id_.lower() == wanted), None)
    return (id_, "the same but for its case" if id_ != name else "the id in the path") if id_ else None


def _by_end(name: str, known: Catalog) -> tuple[str, str] | None:
    wanted = _end(name)
    id_ = next((id_ for id_ in known.model_ids if "/" in id_ and _end(id_) == wanted), None)
    return (id_, "the last part of its name") if id_ else None


def _by_alias(name: str, known: Catalog) -> tuple[str, str] | None:
    wanted = {name.lower(), _end(name)}
    id_ = next((id_ for alias, id_ in known.model_aliases.items() if alias.lower() in wanted), None)
    return (id_, "the name that an engine has for it") if id_ else None


def _as_relative(name: str, known: Catalog) -> tuple[str, str] | None:
    """First with other weights only, since a distilled model may have a card of its own."""
    plain = {_key(_end(id_), _PACKAGING): id_ for id_ in reversed(known.model_ids) if "/" in id_}
    plain |= {_key(_end(alias), _PACKAGING): id_ for alias, id_ in known.model_aliases.items()} | plain
    for pattern in (f"{_STORED}|{_PACKAGING}", f"{_STORED}|{_PACKAGING}|{_DISTILLED}"):
        if id_ := plain.get(_key(_end(name), pattern)):
            return id_, "; ".join(_differences(_end(name), _end(id_))) or "the same name, written differently"
    return None


def _differences(end: str, other: str) -> Iterable[str]:
    """What the parts of a name say that those of the other do not."""
    stored, distilled = ([part for part in _parts(end, kind) if part not in other] for kind in (_STORED, _DISTILLED))
    if stored:
        yield f"its weights are stored otherwise ({', '.join(stored)}), so they take other memory than the card's dtype"
    if distilled:
        yield f"it is distilled ({', '.join(distilled)}), so its steps and its guidance are not the card's"


def _end(name: str) -> str:
    return name.lower().rpartition("/")[2]


def _parts(end: str, pattern: str) -> list[str]:
    return [found[0] for found in re.finditer(rf"(?<![a-z0-9])({pattern})(?![a-z0-9])", end)]


def _key(end: str, pattern: str) -> str:
    """The letters and digits of a name without the parts of a pattern; two names with the same key mean one model."""
    return re.sub(r"[^a-z0-9]", "", re.sub(rf"(?<![a-z0-9])({pattern})(?![a-z0-9])", "", end))
