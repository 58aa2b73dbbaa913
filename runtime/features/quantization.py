"""Quantization: the weights of blocks are kept in 8 bits, each row with its scale (torchao).

It is for the transformer, the text encoders or both. Weight-only, weights are multiplied in the precision of the
pipeline; otherwise what they are multiplied with is quantized too, as it comes. Layers are quantized on the device one
by one, from the mapped files, so that a whole model is never there in its own precision. Adapters stay beside them, as
they are.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from omni_config.plan import Plan
from runtime import compat, models
from runtime.errors import CannotRunError
from runtime.features import text_encoder_parallel
from runtime.features.feature import Feature, Handle
from runtime.features.tensor_parallel import bytes_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import torch
    from torch import nn
    from torch.distributed.device_mesh import DeviceMesh

    from runtime.models.family import Family


def wanted(plan: Plan) -> bool:
    """Whether the Plan quantizes the transformer or the text encoders."""
    return plan.quantization is not None or plan.text_encoder_quantization is not None


def models_of(pipe: Any, plan: Plan) -> list[Any]:
    """The models of which the Plan quantizes blocks."""
    transformers = models.transformers(pipe) if plan.quantization else []
    return [*transformers, *(text_encoders(pipe) if plan.text_encoder_quantization else [])]


def text_encoders(pipe: Any) -> list[Any]:
    """All text encoders of a pipeline."""
    return [part for name, part in pipe.components.items() if name.startswith("text_encoder") and part is not None]


def apply(pipe: Any, plan: Plan, mesh: DeviceMesh | None) -> Handle:
    """Quantize the layers of all blocks, and move what is left of the models to their device.

    Slices of tensor ranks, which are there already, are quantized as they are.

    Raises:
        CannotRunError: torchao is missing, this device does not multiply in 8 bits, or HSDP would shard the weights.
    """
    if plan.hsdp is not None and plan.quantization is not None:
        raise CannotRunError("HSDP cannot shard quantized weights; next: set parallel.use_hsdp to false")
    before: dict[nn.Linear, Callable[[], torch.Tensor]] = {}
    if plan.quantization is not None:
        for transformer in models.transformers(pipe):
            layers = _layers(transformer, models.of(pipe))
            before |= _quantize(transformer, layers, plan.quantization, plan, sliced=plan.mesh.tensor > 1)
    measured = {"layers": len(before), "bytes": _bytes(before)}
    if plan.text_encoder_quantization is not None:
        own: dict[nn.Linear, Callable[[], torch.Tensor]] = {}
        for encoder in text_encoders(pipe):
            sliced = text_encoder_parallel.wanted(plan) and encoder is text_encoder_parallel.encoder_of(pipe)
            own |= _quantize(encoder, _layers_of_text(encoder), plan.text_encoder_quantization, plan, sliced)
        measured |= {"text_encoder_layers": len(own), "text_encoder_bytes": _bytes(own)}
        before |= own
    return _Quantized(before, measured)


def _quantize(
    model: nn.Module, layers: dict[str, nn.Linear], kind: str, plan: Plan, sliced: bool
) -> dict[nn.Linear, Callable[[], torch.Tensor]]:
    """Quantize layers of a model; what gives each its weight back."""
    import torch

    from runtime.device import device

    config, dtype = _config(kind), getattr(torch, plan.model.dtype)
    target = torch.device("cpu") if plan.offload != "none" and not sliced else device()
    before: dict[nn.Linear, Callable[[], torch.Tensor]] = {}
    for name, layer in layers.items():
        precision = compat.diffusers.precision(model, f"{name}.weight", dtype)
        quantized = _quantized(layer.weight.data.to(device(), precision), config, kind)
        before[layer] = _kept(layer.weight.data, mapped=not sliced)
        layer.weight = torch.nn.Parameter(quantized.to(target), requires_grad=False)
    if sliced:
        return before
    for name, weight in model.state_dict(keep_vars=True).items():
        if weight.is_floating_point() and not hasattr(weight, "qdata"):
            weight.data = weight.data.to(target, compat.diffusers.precision(model, name, dtype))
    model.to(target)  # buffers
    return before


def _bytes(layers: Iterable[nn.Linear]) -> int:
    return sum(bytes_of(layer.weight.data) for layer in layers)


def _layers(transformer: nn.Module, family: Family) -> dict[str, nn.Linear]:
    """The layers of the blocks, by name, without those of adapters."""
    inside = tuple(f"{name}." for name in (*family.blocks, *family.lists_of_their_own))
    return {name: layer for name, layer in _linear(transformer).items() if name.startswith(inside)}


def _layers_of_text(encoder: nn.Module) -> dict[str, nn.Linear]:
    """The layers of its blocks, by name: neither its head nor what sees images."""
    from torch import nn

    lists = [name for name, module in encoder.named_modules() if isinstance(module, nn.ModuleList)]
    inside = tuple(f"{name}." for name in lists if not any(word in name for word in ("visual", "vision")))
    return {name: layer for name, layer in _linear(encoder).items() if name.startswith(inside)}


def _linear(model: nn.Module) -> dict[str, nn.Linear]:
    from torch import nn

    return {
        name: module for name, module in model.named_modules() if isinstance(module, nn.Linear) and ".lora_" not in name
    }


def _config(kind: str) -> Any:
    """torchao's name for it. Of its own accord, torchao would change settings of inductor and of matrix products."""
    if find_spec("torchao") is None:
        raise CannotRunError("quantization needs torchao; next: pip install 'omni-config[quantization]', or remove it")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchao.quantization import (
            Float8DynamicActivationFloat8WeightConfig,
            Float8WeightOnlyConfig,
            Int8DynamicActivationInt8WeightConfig,
            Int8WeightOnlyConfig,
            PerRow,
        )
    kinds = {
        "fp8": Float8DynamicActivationFloat8WeightConfig,
        "int8": Int8DynamicActivationInt8WeightConfig,
        "fp8_weight_only": Float8WeightOnlyConfig,
        "int8_weight_only": Int8WeightOnlyConfig,
    }
    return kinds[kind](granularity=PerRow(), set_inductor_config=False)


