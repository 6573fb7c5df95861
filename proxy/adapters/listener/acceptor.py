"""What all connections of a listener share: the handler, the limits, who is here."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from aiohttp.web_protocol import RequestHandler
from aiohttp.web_server import Server

from proxy.adapters.listener.connection import Connection
from proxy.adapters.listener.handshake import Handshake, Tls
from proxy.adapters.listener.room import Arriving, Entry, Room
from proxy.adapters.tasks import Tasks
from proxy.adapters.turn import Turn
from proxy.core.addresses import NOWHERE, Networks
from proxy.core.model import Reply
from proxy.ports import Incoming

Handler: TypeAlias = Callable[[Incoming], Awaitable[Reply]]
BadRequest: TypeAlias = Callable[[int], Reply]
"""Shapes and accounts for the answer to what never became a request; its body is bytes."""


@dataclass(frozen=True, slots=True)
class Options:
    """Limits of one listener; times in seconds, sizes in bytes."""

    head_timeout: float = 10.0  # from connecting, or from a later head's first byte
    idle_timeout: float = 75.0  # between two requests; above the 60 s of common balancers
    write_timeout: float = 30.0  # in which a client takes `min_rate`, or all that waits for it
    min_rate: float = 1024.0  # bytes per second
    linger: float = 2.0  # how long what arrives after a final answer is thrown away
    patience: float = 1.0  # for an answer to be taken at `pace`, while others find no room
    pace: float = 65_536.0  # bytes per second
    drain_idle: float = 1.0  # how long idle connections may still speak once drained
    max_line: int = 8190  # request line, and each header field
    max_headers: int = 128
    read_buffer: int = 256 * 1024  # of a body, before the client is made to wait
    connections: int = 10_000
    per_address: int | None = None  # of those
    trusted: Networks = NOWHERE  # proxies, whose clients are many: `per_address` spares them
    arriving: int | None = None  # bytes of bodies that are not whole yet; see `room.Arriving`
    backlog: int = 4096
    tick: float = 0.25  # how exactly the times above are kept


class Acceptor(Server):
    """Makes a `Connection` for each accepted socket and knows them all."""

    def __init__(
        self,
        handler: Handler,
        bad_request: BadRequest,
        options: Options,
        *,
        tls: Tls | None = None,
    ) -> None:
        super().__init__(cast(Any, handler))
        self.handler = handler
        self.options = options
        self.tls = tls
        self.shaking: set[Handshake] = set()
        self.turn = Turn()
        self.inflight = 0  # exchanges between their head and the end of their answer
        self.room = Room(options.connections, clients=self._waited_for)
        self.arriving = Arriving()
        self.use(options)
        self.draining = False
        self.closed = False  # drained: whoever still comes through is turned away
        self.late: set[asyncio.Task[None]] = set()  # in handlers of requests answered early
        self._bad_request = bad_request
        self._context = copy_context()
        self._tasks = Tasks(self.report)
        self._emptied: asyncio.Future[None] | None = None
        self._hurried = False

    def __call__(self) -> Connection | Handshake:  # type: ignore[override]
        context = self.tls.of_callers if self.tls is not None else None
        return Connection(self, self._loop) if context is None else Handshake(self, context)

    @property
    def open(self) -> int:
        """Connections whose client is still there."""
        return self.room.open

    def use(self, options: Options) -> None:
        """Other limits from now on; line lengths and buffers only for connections yet to come."""
        self.options = options
        self.arriving.most = options.arriving
        self.room.resize(
            options.connections, per_address=options.per_address, trusted=options.trusted
        )

    def everybody(self) -> list[Connection]:
        """Each connection, those included whose client left while the handler works on."""
        return cast("list[Connection]", list(self._connections))

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        """A client came."""
        super().connection_made(handler, transport)
        connection = cast(Connection, handler)
        entry = self.room.enter(connection.peer)
        connection.turned_away = entry is Entry.TURNED_AWAY
        if self.closed or entry is Entry.CUT:
            transport.abort()

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        """A client left; its connection stays known until its exchange has ended."""
        connection = cast(Connection, handler)
        self.room.leave(connection.peer, connection)
        task = handler._task_handler
        if task is None or task.done():
            self._forget(handler)
        else:
            task.add_done_callback(lambda _: self._forget(handler))

    def hand_on(
        self, late: asyncio.Task[None], work: Coroutine[Any, Any, None]
    ) -> asyncio.Task[None]:
        """Start the task that goes on with a connection whose own, `late`, goes on in a handler.

        What asks for it may be a timer that another connection's handler has set: its context
        variables are none of this one's.
        """
        self.late.add(late)
        late.add_done_callback(self._late_ended)
        return self._context.run(self._tasks.start, work, "connection")

    def shake(self, handshake: Handshake, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a handshake, and know it until it ends."""
        self.shaking.add(handshake)
        task = self._tasks.start(work, "handshake")
        task.add_done_callback(lambda _: self._shaken(handshake))
        return task

    async def emptied(self, timeout: float) -> bool:
        """Whether the last connection and the last late handler are gone within `timeout` s."""
        if not self._empty() and not self._hurried:
            self._emptied = self._loop.create_future()
            await asyncio.wait([self._emptied], timeout=max(timeout, 0.0))
        return self._empty()

    def hurry(self) -> None:
        """Let nobody wait for the last to end any longer."""
        self._hurried = True
        if self._emptied is not None and not self._emptied.done():
            self._emptied.set_result(None)

    def fault(self, status: int) -> Reply:
        """The answer to something that has no handler's answer; never raises."""
        try:
            return self._bad_request(status)
        except Exception as error:
            self.report("the bad request hook failed", error)
            return Reply(status)

    def report(self, what: str, error: BaseException) -> None:
        """Tell the loop's exception handler, which whoever runs the loop has set."""
        self._loop.call_exception_handler({"message": f"listener: {what}", "exception": error})

    def _waited_for(self) -> list[Connection | Handshake]:
        return [*self.everybody(), *self.shaking]

    def _empty(self) -> bool:
        return not self._connections and not self.late and not self.shaking

    def _shaken(self, handshake: Handshake) -> None:
        self.shaking.discard(handshake)
        handshake.settle()
        self._tell_emptied()

    def _forget(self, handler: RequestHandler) -> None:
        self._connections.pop(handler, None)
        self._tell_emptied()

    def _late_ended(self, task: asyncio.Task[None]) -> None:
        self.late.discard(task)
        self._tell_emptied()

    def _tell_emptied(self) -> None:
        emptied = self._emptied
        if emptied is not None and not emptied.done() and self._empty():
            emptied.set_result(None)
