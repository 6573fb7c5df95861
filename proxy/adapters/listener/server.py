"""The socket that callers connect to: open, watched, drained."""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Sequence
from typing import Final

from proxy.adapters.listener.acceptor import Acceptor, BadRequest, Handler, Options
from proxy.adapters.listener.handshake import Tls
from proxy.adapters.listener.room import Room
from proxy.adapters.sockets import address, bound, close

TURNS = 1000
"""Of the loop at most, in which a drain takes in who waits to be accepted."""

CLOSING: Final = 1.0
"""Seconds of a drain's grace in which idle connections close; of a short one half."""


class Listener:
    """Serves `handler` on one address; what `tls` says is asked for each client anew."""

    def __init__(
        self,
        handler: Handler,
        bad_request: BadRequest,
        *,
        options: Options | None = None,
        tls: Tls | None = None,
    ) -> None:
        self._handler = handler
        self._bad_request = bad_request
        self._options = options or Options()
        self._tls = tls
        self._acceptor: Acceptor | None = None
        self._sockets: list[socket.socket] = []
        self._servers: list[asyncio.Server] = []
        self._sweeper: asyncio.TimerHandle | None = None
        self._address: tuple[str, int] = ("", 0)

    async def start(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        sock: socket.socket | None = None,
        sockets: Sequence[socket.socket] = (),
    ) -> None:
        """Listen on `host` and `port` (0: any free one), or on sockets that exist already.

        Raises `OSError` if the address cannot be had.
        """
        options = self._options
        found = [sock] if sock is not None else list(sockets)
        self._sockets = found or bound(host, port, backlog=options.backlog)
        acceptor = self._acceptor = Acceptor(
            self._handler, self._bad_request, options, tls=self._tls
        )
        await self._accept(acceptor)
        self._address = address(self._sockets[0])
        self._sweep(acceptor)

    async def shut(self) -> None:
        """Accept nobody more; who waits at the sockets is left to whoever accepts there."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        await asyncio.sleep(0)  # Take in who has been accepted already.

    async def reopen(self) -> None:
        """Accept again."""
        if self._acceptor is not None:
            await self._accept(self._acceptor)

    async def _take_in(self) -> None:
        """Accept who already waits: closing the last copy of a socket would reset them."""
        poll = select.poll()
        for sock in self._sockets:
            if sock.fileno() >= 0:
                poll.register(sock, select.POLLIN)
        for _ in range(TURNS):
            await asyncio.sleep(0)
            if not self._servers or not poll.poll(0):
                return

    async def _accept(self, acceptor: Acceptor) -> None:
        """A server closes its socket at its end: it has a copy."""
        loop, backlog = acceptor._loop, self._options.backlog
        for sock in self._sockets:
            own = sock.dup()
            if sock.family == socket.AF_UNIX:
                server = await loop.create_unix_server(acceptor, sock=own, backlog=backlog)
            else:
                server = await loop.create_server(acceptor, sock=own, backlog=backlog)
            self._servers.append(server)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port listened on; the path and 0 for a unix socket."""
        return self._address

    def use(self, options: Options) -> None:
        """Put other limits into force; `tick` and `backlog` stay as they were at start."""
        self._options = options
        if self._acceptor is not None:
            self._acceptor.use(options)

    @property
    def room(self) -> Room | None:
        """Who is connected, and who was turned away; None before the start."""
        return self._acceptor.room if self._acceptor else None

    @property
    def arriving(self) -> int:
        """Requests whose body is still on its way in."""
        return self._acceptor.arriving.bodies if self._acceptor else 0

    @property
    def open_connections(self) -> int:
        """Clients connected now."""
        return self._acceptor.open if self._acceptor else 0

    @property
    def inflight(self) -> int:
        """Requests whose answer has not been written yet."""
        return self._acceptor.inflight if self._acceptor else 0

    @property
    def late(self) -> int:
        """Handlers that go on although their request has been answered."""
        return len(self._acceptor.late) if self._acceptor else 0

    async def drain(self, grace: float, *, idle: float | None = None) -> int:
        """Stop listening and let what runs finish; the number of exchanges cut after `grace` s.

        Late handlers have the same time to finish, but whoever they worked for has an answer.
        From now on every answer closes its connection.  An idle one may speak for `idle` seconds
        more (by default `Options.drain_idle`), but for those in which it closes: to cut it at once
        would lose a request on its way.
        """
        acceptor = self._acceptor
        if acceptor is None:
            return 0
        acceptor.draining = True
        await self._take_in()
        await self.shut()
        close(self._sockets)
        self._sockets.clear()
        ends = acceptor._loop.time() + grace
        idle = self._options.drain_idle if idle is None else idle
        if not await acceptor.emptied(min(idle, max(grace - CLOSING, grace / 2))):
            for connection in acceptor.everybody():
                connection.close_if_idle()
            for handshake in acceptor.shaking:
                handshake.cut()
            await acceptor.emptied(ends - acceptor._loop.time())
        cut = acceptor.inflight
        await self._cut(acceptor)
        return cut

    def hurry(self) -> None:
        """End a running drain's patience: what still runs is cut."""
        if self._acceptor is not None:
            self._acceptor.hurry()

    async def _cut(self, acceptor: Acceptor) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
        acceptor.closed = True
        tasks = [connection.cut() for connection in acceptor.everybody()]
        tasks += [handshake.cut() for handshake in acceptor.shaking]
        cut = [*acceptor.late, *(task for task in tasks if task)]
        for task in acceptor.late:
            task.cancel()
        await asyncio.gather(*cut, return_exceptions=True)
        await acceptor.emptied(1.0)  # The transports' own last words.

    def _sweep(self, acceptor: Acceptor) -> None:
        """Every deadline of every connection; one timer instead of one per request."""
        now, everybody = acceptor._loop.time(), acceptor.everybody()
        for connection in everybody:
            if connection.due <= now:
                connection.expire()
        acceptor.room.look_again()
        self._sweeper = acceptor._loop.call_later(self._options.tick, self._sweep, acceptor)
