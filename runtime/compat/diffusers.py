"""Quirks of diffusers (0.42), and of transformers (5.23), whose models its pipelines load."""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from runtime.compat.patches import Undo, replaced

if TYPE_CHECKING:
    import torch


def processor_without_video() -> None:
    """Let Qwen's processor do without torchvision: transformers (5.23) needs that to look at videos.

    An editing pipeline looks at pictures only.
    """
    from importlib.util import find_spec

    if find_spec("torchvision") is None:
        from transformers import Qwen2VLProcessor, Qwen3VLProcessor

        for processor in (Qwen2VLProcessor, Qwen3VLProcessor):
            processor.get_attributes = staticmethod(lambda: ["image_processor", "tokenizer"])


def has_attention_backends(transformer: Any) -> bool:
    """Whether an attention of a transformer heeds diffusers' (0.42) backends; it sets them on those that do only."""
    return any(hasattr(getattr(module, "processor", None), "_attention_backend") for module in transformer.modules())


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


def precision(model: torch.nn.Module, name: str, dtype: torch.dtype) -> torch.dtype:
    """The precision that a weight has when its pipeline is loaded in ``dtype``.

    Both libraries keep some layers in float32: diffusers (0.42) always, transformers (5.23) in half precision.
    """
    import torch

    library: Any = model
    kept = {*(getattr(library, "_keep_in_fp32_modules", None) or ())}
    if hasattr(library, "_keep_in_fp32_modules_strict"):  # of transformers, for which the others mean float16
        strict = {*(library._keep_in_fp32_modules_strict or ())}
        kept = kept | strict if dtype == torch.float16 else strict
    return torch.float32 if kept & {*name.split(".")} else dtype


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


def name_branches(pipe: Any) -> None:
    """Let each call of the transformer within a step stand in a cache context, as those of other pipelines do.

    Kontext, Fill and Chroma (diffusers 0.42) open none. Of two calls a step the first has the prompt.
    """
    transformer, scheduler = pipe.transformer, pipe.scheduler
    calls: list[Any] = []

    def begin(*_: Any) -> None:
        context = transformer.cache_context("uncond" if calls else "cond")
        calls.append(context)
        context.__enter__()

    def end(*_: Any) -> None:
        calls[-1].__exit__(None, None, None)

    def forgetting(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def forget(*args: Any, **kwargs: Any) -> Any:
            calls.clear()
            return method(*args, **kwargs)

        return forget

    transformer.register_forward_pre_hook(begin)
    transformer.register_forward_hook(end, always_call=True)
    scheduler.step, scheduler.set_timesteps = forgetting(scheduler.step), forgetting(scheduler.set_timesteps)


@contextmanager
def steps_called_back(pipe: Any, arguments: dict[str, Any]) -> Iterator[None]:
    """Call ``callback_on_step_end`` after each step of a pipeline that has no such argument, from which it is taken.

    HunyuanVideo 1.5's (diffusers 0.42) have none; its scheduler is called once a step.
    """
    name = "callback_on_step_end"
    if name not in arguments or name in inspect.signature(pipe.__call__).parameters:
        yield
        return
    callback, steps, step = arguments.pop(name), itertools.count(), pipe.scheduler.step

    @functools.wraps(step)
    def called_back(*args: Any, **kwargs: Any) -> Any:
        output = step(*args, **kwargs)
        callback(pipe, next(steps), None, {"latents": output[0]})
        return output

    undo = replaced(pipe.scheduler, "step", called_back)
    try:
        yield
    finally:
        undo()


def forget(states: Any) -> None:
    """Reset the states of a hook in all contexts; diffusers (0.42) would leave the one that is open, too."""
    context = states._context
    states.reset()
    states._context = context
