"""Which addresses a host name has: looked up again in time, the last good ones kept."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

from proxy.adapters.upstream.endpoint import Endpoint
from proxy.errors import UpstreamFailed
from proxy.ports import Clock

Address: TypeAlias = tuple[socket.AddressFamily, Any]
"""A family and what `connect` wants for it."""

Lookup: TypeAlias = Callable[..., Sequence[tuple[Any, ...]]]

TTL: Final = 30.0
_AGAIN: Final = 1.0  # seconds before a lookup is repeated out of turn
_NEVER: Final = float("inf")


class Resolver:
    """The addresses of one endpoint.

    At most one lookup runs at a time, in a thread, whoever asks.  `changed` is called when a later
    lookup gives other addresses.
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
        self._running: asyncio.Future[Any] | None = None
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
        self._running = loop.run_in_executor(None, self._look)
        self._running.add_done_callback(self._learn)

    def knows(self, address: Address) -> bool:
        """It is one of the latest."""
        return address in self._known

    def distrust(self) -> None:
        """No address answered: ask again before the next connect, but not in a storm."""
        if self._stale_at != _NEVER:
            self._stale_at = min(self._stale_at, self._asked_at + _AGAIN)

    def _look(self) -> tuple[Address, ...]:
        found = self._lookup(self._host, self._port, type=socket.SOCK_STREAM)
        return tuple(dict.fromkeys((entry[0], entry[4]) for entry in found))

    def _learn(self, done: asyncio.Future[Any]) -> None:
        self._running = None
        now = self._clock.now()
        if done.cancelled() or done.exception() is not None or not done.result():
            self._stale_at = now + _AGAIN if self._known else now
            return
        before, self._known = self._known, done.result()
        self._stale_at = now + TTL
        if before and set(before) != set(self._known):
            self._changed(frozenset(self._known))


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
