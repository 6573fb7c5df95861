"""The socket that callers connect to: open, watched, drained."""

from __future__ import annotations

import asyncio
import socket

from proxy.adapters.listener.acceptor import Acceptor, BadRequest, Handler, Options
from proxy.adapters.listener.room import Room


class Listener:
    """Serves `handler` on one address."""

    def __init__(
        self, handler: Handler, bad_request: BadRequest, *, options: Options | None = None
    ) -> None:
        self._handler = handler
        self._bad_request = bad_request
        self._options = options or Options()
        self._acceptor: Acceptor | None = None
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._address: tuple[str, int] = ("", 0)

    async def start(
        self, host: str = "127.0.0.1", port: int = 0, *, sock: socket.socket | None = None
    ) -> None:
        """Listen on `host` and `port` (0: any free one), or on a socket that exists already.

        Raises `OSError` if the address cannot be had.
        """
        loop, options = asyncio.get_running_loop(), self._options
        acceptor = self._acceptor = Acceptor(self._handler, self._bad_request, options)
        backlog = options.backlog
        if sock is None:
            self._server = await loop.create_server(
                acceptor, host, port, reuse_address=True, backlog=backlog
            )
        elif sock.family == socket.AF_UNIX:
            self._server = await loop.create_unix_server(acceptor, sock=sock, backlog=backlog)
        else:
            self._server = await loop.create_server(acceptor, sock=sock, backlog=backlog)
        name = self._server.sockets[0].getsockname()
        self._address = (name[0], name[1]) if isinstance(name, tuple) else (str(name), 0)
        self._sweep(acceptor)

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

    async def drain(self, grace: float) -> int:
        """Stop listening and let what runs finish; the number of exchanges cut after `grace` s.

        Late handlers have the same time to finish, but whoever they worked for has an answer.
        From now on every answer closes its connection.  An idle one may speak for
        `Options.drain_idle` seconds more: to cut it at once would lose a request on its way.
        """
        acceptor = self._acceptor
        if acceptor is None or self._server is None:
            return 0
        acceptor.draining = True
        await asyncio.sleep(0)  # Take in who already waits in the accept queue.
        self._server.close()
        ends = acceptor._loop.time() + grace
        if not await acceptor.emptied(min(grace, self._options.drain_idle)):
            for connection in acceptor.everybody():
                connection.close_if_idle()
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
        acceptor.room.make_room(everybody)
        self._sweeper = acceptor._loop.call_later(self._options.tick, self._sweep, acceptor)
