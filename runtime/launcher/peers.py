"""What the launchers of a run tell each other, as a network that is cut off tells nobody.

Launchers send UDP datagrams to the port of the rendezvous, where that of node 0 answers with all that it knows. A
datagram is a table of the states of all nodes; of two states of a node, the one with more beats is the newer.
"""

from __future__ import annotations

import json
import secrets
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from errno import EADDRINUSE
from hashlib import sha256
from typing import Any

from omni_config.plan import Plan
from runtime.launcher.failures import LaunchError
from runtime.launcher.machine import Machine
from runtime.report import versions

_PERIOD = 0.5  # seconds between two datagrams
_SILENCE = 8.0  # seconds after which a node that was heard is lost
_MAXIMUM = 60_000  # bytes of a datagram
_OTHER = "runs another plan or other versions; next: give every node the same config and environment"


class Peers:
    """The other launchers of a run, as heard by this one; without a Machine there are none."""

    def __init__(self, machine: Machine | None, identity: str) -> None:
        """``identity`` must be the same on each node: it stands for what is run.

        Raises:
            LaunchError: the port is taken.
        """
        self.machine = machine
        self._identity = identity
        self._mine: dict[str, Any] = {"beat": 0, "state": "running", "text": "", "peak_memory": []}
        self._states: dict[int, dict[str, Any]] = {}
        self._heard: dict[int, float] = {}
        self._strangers: dict[int, str] = {}  # nodes that must not be here, and why
        self._peers: dict[int, Any] = {}
        self._next = 0.0
        self._socket: socket.socket | None = None
        self._session: str | None = None  # of node 0, which the others learn from it
        if machine is not None and machine.node_rank == 0:
            self._session = secrets.token_hex(4)
            self._socket = _listen(machine)

    def meet(self, timeout: float) -> None:
        """Return when every launcher has been heard.

        Raises:
            LaunchError: one has not come within ``timeout`` seconds, has failed, or runs something else.
        """
        if self.machine is None:
            return
        wanted = range(1, self.machine.nnodes) if self.machine.node_rank == 0 else range(1)
        end = time.monotonic() + timeout
        while missing := [node for node in wanted if node not in self._states]:
            self.listen()
            if time.monotonic() > end:
                names = " and ".join(str(node) for node in missing)
                place = f"{self.machine.host}:{self.machine.port}"
                raise _lost(
                    f"node {names} did not come to {place} within {timeout:g} s; next: start omni launch there with "
                    f"the same --rdzv-endpoint, and let TCP and UDP through to that port"
                )
            time.sleep(0.05)

    def listen(self) -> None:
        """Say how this node is, where it is time, and take in what the others say.

        Raises:
            LaunchError: another node has failed, runs something else, or is silent.
        """
        if self.machine is None:
            return
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _PERIOD
            self._send()
        self._receive(now)
        for number, why in self._strangers.items():
            raise _lost(f"node {number} {why}")
        for _, state in sorted(self._states.items()):
            if state["state"] == "failed":
                raise _lost(str(state["text"]))
        for number, heard in sorted(self._heard.items()):  # node 0 first: of the others, it is the only news
            if self._states[number]["state"] == "running" and now > heard + _SILENCE:
                raise _lost(f"node {number} has not been heard for {_SILENCE:g} s: it or its network is down")

    def done(self, peak_memory: Sequence[float]) -> bool:
        """Say that the ranks here are done, with their peak memory; whether those of all nodes are."""
        if self.machine is None:
            return True
        if self._mine["state"] == "running":
            self._mine |= {"state": "done", "peak_memory": list(peak_memory)}
            self._next = 0.0
        return len(self._states) == self.machine.nnodes - 1 and all(
            state["state"] == "done" for state in self._states.values()
        )

    def wait_for_cause(self) -> None:
        """Give the other nodes time to say what happened, where this one only saw that something did.

        Raises:
            LaunchError: another node has said it, or is silent.
        """
        end = time.monotonic() + (_SILENCE + 1 if self.machine is not None else 0)
        while time.monotonic() < end:
            self.listen()
            time.sleep(0.05)

    def peak_memory(self) -> list[float]:
        """Of the ranks of all other nodes, in order."""
        return [float(value) for _, state in sorted(self._states.items()) for value in state["peak_memory"]]

    def close(self, failure: str | None = None) -> None:
        """Tell the others how it ended; three times, as a datagram may be lost."""
        if self.machine is None:
            return
        if failure is not None:
            of = f"node {self.machine.node_rank}: "
            self._mine |= {"state": "failed", "text": failure if failure.startswith("node ") else of + failure}
        for _ in range(3):
            self._send()
            time.sleep(0.02)
        if self._socket is not None:
            self._socket.close()

    def _send(self) -> None:
        assert self.machine is not None
        self._mine["beat"] += 1
        table = {**self._states, self.machine.node_rank: self._mine}
        message = {
            "identity": self._identity,
            "session": self._session,
            "from": self.machine.node_rank,
            "states": table,
        }
        data = json.dumps(message).encode()
        with suppress(OSError):  # no way to it, or no such name yet: that is silence
            if self._socket is None:
                self._socket, self._peers[0] = self.machine.open()
            for place in self._peers.values():
                with suppress(OSError):
                    self._socket.sendto(data, place)

    def _receive(self, now: float) -> None:
        assert self.machine is not None
        while self._socket is not None:
            try:
                data, place = self._socket.recvfrom(_MAXIMUM)
            except BlockingIOError:
                return
            except OSError:  # an earlier datagram met nobody
                continue
            with suppress(ValueError, KeyError, TypeError, AttributeError):  # not of ours
                message = json.loads(data)
                sender = int(message["from"])
                self._peers[sender] = place
                if message["identity"] != self._identity:
                    self._strangers[sender] = _OTHER
                    continue
                if message["session"] != self._session and self.machine.node_rank == 0:
                    if message["session"] is not None:
                        continue  # left over from an earlier run; it is told by our answer
                elif message["session"] != (self._session or message["session"]):
                    self._strangers[sender] = "has started again"
                self._session = self._session or message["session"]
                for number, state in ((int(number), state) for number, state in message["states"].items()):
                    known = self._states.get(number, {"beat": 0})
                    if number != self.machine.node_rank and state["beat"] > known["beat"]:
                        self._states[number], self._heard[number] = state, now


@contextmanager
def peers_of(machine: Machine | None, plan: Plan) -> Iterator[Peers]:
    """The other launchers of a Plan's run; they are told how it ended here."""
    identity = json.dumps([plan.to_dict(), versions()], sort_keys=True)
    result = Peers(machine, sha256(identity.encode()).hexdigest()[:16])
    failure: str | None = "it was ended"
    try:
        yield result
        failure = None
    except LaunchError as error:
        failure = str(error)
        raise
    finally:
        result.close(failure)


#: What a run on one machine hears.
ALONE = Peers(None, "")


def _lost(cause: str) -> LaunchError:
    return LaunchError(cause, None, cause, None)


def _listen(machine: Machine) -> socket.socket:
    try:
        result, _ = machine.open()
    except OSError as error:
        raise _lost(f"{machine.host} does not resolve here: {error.strerror}; next: correct --rdzv-endpoint") from error
    try:
        socket.create_server(("", machine.port)).close()  # whether torch's store, which comes later, will find it free
        result.bind(("", machine.port))
    except OSError as error:
        why = "is taken on this machine" if error.errno == EADDRINUSE else f"cannot be used: {error.strerror}"
        raise _lost(f"port {machine.port} {why}; next: choose another one in --rdzv-endpoint, on every node") from error
    return result
