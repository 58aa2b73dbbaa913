"""A platform whose device is the CPU, with gloo: vLLM-Omni 0.30 has none of the CPU.

It says that it is CUDA, as what depends on that is written for a deployment; only devices, streams and memory are the
CPU's, which vLLM's own CPU platform has. Memory cannot be pinned without a GPU.
"""

# mypy: allow-untyped-calls
from __future__ import annotations

import importlib
from typing import Any

import torch

FOR = "no GPU"
MEMORY = 140 * 2**30  # bytes that a device says it has
DEVICES = 8


def apply(omni: Any) -> None:
    """After the import of vLLM, before that of what asks for the platform."""
    if omni is not None:
        return
    interface: Any = importlib.import_module("vllm_omni.platforms.interface")
    cpu: Any = importlib.import_module("vllm.platforms.cpu")

    class OnCpu(interface.OmniPlatform, cpu.CpuPlatform):  # type: ignore[misc]
        _omni_enum = interface.OmniPlatformEnum.CUDA

        @classmethod
        def get_diffusion_attn_backend_cls(cls, selected_backend: str | None, *_: Any, **__: Any) -> str:
            registry: Any = importlib.import_module("vllm_omni.diffusion.attention.backends.registry")
            name = (selected_backend or "TORCH_SDPA").upper()
            cls.validate_diffusion_attn_backend(name)
            return str(registry.DiffusionAttentionBackendEnum[name].get_path())

        @classmethod
        def get_torch_device(cls, *_: Any) -> torch.device:
            return torch.device("cpu")

        @classmethod
        def get_device_count(cls) -> int:
            return DEVICES

        @classmethod
        def get_free_memory(cls, *_: Any) -> int:
            return MEMORY

        @classmethod
        def get_device_memory(cls, *_: Any) -> tuple[int, int]:
            return MEMORY, MEMORY

        @classmethod
        def get_device_total_memory(cls, *_: Any) -> int:
            return MEMORY

        @classmethod
        def max_memory_reserved(cls, *_: Any) -> int:
            return 0

        @classmethod
        def max_memory_allocated(cls, *_: Any) -> int:
            return 0

        @classmethod
        def reset_peak_memory_stats(cls, *_: Any) -> None:
            pass

        @classmethod
        def empty_cache(cls) -> None:
            pass

        @classmethod
        def supports_torch_inductor(cls) -> bool:
            return False

        @classmethod
        def synchronize(cls) -> None:
            pass

        @classmethod
        def is_available(cls) -> bool:
            return False

        @classmethod
        def get_default_stage_config_path(cls) -> str:
            return "vllm_omni/deploy"

    platforms: Any = importlib.import_module("vllm_omni.platforms")
    platforms._current_omni_platform = OnCpu()
    for name in ("empty", "zeros"):
        setattr(torch, name, _unpinned(getattr(torch, name)))
    torch.Tensor.pin_memory = lambda self, *_: self  # type: ignore[method-assign]


def _unpinned(made: Any) -> Any:
    def on_cpu(*args: Any, **named: Any) -> Any:
        return made(*args, **{name: value for name, value in named.items() if name != "pin_memory"})

    return on_cpu
