"""The device mesh of the workers, from the Plan."""

from __future__ import annotations

from datetime import timedelta

import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from omni_config.mesh import NAMES
from omni_config.plan import Plan
from runtime.device import device


def build(plan: Plan, rank: int, timeout: float) -> DeviceMesh | None:
    """The mesh with the axes cfg, ring, ulysses, tensor and the process groups of each; None for a single rank.

    ``timeout`` (seconds) bounds each collective, so that a rank whose peer is stuck ends by itself.

    Raises:
        RuntimeError: torch orders the ranks in another way than the Plan.
    """
    if plan.mesh.world_size == 1:
        return None
    on = device().type
    dist.init_process_group("nccl" if on == "cuda" else "gloo", timeout=timedelta(seconds=timeout))
    mesh = init_device_mesh(on, tuple(plan.mesh.sizes.values()), mesh_dim_names=NAMES)
    expected = tuple(plan.mesh.coordinates(rank).values())
    if tuple(mesh.get_coordinate() or ()) != expected:
        raise RuntimeError(f"rank {rank} is at {mesh.get_coordinate()} of the mesh, and at {expected} in the Plan")
    return mesh
