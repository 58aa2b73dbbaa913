"""Z-Image: image and text are one sequence, padded; guidance is one call with the batch doubled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runtime.models.family import Family

if TYPE_CHECKING:
    import torch


def _modulated_input(block: Any, x: torch.Tensor, adaln_input: torch.Tensor, **_: Any) -> Any:
    scale = block.adaLN_modulation(adaln_input).unsqueeze(1).chunk(4, dim=2)[0]
    return block.attention_norm1(x) * (1.0 + scale)


FAMILY = Family(
    transformer="ZImageTransformer2DModel",
    blocks=("layers",),
    image_tokens="x",
    text_tokens=None,
    output_shape=lambda _, latents, **__: list(latents.shape),
    modulated_input=_modulated_input,
    padded_to=32,
    lists_of_their_own=("noise_refiner", "context_refiner"),
    batched_arguments=("x", "t", "cap_feats"),
)
