"""LoRA: low-rank adapters beside the layers of the transformer, from local safetensors files (diffusers and peft)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omni_config.plan import Lora, Plan
from runtime.errors import CannotRunError
from runtime.features.feature import Feature, Handle

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


def wanted(plan: Plan) -> bool:
    """Whether the Plan names adapters."""
    return bool(plan.lora)


def apply(pipe: Any, plan: Plan, mesh: DeviceMesh | None) -> Handle:
    """Load every adapter with its scale. Tensor parallelism, if it is on, adds them to its slices of the weights.

    Raises:
        CannotRunError: a file that is missing, is no safetensors file, or does not fit this transformer.
    """
    return _Adapters(pipe, _load(pipe, plan.lora), fused=plan.mesh.tensor > 1)


@dataclass(frozen=True, slots=True)
class _Adapters(Handle):
    pipe: Any
    layers: int
    fused: bool

    def measure(self) -> dict[str, Any]:
        """The layers that have an adapter, and whether adapters became part of the weights."""
        return {"layers": self.layers, "fused": self.fused}

    def undo(self) -> None:
        """Take the adapters off."""
        self.pipe.unload_lora_weights()


def names(adapters: list[Lora]) -> list[str]:
    """What peft calls them."""
    return [f"lora{number}" for number in range(len(adapters))]


def _load(pipe: Any, adapters: list[Lora]) -> int:
    """Load adapters beside the weights; the number of layers that have one."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, adapter in zip(names(adapters), adapters, strict=True):
        load_one(pipe, Path(adapter.path), name)
    pipe.set_adapters(names(adapters), [adapter.scale for adapter in adapters])
    return sum(isinstance(module, BaseTunerLayer) for module in pipe.transformer.modules())


def load_one(pipe: Any, path: Path, name: str) -> None:
    """Load one file, all of it or nothing: diffusers would drop what does not fit with a warning.

    Raises:
        CannotRunError: it is missing, is no safetensors file, or does not fit this transformer.
    """
    from safetensors import SafetensorError, safe_open

    transformer, kind = pipe.transformer, type(pipe.transformer).__name__
    if not hasattr(pipe, "load_lora_weights"):
        raise CannotRunError(f"{type(pipe).__name__} takes no LoRA adapters; take lora out of the config")
    if path.suffix != ".safetensors":
        raise CannotRunError(f"{path} is no .safetensors file, and only those are loaded; convert the adapter")
    try:
        with safe_open(path, "pt") as file:
            unused = [key for key in file.keys() if "dora_scale" in key]  # noqa: SIM118 (no mapping)
        where = {"weight_name": path.name, "use_safetensors": True, "local_files_only": True}
        weights = pipe.lora_state_dict(str(path.parent), **where)
        modules = {module for module, _ in transformer.named_modules()}
        unused += [key for key in weights if _layer(key) not in modules]
        if not unused and weights:
            pipe.load_lora_weights(str(path.parent), adapter_name=name, **where)
    except FileNotFoundError as error:
        raise CannotRunError(f"{path}: no such file; check the path of the LoRA adapter") from error
    except (OSError, SafetensorError) as error:
        raise CannotRunError(f"{path} cannot be read as a safetensors file: {_first_line(error)}") from error
    except Exception as error:  # what diffusers and peft raise at the contents of a file has no common class
        raise CannotRunError(f"{path} is no LoRA adapter for {kind}: {_first_line(error)}") from error
    if unused or not weights:
        named = f"it has {unused[0]}, for which there is no place" if unused else "it holds no weights"
        raise CannotRunError(f"{path} is no LoRA adapter for {kind}: {named}")


def _layer(key: str) -> str | None:
    """The layer of the transformer that a key of diffusers' format is for."""
    found = re.fullmatch(r"transformer\.(.+?)\.(lora|lokr)[._].+", key)
    return found and found[1]


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[1] if len(lines) > 1 and lines[0].endswith(":") else lines[0]) if lines else type(error).__name__


FEATURE = Feature("lora", catalog=("lora",), wanted=wanted, apply=apply)
