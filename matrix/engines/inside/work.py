"""Counts what a rank computes: what a setting that is accepted and ignored does not change."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

DAMAGE = -1000.0
#: Sequences and tokens are those that blocks were given, ``decoder_work`` the numbers that convolutions made.
COUNTED = (
    *("transformer_calls", "blocks_run", "sequences", "tokens"),
    *("decoder_calls", "decoder_work", "decoder_batch"),
)


class Work:
    """Counters of one rank; ``first`` is called after the first forward of a transformer."""

    def __init__(self, transformers: list[Any], vae: Any, first: Callable[[], None]) -> None:
        self.counts = dict.fromkeys(COUNTED, 0)
        self.counts["parameters"] = sum(_size(p) for one in transformers for p in one.parameters())
        self._first = first
        for one in transformers:
            one.register_forward_hook(self._transformer)
            for block in blocks(one):
                block.register_forward_hook(self._block, with_kwargs=True)
        decoder = getattr(vae, "decoder", None)
        if decoder is not None:
            decoder.register_forward_hook(self._decoder)
            for layer in decoder.modules():
                if "Conv" in type(layer).__name__ and not list(layer.children()):
                    layer.register_forward_hook(self._convolution)

    def _transformer(self, *_: Any) -> None:
        self.counts["transformer_calls"] += 1
        self._first()

    def _block(self, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any], __: Any) -> None:
        self.counts["blocks_run"] += 1
        given = [one for one in (*args, *kwargs.values()) if getattr(one, "ndim", 0) >= 3]
        if given:
            self.counts["sequences"] += given[0].shape[0]
            self.counts["tokens"] += math.prod(given[0].shape[:-1])

    def _decoder(self, _: Any, args: tuple[Any, ...], __: Any) -> None:
        latents = args[0]
        self.counts["decoder_calls"] += 1
        self.counts["decoder_batch"] = max(self.counts["decoder_batch"], latents.shape[0])

    def _convolution(self, _: Any, __: Any, output: Any) -> None:
        self.counts["decoder_work"] += output.numel()

    def taken(self) -> dict[str, int]:
        """The counts so far; those of calls start again."""
        counts = dict(self.counts)
        self.counts |= {name: 0 for name in self.counts if name != "parameters"}
        return counts


def blocks(transformer: Any) -> Iterator[Any]:
    """The blocks of a transformer: modules in its lists that have attention, whoever has wrapped it, or some of them.

    Lists inside of other parts, as those of an embedder of the text, are none of its own.
    """
    import torch

    lists = {
        name: module
        for name, module in transformer.named_modules()
        if isinstance(module, torch.nn.ModuleList) and any(_attends(one) for one in module)
    }
    depth = min((name.count(".") for name in lists), default=0)
    for name, module in lists.items():
        if name.count(".") == depth:
            for one in module:
                if _attends(one):
                    yield from list(blocks(one)) or [one]


def _attends(module: Any) -> bool:
    return any("attn" in name or "attention" in name for name, _ in module.named_modules())


def _size(parameter: Any) -> int:
    local = getattr(parameter, "_local_tensor", parameter)
    return int(local.numel())


@contextmanager
def damaged(model: Any, here: bool) -> Iterator[None]:
    """With a weight of a model damaged, on the rank that this is: one amid its blocks, or its decoder's first."""
    weight = _weight(model) if here else None
    if weight is None:
        yield
        return
    whole = weight.clone()
    weight.mul_(DAMAGE)
    yield
    weight.copy_(whole)


def _weight(model: Any) -> Any:
    decoder = getattr(model, "decoder", None)
    if decoder is not None:
        return next(p.data for name, p in decoder.named_parameters() if name.endswith("weight") and _size(p))
    all_blocks = list(blocks(model))
    middle = all_blocks[len(all_blocks) // 2] if all_blocks else model
    named = [
        (name, getattr(p.data, "_local_tensor", p.data))
        for name, p in middle.named_parameters()
        if _size(p) and "lora_" not in name  # which an engine may have merged
    ]
    values = [weight for name, weight in named if "to_v" in name or "v_proj" in name or "qkv" in name]
    return values[0] if values else max((weight for _, weight in named), key=lambda one: one.numel())
