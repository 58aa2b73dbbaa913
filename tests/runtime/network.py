"""Two machines in one: a network namespace each, and a cable between them."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Sequence
from types import TracebackType


class Machines:
    """Two network namespaces with the addresses 10.77.0.1 and 10.77.0.2; OSError where this system allows none."""

    addresses = ("10.77.0.1", "10.77.0.2")

    def __init__(self) -> None:
        if not all(shutil.which(program) for program in ("unshare", "nsenter", "ip")):
            raise OSError("unshare, nsenter or ip is not installed")
        self._holders: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Machines:
        try:
            self._hold(["unshare", "--user", "--map-root-user", "--net"])
            self._hold([*self.on(0), "unshare", "--net"])
            peer = str(self._holders[1].pid)
            self._ip(0, "link", "add", "cable0", "type", "veth", "peer", "name", "cable1", "netns", peer)
            for machine, address in enumerate(self.addresses):
                self._ip(machine, "address", "add", f"{address}/24", "dev", f"cable{machine}")
                self._ip(machine, "link", "set", f"cable{machine}", "up")
                self._ip(machine, "link", "set", "lo", "up")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for holder in self._holders:
            holder.kill()
            holder.wait()

    def on(self, machine: int) -> list[str]:
        """What a command line begins with that runs on a machine."""
        place = ["--net", f"--target={self._holders[machine].pid}"] if machine < len(self._holders) else []
        return ["nsenter", "--user", "--preserve-credentials", *place]

    def cut(self, machine: int) -> None:
        """Pull the cable out of a machine: nothing is reset, nothing arrives."""
        self._ip(machine, "link", "set", f"cable{machine}", "down")

    def _hold(self, line: Sequence[str]) -> None:
        holder = subprocess.Popen([*line, "sh", "-c", "echo up; exec sleep 600"], stdout=subprocess.PIPE)
        self._holders.append(holder)
        assert holder.stdout is not None
        if not holder.stdout.readline():
            raise OSError("this system lets nobody have a network namespace of their own")
        time.sleep(0.05)

    def _ip(self, machine: int, *arguments: str) -> None:
        done = subprocess.run([*self.on(machine), "ip", *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            raise OSError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
