"""VAE patch parallelism: ranks decode the tiles of the picture in turn, and rank 0 blends them (cache-dit)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omni_config.plan import Plan
from runtime import compat
from runtime.errors import CannotRunError

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


ENCODERS = ("tiled_encode", "_tiled_encode")  # which cache-dit replaces as well


def wanted(plan: Plan) -> bool:
    """Whether the Plan shares the decoding."""
    return len(plan.decoding_ranks) > 1


def apply(pipe: Any, plan: Plan, mesh: DeviceMesh | None) -> None:
    """Replace the tiled decoding of the VAE on the first ranks; the others would decode for themselves, if at all.

    Tiling is on then, and only pictures larger than a tile are shared. Where there are fewer tiles than ranks, the
    last ones decode none. An input picture is encoded by each rank, as all need it.

    Raises:
        CannotRunError: there are fewer ranks than this, or cache-dit knows no plan for this VAE.
    """
    from cache_dit.distributed.autoencoders.dispatch import _ensure_auto_encoder_dp_planners_activated
    from cache_dit.distributed.autoencoders.register import AutoEncoderDataParallelismPlannerRegister
    from torch.distributed.device_mesh import DeviceMesh

    size, vae = len(plan.decoding_ranks), pipe.vae
    if mesh is None or size > plan.mesh.world_size:
        raise CannotRunError(f"vae_patch_parallel_size is {size}, and there are {plan.mesh.world_size} ranks; lower it")
    _ensure_auto_encoder_dp_planners_activated()
    compat.let_ranks_be_without_tiles()
    try:
        planner = AutoEncoderDataParallelismPlannerRegister.get_planner(vae)()
    except ValueError as error:
        raise CannotRunError(f"cache-dit cannot share the decoding of {type(vae).__name__}") from error
    tiles: list[int] = []
    handle = vae.decoder.register_forward_hook(lambda *_: tiles.append(1))
    vae._omni_tiles = tiles, handle
    first = DeviceMesh(mesh.device_type, list(plan.decoding_ranks))  # every rank must take part in making it
    if first.get_coordinate() is None:
        vae.enable_tiling()
    else:
        planner.parallelize_tiling(vae, first)
        for name in ENCODERS:
            vae.__dict__.pop(name, None)
        vae.tiled_decode = compat.keep_tile_sizes(vae, vae.tiled_decode)


def measure(pipe: Any) -> dict[str, Any]:
    """The tiles that this rank has decoded."""
    tiles, _ = pipe.vae._omni_tiles
    return {"tiles_decoded": len(tiles)}


def undo(pipe: Any) -> None:
    """Every rank decodes all tiles again."""
    _, handle = pipe.vae._omni_tiles
    handle.remove()
    pipe.vae.disable_tiling()
    pipe.vae.__dict__.pop("tiled_decode", None)  # the replacement on the instance hid the method of the class
