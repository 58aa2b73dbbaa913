"""The weights of a small text encoder by the names that published ones have: it was saved without its head.

vLLM-Omni 0.30 reads Z-Image's encoder as ``Qwen3ForCausalLM``, with ``model.`` before each name.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

FOR = "small models"
OURS, THEIRS = "text_encoder.", "text_encoder.model."
LAYERS = ("embed_tokens.", "layers.", "norm.")


def apply(omni: Any) -> None:
    """After the import, in the loader."""
    if omni is None:
        return
    loader: Any = importlib.import_module("vllm_omni.diffusion.model_loader.diffusers_loader").DiffusersPipelineLoader
    once = loader._get_weights_iterator

    def renamed(self: Any, *args: Any, **kwargs: Any) -> Iterator[tuple[str, Any]]:
        for name, weight in once(self, *args, **kwargs):
            bare = name.removeprefix(OURS)
            yield (THEIRS + bare if name != bare and bare.startswith(LAYERS) else name), weight

    loader._get_weights_iterator = renamed