def _quantized(weight: Any, config: Any, kind: str) -> Any:
    """A weight in 8 bits; a layer of its own has it, as torchao leaves things on layers."""
    import torch
    from torchao.quantization import quantize_

    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    layer.weight = torch.nn.Parameter(weight, requires_grad=False)
    try:
        quantize_(layer, config)
    except AssertionError as error:  # torchao's word for a device that is too old, or none of its kinds
        cause, where = str(error).partition("\n")[0].rstrip("."), weight.device.type
        next_step = "next: set execution.quantization to fp8_weight_only or int8_weight_only"
        raise CannotRunError(f"quantization {kind} cannot run on {where}: {cause}; {next_step}") from error
    return layer.weight.data


def _kept(weight: torch.Tensor, mapped: bool) -> Callable[[], torch.Tensor]:
    """What gives a weight back: mapped, it takes no memory; a slice, which was read to the device, waits on the CPU."""
    from torch.distributed.tensor import DTensor

    if mapped or not isinstance(weight, DTensor):
        kept = weight if mapped else weight.cpu()
        return lambda: kept
    local, mesh, placements = weight.to_local().cpu(), weight.device_mesh, weight.placements
    sizes: dict[str, Any] = {"shape": weight.shape, "stride": weight.stride()}
    return lambda: DTensor.from_local(local.to(mesh.device_type), mesh, placements, run_check=False, **sizes)


@dataclass(frozen=True, slots=True)
class _Quantized(Handle):
    before: dict[nn.Linear, Callable[[], torch.Tensor]]
    measured: dict[str, Any]

    def measure(self) -> dict[str, Any]:
        """The layers that are quantized, and the bytes of their weights, scales included; text encoders apart."""
        return self.measured

    def undo(self) -> None:
        """Give every layer the weight that it had, where and in the precision in which the quantized one counts."""
        import torch

        for layer, weight in self.before.items():
            whole = weight().to(layer.weight.device, layer.weight.dtype)
            layer.weight = torch.nn.Parameter(whole, requires_grad=False)


FEATURE = Feature("quantization", catalog=("quantization",), wanted=wanted, apply=apply)
