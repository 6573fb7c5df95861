"""Which addresses a host name has: looked up again in time, the last good ones kept."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

from proxy.adapters.upstream.endpoint import Endpoint
from proxy.errors import UpstreamFailed
from proxy.ports import Clock

Address: TypeAlias = tuple[socket.AddressFamily, Any]
"""A family and what `connect` wants for it."""

Found: TypeAlias = tuple[Address, ...]

Lookup: TypeAlias = Callable[..., Sequence[tuple[Any, ...]]]

TTL: Final = 30.0
_AGAIN: Final = 1.0  # seconds before a lookup is repeated out of turn
_NEVER: Final = float("inf")


class Resolver:
    """The addresses of one endpoint.

    At most one lookup runs at a time, in a thread of its own, whoever asks: one that hangs may last
    longer than this process is to, and nobody waits for a daemon.  `changed` is called when a
    later lookup gives other addresses.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        clock: Clock,
        changed: Callable[[frozenset[Address]], None],
        lookup: Lookup = socket.getaddrinfo,
    ) -> None:
        self._host, self._port = endpoint.host, endpoint.port
        self._clock = clock
        self._changed = changed
        self._lookup = lookup
        self._running: asyncio.Future[Found] | None = None
        self._known = _fixed(endpoint)
        self._stale_at = _NEVER if self._known else 0.0
        self._asked_at = -_NEVER

    async def addresses(self, patience: float) -> tuple[Address, ...]:
        """The addresses, fresh if a lookup is quick enough, else the last good.

        Raises `UpstreamFailed` if there are none after `patience` seconds.
        """
        self.refresh()
        if self._running is not None:
            # With addresses to fall back on, half of the time is left for connecting.
            await asyncio.wait({self._running}, timeout=patience / 2 if self._known else patience)
        if not self._known:
            raise UpstreamFailed("connect", "the upstream's name cannot be resolved", sent=False)
        return self._known

    def refresh(self) -> None:
        """Begin a lookup if the addresses are stale and none runs."""
        now = self._clock.now()
        if self._running is not None or now < self._stale_at:
            return
        self._asked_at = now
        loop = asyncio.get_running_loop()
        self._running = loop.create_future()
        threading.Thread(target=self._look, args=(loop,), name="lookup", daemon=True).start()

    def knows(self, address: Address) -> bool:
        """It is one of the latest."""
        return address in self._known

    def distrust(self) -> None:
        """No address answered: ask again before the next connect, but not in a storm."""
        if self._stale_at != _NEVER:
            self._stale_at = min(self._stale_at, self._asked_at + _AGAIN)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """In the thread: ask, and tell the loop, if it is still there to be told."""
        try:
            entries = self._lookup(self._host, self._port, type=socket.SOCK_STREAM)
            found = tuple(dict.fromkeys((entry[0], entry[4]) for entry in entries))
        except Exception:  # Whatever a name server does to us, the last good addresses stay.
            found = ()
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(self._learn, found)

    def _learn(self, found: Found) -> None:
        assert self._running is not None
        self._running.set_result(found)
        self._running = None
        now = self._clock.now()
        if not found:
            self._stale_at = now + _AGAIN if self._known else now
            return
        before, self._known = self._known, found
        self._stale_at = now + TTL
        if before and set(before) != set(found):
            self._changed(frozenset(found))


def _fixed(endpoint: Endpoint) -> tuple[Address, ...]:
    """The address of an endpoint that needs no lookup; empty if it does."""
    if endpoint.scheme == "unix":
        return ((socket.AF_UNIX, endpoint.path),)
    try:
        version = ipaddress.ip_address(endpoint.host).version
    except ValueError:
        return ()
    if version == 4:
        return ((socket.AF_INET, (endpoint.host, endpoint.port)),)
    return ((socket.AF_INET6, (endpoint.host, endpoint.port, 0, 0)),)
