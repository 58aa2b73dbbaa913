"""One of the machines of a run, and its way to the first one."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Machine:
    """One of the machines of a run, in torchrun's words."""

    nnodes: int
    node_rank: int
    host: str
    """Of node 0; torch's TCP store and the launchers' datagrams meet at ``host:port``."""
    port: int

    def ranks(self, world_size: int) -> range:
        """The ranks that this machine holds: each has an equal share, in order."""
        share = world_size // self.nnodes
        return range(self.node_rank * share, (self.node_rank + 1) * share)

    def open(self) -> tuple[socket.socket, Any]:
        """A UDP socket that waits for nothing, and the place of node 0 for it.

        Raises:
            OSError: the name of node 0 does not resolve.
        """
        family, kind, _, _, place = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_DGRAM)[0]
        result = socket.socket(family, kind)
        result.setblocking(False)
        return result, place

    def address(self) -> str:
        """This machine's own address towards node 0.

        Raises:
            OSError: the name of node 0 does not resolve, or there is no way to it.
        """
        probe, place = self.open()
        with probe:
            probe.connect(place)  # sends nothing; it only asks for the way
            return str(probe.getsockname()[0])


def interface_to(address: str) -> str | None:
    """The name of the network interface with one of this machine's addresses."""
    import psutil

    for name, found in psutil.net_if_addrs().items():
        if any(one.address.partition("%")[0] == address for one in found):
            return str(name)
    return None
