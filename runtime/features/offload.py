"""Offload: weights wait on the CPU, a whole model at a time (accelerate) or a block at a time (diffusers).

The VAE stays on the device in both kinds, as it is needed once, at the moment of the highest memory.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from omni_config.plan import Plan
from runtime import compat
from runtime.errors import CannotRunError
from runtime.features.feature import Feature, Handle
from runtime.models import transformers

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


def wanted(plan: Plan) -> bool:
    """Whether weights wait on the CPU."""
    return plan.offload != "none"


def apply(pipe: Any, plan: Plan, mesh: DeviceMesh | None) -> Handle:
    """Hook the models, or the blocks of the transformer, to be moved before and after their turn.

    Raises:
        CannotRunError: an unknown kind of offload, or no order in which the models of this pipeline are used.
    """
    from runtime.device import device

    residents, undo = _Residents(), ExitStack()
    if plan.offload == "model":
        if pipe.model_cpu_offload_seq is None:
            raise CannotRunError(f"{type(pipe).__name__} does not say in which order its models are used")
        undo.callback(compat.diffusers.leave_out_of_offload(pipe, "vae"))
        pipe.enable_model_cpu_offload(device=device())
        residents.models = pipe.model_cpu_offload_seq.split("->")
    elif plan.offload == "layerwise":
        for module in pipe.components.values():
            if module not in transformers(pipe) and hasattr(module, "to") and hasattr(module, "parameters"):
                module.to(device())
        for transformer in transformers(pipe):
            transformer.enable_group_offload(onload_device=device(), num_blocks_per_group=1)
            for module in transformer.modules():
                hook = compat.diffusers.hook_of(module, "group_offloading")
                if hook and module is not transformer:  # the transformer's own group is what is in no block
                    residents.watch(hook.group)
    else:
        raise CannotRunError(f"offload is {plan.offload!r}; it can be none, model or layerwise")
    return _Offload(pipe, residents, undo)


@dataclass(frozen=True, slots=True)
class _Offload(Handle):
    pipe: Any
    residents: _Residents
    patches: ExitStack

    def measure(self) -> dict[str, Any]:
        """The models that are moved as a whole; how many blocks were fetched, and the most that were here at once."""
        here = self.residents
        return {"models": here.models, "blocks_fetched": here.fetched, "most_blocks_resident": here.most}

    def undo(self) -> None:
        """Keep every model on the device."""
        from diffusers.hooks.hooks import HookRegistry

        from runtime.device import device

        self.patches.close()
        self.pipe.remove_all_hooks()
        for transformer in transformers(self.pipe):
            HookRegistry.check_if_exists_or_initialize(transformer).remove_hook("group_offloading", recurse=True)
        self.pipe.to(device())


class _Residents:
    """Counts the blocks on the device, by the calls that bring them there and back."""

    def __init__(self) -> None:
        self.models: list[str] = []
        self.here: set[int] = set()
        self.fetched = 0
        self.most = 0

    def watch(self, group: Any) -> None:
        """Count when diffusers moves a group of modules."""
        onload, offload = group.onload_, group.offload_

        def fetch() -> None:
            self.fetched += id(group) not in self.here
            self.here.add(id(group))
            self.most = max(self.most, len(self.here))
            onload()

        def leave() -> None:
            self.here.discard(id(group))
            offload()

        group.onload_, group.offload_ = fetch, leave


FEATURE = Feature("offload", catalog=("model_offload", "layerwise_offload"), wanted=wanted, apply=apply)
