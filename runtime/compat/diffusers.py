"""Quirks of diffusers (0.42), and of transformers (5.23), whose models its pipelines load."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from runtime.compat.patches import Undo


def processor_without_video() -> None:
    """Let Qwen's processor do without torchvision: transformers (5.23) needs that to look at videos.

    An editing pipeline looks at pictures only.
    """
    from importlib.util import find_spec

    if find_spec("torchvision") is None:
        from transformers import Qwen2VLProcessor

        Qwen2VLProcessor.get_attributes = staticmethod(lambda: ["image_processor", "tokenizer"])


def attention_kernel(backend: str) -> Callable[..., Any]:
    """The function with which diffusers (0.42) computes attention in a backend."""
    from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry

    kernel: Callable[..., Any] = _AttentionBackendRegistry._backends[AttentionBackendName(backend)]
    return kernel


def replace_attention_kernel(backend: str, kernel: Callable[..., Any]) -> Undo:
    """Let diffusers (0.42) compute attention in a backend with this function, in all models of the process."""
    from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry

    registered, name = _AttentionBackendRegistry._backends, AttentionBackendName(backend)
    before = registered[name]
    registered[name] = kernel

    def undo() -> None:
        registered[name] = before

    return undo
