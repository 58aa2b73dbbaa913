"""VAE patch parallelism: ranks decode the tiles of the picture in turn, and rank 0 blends them (cache-dit)."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from omni_config.plan import Plan
from runtime import compat
from runtime.errors import CannotRunError
from runtime.features.feature import Feature, Handle

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


ENCODERS = ("tiled_encode", "_tiled_encode")  # which cache-dit replaces as well


def wanted(plan: Plan) -> bool:
    """Whether the Plan shares the decoding."""
    return len(plan.decoding_ranks) > 1


def apply(pipe: Any, plan: Plan, mesh: DeviceMesh | None) -> Handle:
    """Replace the tiled decoding of the VAE on the first ranks; the others would decode for themselves, if at all.

    Tiling is on then, and only pictures larger than a tile are shared. Where there are fewer tiles than ranks, the
    last ones decode none. An input picture is encoded by each rank, as all need it.

    Raises:
        CannotRunError: there are fewer ranks than this, or cache-dit knows no plan for this VAE.
    """
    from torch.distributed.device_mesh import DeviceMesh

    size, vae = len(plan.decoding_ranks), pipe.vae
    if mesh is None or size > plan.mesh.world_size:
        raise CannotRunError(f"vae_patch_parallel_size is {size}, and there are {plan.mesh.world_size} ranks; lower it")
    try:
        planner = compat.cache_dit.tiling_planner(vae)
    except ValueError as error:
        raise CannotRunError(f"cache-dit cannot share the decoding of {type(vae).__name__}") from error
    tiles: list[int] = []
    undo = ExitStack()
    undo.callback(compat.cache_dit.let_ranks_be_without_tiles())
    undo.callback(vae.decoder.register_forward_hook(lambda *_: tiles.append(1)).remove)
    first = DeviceMesh(mesh.device_type, list(plan.decoding_ranks))  # every rank must take part in making it
    if first.get_coordinate() is None:
        vae.enable_tiling()
    else:
        planner.parallelize_tiling(vae, first)
        for name in ENCODERS:
            vae.__dict__.pop(name, None)
        vae.tiled_decode = compat.cache_dit.keep_tile_sizes(vae, vae.tiled_decode)
    return _Tiles(vae, tiles, undo)


@dataclass(frozen=True, slots=True)
class _Tiles(Handle):
    vae: Any
    decoded: list[int]
    patches: ExitStack

    def measure(self) -> dict[str, Any]:
        """The tiles that this rank has decoded."""
        return {"tiles_decoded": len(self.decoded)}

    def undo(self) -> None:
        """Every rank decodes all tiles again."""
        self.patches.close()
        self.vae.disable_tiling()
        self.vae.__dict__.pop("tiled_decode", None)  # the replacement on the instance hid the method of the class


FEATURE = Feature("vae_patch_parallel", catalog=("vae_patch_parallel",), wanted=wanted, apply=apply)
