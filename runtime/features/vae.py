"""VAE tiling and slicing: decode tile by tile, or one picture at a time, which bounds the peak memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omni_config.plan import Plan
from runtime.errors import CannotRunError

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


def wanted(plan: Plan) -> bool:
    """Whether the Plan tiles or slices."""
    return plan.vae.use_tiling or plan.vae.use_slicing


def apply(pipe: Any, plan: Plan, mesh: DeviceMesh | None) -> None:
    """Switch tiling and slicing on.

    Raises:
        CannotRunError: this VAE has no tiling, or no slicing.
    """
    for name, on in (("tiling", plan.vae.use_tiling), ("slicing", plan.vae.use_slicing)):
        if on:
            if not hasattr(pipe.vae, f"enable_{name}"):
                raise CannotRunError(f"{type(pipe.vae).__name__} has no {name}; leave vae_use_{name} out")
            getattr(pipe.vae, f"enable_{name}")()
    pictures: list[int] = []
    handle = pipe.vae.decoder.register_forward_hook(lambda _, __, decoded: pictures.append(len(decoded)))
    pipe.vae._omni_decoded = pictures, handle


def measure(pipe: Any) -> dict[str, Any]:
    """Which of the two is on, the calls of the decoder, and the most pictures (or tiles) that one of them decoded."""
    pictures, _ = pipe.vae._omni_decoded
    on = {name: bool(getattr(pipe.vae, f"use_{name}")) for name in ("tiling", "slicing")}
    return on | {"decoder_calls": len(pictures), "most_pictures_a_call": max(pictures, default=0)}


def undo(pipe: Any) -> None:
    """Decode whole pictures again."""
    _, handle = pipe.vae._omni_decoded
    handle.remove()
    for name in ("tiling", "slicing"):
        if getattr(pipe.vae, f"use_{name}", False):
            getattr(pipe.vae, f"disable_{name}")()
