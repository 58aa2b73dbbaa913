"""VAE tiling and slicing: decode tile by tile, or one image at a time, which bounds the peak memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from omni_config.plan import Plan
from runtime.errors import CannotRunError
from runtime.features.feature import Feature, Handle

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


def wanted(plan: Plan) -> bool:
    """Whether the Plan tiles or slices."""
    return plan.vae.use_tiling or plan.vae.use_slicing


def apply(pipe: Any, plan: Plan, mesh: DeviceMesh | None) -> Handle:
    """Switch tiling and slicing on.

    Raises:
        CannotRunError: this VAE has no tiling, or no slicing.
    """
    for name, on in (("tiling", plan.vae.use_tiling), ("slicing", plan.vae.use_slicing)):
        if on:
            if not hasattr(pipe.vae, f"enable_{name}"):
                raise CannotRunError(f"{type(pipe.vae).__name__} has no {name}; leave vae_use_{name} out")
            getattr(pipe.vae, f"enable_{name}")()
    images: list[int] = []
    hook = pipe.vae.decoder.register_forward_hook(
        lambda _, __, decoded: images.append(len(decoded[0] if isinstance(decoded, tuple) else decoded))
    )
    return _Decoder(pipe.vae, images, hook)


@dataclass(frozen=True, slots=True)
class _Decoder(Handle):
    vae: Any
    images: list[int]  # of each call of the decoder
    hook: Any

    def measure(self) -> dict[str, Any]:
        """Which of the two is on, the calls of the decoder, and the most images (or tiles) that one of them decoded."""
        on = {name: bool(getattr(self.vae, f"use_{name}")) for name in ("tiling", "slicing")}
        return on | {"decoder_calls": len(self.images), "most_pictures_a_call": max(self.images, default=0)}

    def undo(self) -> None:
        """Decode whole images again."""
        self.hook.remove()
        for name in ("tiling", "slicing"):
            if getattr(self.vae, f"use_{name}", False):
                getattr(self.vae, f"disable_{name}")()


FEATURE = Feature("vae", catalog=("vae_tiling", "vae_slicing"), wanted=wanted, apply=apply)
