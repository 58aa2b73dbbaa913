"""The flags that say which machine of a run this is, in torchrun's words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from omni_config.plan import Plan

if TYPE_CHECKING:
    from runtime import Machine

Nnodes = Annotated[int | None, typer.Option("--nnodes", min=1, help="Machines; as many as the plan says.")]
NodeRank = Annotated[int | None, typer.Option("--node-rank", min=0, help="Which of them this is, from 0.")]
Endpoint = Annotated[
    str | None, typer.Option("--rdzv-endpoint", help="HOST:PORT of node 0, where all meet, by TCP and by UDP.")
]


def machine_of(plan: Plan, nnodes: int | None, node_rank: int | None, endpoint: str | None) -> Machine | None:
    """This machine among those of the plan; None where the plan is for one.

    Raises:
        typer.BadParameter: the flags do not fit the plan.
    """
    nodes = plan.mesh.nodes
    if nnodes not in (None, nodes) or (nodes == 1 and (node_rank or endpoint)):
        raise typer.BadParameter(
            f"the plan has {plan.mesh.world_size} ranks on {nodes} node{'s' * (nodes > 1)}; "
            f"for {nnodes or 'several'}, set hardware.gpus_per_node"
        )
    if nodes == 1:
        return None
    if node_rank is None or endpoint is None:
        raise typer.BadParameter(f"the plan is for {nodes} nodes: give --node-rank and --rdzv-endpoint on each of them")
    if node_rank >= nodes:
        raise typer.BadParameter(f"--node-rank {node_rank}: the plan is for {nodes} nodes, 0 to {nodes - 1}")
    host, _, port = endpoint.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise typer.BadParameter(f"--rdzv-endpoint {endpoint}: expected HOST:PORT, such as 10.0.0.1:29500")
    from runtime import Machine

    return Machine(nodes, node_rank, host.strip("[]"), int(port))
