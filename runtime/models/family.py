"""What a model family tells the runtime: all that is special about one family stands in its file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from omni_config.plan import Plan

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Family:
    """A family of pipelines whose transformer is of one class (diffusers 0.42)."""

    transformer: str
    """Name of the transformer's class."""
    blocks: tuple[str, ...]
    """The transformer's lists of blocks, in the order in which they are called."""
    image_tokens: str
    """Argument of a block that holds the image's tokens, (batch, tokens, width)."""
    text_tokens: str | None
    """Argument that holds the text's; a block then returns (text, image). None: it returns the image's tokens."""
    output_shape: Callable[..., list[int]]
    """The shape of what the pipeline reads of what the transformer returns, from itself, its input, and by name all
    that it is given; what comes before, along the second dim, is not read."""
    modulated_input: Callable[..., torch.Tensor] | None = None
    """What the first block's attention gets, from the block and its arguments, for TeaCache; None: unknown."""
    image_comes_first: bool = False
    """Whether a block with two streams returns (image, text)."""
    padded_to: int = 1
    """The number of tokens is a multiple of this; 1: it is any number."""
    lists_of_their_own: tuple[str, ...] = ()
    """Lists of layers before the blocks whose tokens cache-dit splits and gathers by themselves."""
    text_stays_whole: bool = False
    """Each rank attends to all of the text, which cache-dit's plan would split."""
    masked: bool = False
    """Whether its attention always has a mask."""
    mask: str | None = None
    """Argument of the transformer that masks tokens of text and image, (batch, tokens)."""
    heads_stay: bool = False
    """Its attention takes the size of a head from the number of heads, which tensor parallelism must leave as it is."""
    batched_arguments: tuple[str, ...] = ()
    """Arguments of a batched call of guidance that have one item an image, of both branches; the latents first."""
    call: Mapping[str, Callable[[Plan, dict[str, Any]], dict[str, Any]]] = field(default_factory=dict)
    """By pipeline class that is not called as most are: its arguments, from those of most."""
    transparent: tuple[str, ...] = ()
    """Pipeline classes that look at what is transparent in their input image."""
    without_contexts: tuple[str, ...] = ()
    """Pipeline classes that do not say of which branch of guidance a call is."""
    text_encoder: str = "text_encoder"
    """The encoder that is worth splitting."""
    random: Mapping[str, Callable[[], Any]] = field(default_factory=dict)
    """Small pipelines of random weights, by their class, where no embedded model is of it."""

    def blocks_of(self, transformer: Any) -> list[Any]:
        """The blocks of a transformer, in the order in which they are called."""
        return [block for name in self.blocks for block in getattr(transformer, name)]


def tokens_out(transformer: Any, tokens: torch.Tensor, **_: Any) -> list[int]:
    """(batch, tokens, channels of a patch), of a transformer that takes tokens and returns tokens."""
    return [*tokens.shape[:-1], transformer.proj_out.out_features]


def latents_out(transformer: Any, latents: torch.Tensor, **_: Any) -> list[int]:
    """(batch, channels, height, width), or (batch, channels, frames, height, width)."""
    return [len(latents), transformer.config.out_channels, *latents.shape[2:]]
