"""Which sockets are served, and by whom?  Callers' by the listener, the others by pages.

The sockets stay this process's while nobody accepts on them, so that another one may, or this one
again.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from typing import Protocol

from aiohttp import web

from proxy.adapters import sockets
from proxy.adapters.channel import Place
from proxy.adapters.listener import Listener
from proxy.adapters.sockets import LISTENER
from proxy.core.rules import Address


class Source(Protocol):
    """Who may have a socket already."""

    def claim(self, name: str, address: str) -> list[socket.socket]:
        """Sockets of that name which serve for `address` of the rules; [] if there are none."""

    def given(self, name: str) -> bool:
        """Whether a service manager gave it, whatever the rules say."""


class Doors:
    """The sockets of one process by name, and what is behind each."""

    def __init__(self, listener: Listener, source: Source | None = None) -> None:
        self._listener = listener
        self._source = source
        self._sockets: dict[str, list[socket.socket]] = {}
        self._places: list[tuple[Place, socket.socket]] = []
        self._runners: dict[str, web.BaseRunner] = {}
        self._sites: list[web.SockSite] = []
        self._pages = AsyncExitStack()

    def address(self, name: str) -> tuple[str, int] | None:
        """Where that one listens; None: nowhere."""
        found = self._sockets.get(name)
        return sockets.address(found[0]) if found else None

    def claim(self, addresses: Mapping[str, Address]) -> None:
        """Have a socket for each, and let the connections queue.  Raises `OSError`."""
        for name, address in addresses.items():
            source = self._source
            found = source.claim(name, str(address)) if source is not None else []
            if not found:
                found = sockets.bound(address.host, address.port)
            self._sockets[name] = found
            given = source is not None and source.given(name)
            self._places += [(Place(name, given, str(address)), sock) for sock in found]

    def places(self) -> list[tuple[Place, socket.socket]]:
        """All of them, for the process that follows."""
        return self._places

    async def open(self, pages: Mapping[str, web.BaseRunner]) -> None:
        """Accept from now on: `pages` by name, and callers."""
        for name, runner in pages.items():
            await runner.setup()
            self._pages.push_async_callback(runner.cleanup)
            self._runners[name] = runner
        await self._open_pages()
        await self._listener.start(sockets=self._sockets[LISTENER])

    async def shut(self) -> None:
        """Accept nothing more; whoever is connected stays."""
        for site in self._sites:
            await site.stop()
        self._sites.clear()
        await self._listener.shut()

    async def reopen(self) -> None:
        """Accept again."""
        await self._open_pages()
        await self._listener.reopen()

    def leave(self) -> None:
        """Another process accepts now: the sockets are its own."""
        for found in self._sockets.values():
            sockets.close(found)

    async def aclose(self) -> None:
        """End the pages, and let go of every socket."""
        await self._pages.aclose()
        self.leave()

    async def _open_pages(self) -> None:
        for name, runner in self._runners.items():
            for sock in self._sockets[name]:
                site = web.SockSite(runner, sock.dup())
                await site.start()
                self._sites.append(site)


def shares(places: Iterable[tuple[Place, socket.socket]], inode: int) -> bool:
    """Whether that is one of the sockets for callers."""
    return any(place.name == LISTENER and sockets.inode(sock) == inode for place, sock in places)
