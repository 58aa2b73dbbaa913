"""Quantities that rules speak of by name: settings, dimensions of the model, features, and the derived ones below."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import gcd, prod
from typing import Any

from omni_config.cards import EngineCard, Feature, ModelCard
from omni_config.expressions import Expression, parse


class Quantities(dict[str, Any]):
    """Settings and card facts, with derived quantities computed when they are first asked for.

    Unknown dimensions are None, and rules that need them hold their tongue.
    """

    def __init__(
        self, settings: Mapping[str, Any], card: ModelCard, engine: EngineCard, features: Mapping[str, Feature]
    ) -> None:
        super().__init__(settings)
        self.card = card
        self.engine_card = engine
        self.features = features

    def __missing__(self, name: str) -> Any:
        if name in DERIVED:
            value = DERIVED[name](self)
        elif name in self.features:
            value = bool(_active(self.features[name])(self))
        elif name in DIMS:
            value = self.card.dims.get(name)
        else:
            raise KeyError(name)
        self[name] = value
        return value


#: Dimensions that a model card may state (of the transformer, but for the last two).
DIMS = {
    "num_attention_heads": "attention heads",
    "num_kv_heads": "key/value heads",
    "hidden_size": "hidden size",
    "ffn_dim": "feed-forward width",
    "output_dim": "output width",
    "num_layers": "blocks",
    "patch_size": "patch size",
    "vae_scale_factor": "VAE scale factor",
}

_expressions: dict[str, Expression] = {}


def _active(feature: Feature) -> Expression:
    if feature.active not in _expressions:
        _expressions[feature.active] = parse(feature.active)
    return _expressions[feature.active]


def world_size(q: Quantities) -> int:
    """Ranks: ulysses x ring x cfg x tensor."""
    return prod((q["ulysses_degree"], q["ring_degree"], q["cfg_parallel_size"], q["tensor_parallel_size"]))


def dit_group_size(q: Quantities) -> int:
    """Ranks that hold the DiT, and so the group that VAE patch parallelism reuses."""
    return world_size(q)


def heads_per_tensor_rank(q: Quantities) -> int | None:
    """Attention heads that one tensor rank holds; None where they are unknown or do not divide."""
    return _shared(q["num_attention_heads"], q["tensor_parallel_size"])


def kv_heads_per_tensor_rank(q: Quantities) -> int | None:
    """Key/value heads that one tensor rank holds; None where they are unknown or do not divide."""
    return _shared(q["num_kv_heads"], q["tensor_parallel_size"])


def _shared(count: int | None, ranks: int) -> int | None:
    return None if count is None or count % ranks else count // ranks


def tensor_parallel_choices(q: Quantities) -> str:
    """Tensor-parallel sizes that divide every dimension which the model card says is split: "1 or 2"."""
    common = gcd(*(q.card.dims[name] for name in q.card.tensor_parallel_splits))
    return one_of([size for size in range(1, common + 1) if common % size == 0])


def tensor_parallel_dims(q: Quantities) -> str:
    """The dimensions that tensor parallelism splits, for people."""
    return ", ".join(f"{DIMS[name]} {q.card.dims[name]}" for name in q.card.tensor_parallel_splits)


def ulysses_choices(q: Quantities) -> str:
    """Ulysses degrees that divide the heads of a tensor rank."""
    heads = q["heads_per_tensor_rank"] or 1
    return one_of([size for size in range(1, heads + 1) if heads % size == 0])


def cfg_branches(q: Quantities) -> int:
    """Predictions that classifier-free guidance makes a step: 2, or 1 where it is off."""
    guidance = q.card.guidance
    if guidance is None or q["cfg_scale"] is None or q["cfg_scale"] <= guidance.off_at:
        return 1
    return 1 if guidance.needs_negative_prompt and q["negative_prompt"] is None else 2


def pixel_multiple(q: Quantities) -> int | None:
    """Width and height must be multiples of this: pixels a latent times latents a patch."""
    scale, patch = q["vae_scale_factor"], q["patch_size"]
    return None if scale is None or patch is None else scale * patch


def model_name(q: Quantities) -> str:
    """Id of the model card."""
    return q.card.id


def engine_name(q: Quantities) -> str:
    """Id of the engine card."""
    return q.engine_card.id


def one_of(values: list[int]) -> str:
    """``[1, 2, 4]`` as "1, 2 or 4"."""
    *front, last = [str(value) for value in values]
    return f"{', '.join(front)} or {last}" if front else last


DERIVED: dict[str, Callable[[Quantities], Any]] = {
    function.__name__: function
    for function in (
        world_size,
        dit_group_size,
        heads_per_tensor_rank,
        kv_heads_per_tensor_rank,
        tensor_parallel_choices,
        tensor_parallel_dims,
        ulysses_choices,
        cfg_branches,
        pixel_multiple,
        model_name,
        engine_name,
    )
}
