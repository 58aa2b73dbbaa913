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


def hook_of(module: Any, name: str) -> Any:
    """The hook that diffusers (0.42) has put onto a module under a name, or None; asking does not make a registry."""
    registry = getattr(module, "_diffusers_hook", None)
    return registry and registry.get_hook(name)


def leave_out_of_offload(pipe: Any, part: str) -> Undo:
    """Let diffusers' (0.42) model offload keep a part of a pipeline on the device; its own list is of the class."""
    order = pipe.model_cpu_offload_seq
    pipe.model_cpu_offload_seq = "->".join(name for name in order.split("->") if name != part)
    pipe._exclude_from_cpu_offload = [*pipe._exclude_from_cpu_offload, part]

    def undo() -> None:  # the lists of the instance hid those of the class
        del pipe.model_cpu_offload_seq, pipe._exclude_from_cpu_offload

    return undo


def forget(states: Any) -> None:
    """Reset the states of a hook in all contexts; diffusers (0.42) would leave the one that is open, too."""
    context = states._context
    states.reset()
    states._context = context
