"""What does the service manager hear of us?  sd_notify(3): one datagram for each turn of events."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from typing import Final

SOCKET: Final = "NOTIFY_SOCKET"


class Supervisor:
    """Whoever listens at `NOTIFY_SOCKET`; nobody, where that is not set.

    That it cannot be reached is no trouble of ours: nothing is raised, nothing waits.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        place = environment.get(SOCKET, "")
        # '@' stands for the NUL byte of a name that is in no file system.
        self._place = "\0" + place[1:] if place.startswith("@") else place

    def ready(self, status: str) -> bool:
        """Calls are welcome: after the start, and when a reload has ended."""
        return self._tell(f"READY=1\nSTATUS={status}")

    def reloading(self) -> bool:
        """Rules are read anew; `ready` follows."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        return self._tell(f"RELOADING=1\nMONOTONIC_USEC={now}")

    def stopping(self, status: str) -> bool:
        """The end has begun."""
        return self._tell(f"STOPPING=1\nSTATUS={status}")

    def followed_by(self, pid: int, status: str) -> bool:
        """Another process is the service from now on, and this one ends when it likes."""
        return self._tell(f"MAINPID={pid}\nREADY=1\nSTATUS={status}")

    def _tell(self, state: str) -> bool:
        if not self._place.startswith(("/", "\0")):
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.connect(self._place)
                sock.send(state.encode())
        except (OSError, ValueError):
            return False
        return True
