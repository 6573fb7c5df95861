"""The upstream leg: requests over kept connections, with an exact answer to "was it sent?"."""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import Iterable

from proxy.adapters.turn import Turn
from proxy.adapters.upstream.body import StreamedBody
from proxy.adapters.upstream.connection import Connection, Late, Unsent
from proxy.adapters.upstream.dial import Dialer, Tls
from proxy.adapters.upstream.endpoint import Endpoint
from proxy.adapters.upstream.resolver import Address, Lookup, Resolver
from proxy.adapters.upstream.sweep import Sweep
from proxy.adapters.upstream.waiting import Waiting
from proxy.adapters.upstream.wire import fixed_lines, request_head
from proxy.core.model import Headers, Outbound, Reply
from proxy.errors import UpstreamFailed
from proxy.ports import Clock


class HttpUpstream:
    """A pool of HTTP/1.1 connections to one endpoint (`proxy.ports.Upstream`).

    The last used connection is used first, so that idle ones grow old and close.  While every
    connection is in use, exchanges wait in line; then none is idle, and none comes free but for
    the first in line.  The fields `always` stand in every request, probes included.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        clock: Clock,
        sweep: Sweep,
        lookup: Lookup = socket.getaddrinfo,
        always: Iterable[tuple[bytes, bytes]] = (),
        tls: Tls | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.opened_total = 0
        self._clock = clock
        self._sweep = sweep
        self._fixed = fixed_lines(endpoint.authority, always)
        self._resolver = Resolver(endpoint, clock=clock, changed=self._retire, lookup=lookup)
        self._dialer = Dialer(endpoint, self._resolver, tls)
        self._renewals = 0
        self._idle: list[Connection] = []  # the oldest first
        self._busy: set[Connection] = set()
        self._ending: set[Connection] = set()  # dropped, transport not gone yet
        self._waiting: Waiting[Connection | None] = Waiting(endpoint.queue)
        self._turn = Turn()
        self._opening = 0
        self._watched = False
        self._draining = False
        self._closed = False
        self._empty: asyncio.Future[None] | None = None

    @property
    def busy(self) -> int:
        """Connections with an exchange under way, being opened or lingering."""
        return len(self._busy) + self._opening

    @property
    def idle(self) -> int:
        """Connections that wait for an exchange."""
        return len(self._idle)

    @property
    def waiting(self) -> int:
        """Exchanges that wait for a connection."""
        return len(self._waiting.line)

    @property
    def full_total(self) -> int:
        """Exchanges that got no connection because all were in use."""
        return self._waiting.turned_away

    async def send(
        self,
        outbound: Outbound,
        extra: Headers,
        *,
        deadline: float,
        linger: float = 0.0,
        buffer: int | None = None,
        late: Late | None = None,
    ) -> Reply:
        """One exchange (`proxy.ports.Upstream.send`).

        Answers up to `buffer` bytes (the endpoint's by default) come whole; 0 streams at once.
        """
        head = request_head(outbound, extra, self._fixed)
        again = False
        while True:
            connection = self._take(deadline) or await self._open(deadline, again=again)
            waiter = connection.start(
                head,
                outbound.body,
                bodiless=outbound.method == "HEAD",
                limit=self.endpoint.buffer if buffer is None else buffer,
                deadline=deadline,
                linger=linger,
                late=late,
            )
            try:
                return await waiter
            except Unsent:
                if not connection.expires:  # It was new: it would be tried for ever.
                    raise UpstreamFailed("connect", "closed at once", sent=False) from None
                again = True
            except asyncio.CancelledError:
                connection.leave(waiter)
                _answered_nobody(waiter)
                raise
            finally:
                del waiter  # A failure refers to this frame: no cycle through its future.

    async def connect(self, *, deadline: float) -> None:
        """Open (or reuse) one connection and send nothing."""
        connection = self._take(deadline) or await self._open(deadline)
        while connection.expires and not connection.quiet():
            connection.drop()
            connection = self._take(deadline) or await self._open(deadline, again=True)
        self.released(connection)

    def retire(self) -> None:
        """Keep no connection after its exchange; who still sends here is served all the same."""
        self._draining = True
        for connection in tuple(self._idle):
            connection.drop()

    def renew(self) -> None:
        """Other certificates hold: what runs ends where it is, everything else connects anew."""
        self._renewals += 1
        self._retire(frozenset())

    async def aclose(self, grace: float) -> None:
        """Close idle connections now, busy ones when done or after `grace` seconds."""
        self.retire()
        await self._emptied(grace)
        self._closed = True
        self._waiting.dismiss("connect", "this side is closed")
        for connection in tuple(self._busy):
            connection.close()
        await self._emptied(1.0)
        self._sweep.forget(self)
        self._watched = False

    # -- Connections.

    def _take(self, deadline: float) -> Connection | None:
        """An idle connection; None if there is none.  Whether it is quiet is asked at its write."""
        now = self._clock.now()
        if now >= deadline:
            raise UpstreamFailed("timeout", "the deadline had passed", sent=False)
        if not self._watched:
            self._watched = True
            self._sweep.watch(self)
        idle = self._idle
        while idle:
            connection = idle.pop()
            if now < connection.expires and connection.usable():
                self._busy.add(connection)
                return connection
            connection.drop()
        return None

    async def _open(self, deadline: float, *, again: bool = False) -> Connection:
        """A new connection, or if there may be no more of them the first that comes free.

        `again`: it was its turn before.
        """
        self._check_open()
        if self.busy < self.endpoint.connections:
            self._opening += 1
        elif (freed := await self._wait(deadline, again=again)) is not None:
            return freed
        return await self._dial(deadline)

    async def _wait(self, deadline: float, *, again: bool) -> Connection | None:
        """A connection that came free; or None, the place of one, which counts as opening."""
        while True:
            until = min(deadline, self._clock.now() + self.endpoint.queue_timeout)
            waiter = self._waiting.join(until, first=again)
            try:
                freed = await waiter
            except asyncio.CancelledError:
                self._waiting.leave(waiter)
                if not waiter.cancelled() and waiter.exception() is None:
                    self._pass_on(waiter.result())
                raise
            if self._clock.now() >= deadline:
                self._pass_on(freed)
                raise self._waiting.full("no connection came free in time")
            if freed is None or (freed.usable() and not freed.retired):
                return freed
            freed.drop()
            again = True

    def _pass_on(self, freed: Connection | None) -> None:
        """Give what came free to the next; whose turn it was has gone."""
        if freed is None:
            self._opening -= 1
            self._free()
        elif freed.usable():
            self.released(freed)
        else:
            freed.drop()

    async def _dial(self, deadline: float) -> Connection:
        """A new connection, which counts as opening already."""
        renewals = self._renewals
        try:
            self._check_open()
            patience = min(deadline - self._clock.now(), self.endpoint.connect_timeout)
            connection = await self._dialer.open(self._make, patience)
        except BaseException:
            self._opening -= 1
            self._free()
            raise
        self._opening -= 1
        self.opened_total += 1
        self._busy.add(connection)
        known = self._resolver.knows(connection.address)
        connection.retired = not known or renewals != self._renewals
        if self._closed:
            connection.drop()
        if connection.gone:
            self._busy.discard(connection)
            self._free()
            raise UpstreamFailed("connect", "closed at once", sent=False)
        if self._clock.now() >= deadline:
            self.released(connection)
            raise UpstreamFailed("timeout", "the deadline passed while connecting", sent=False)
        return connection

    def _check_open(self) -> None:
        if self._closed:
            raise UpstreamFailed("connect", "this side is closed", sent=False)

    def _make(self, address: Address) -> Connection:
        return Connection(self, address, stall=self.endpoint.stall, turn=self._turn)

    def released(self, connection: Connection) -> None:
        """Keep a connection for the next exchange."""
        if self._draining or connection.retired:
            connection.drop()
            return
        connection.expires = self._clock.now() + self.endpoint.keepalive
        if self._waiting.line and self._waiting.serve(connection):
            connection.deadline = math.inf  # Busy still, and between two exchanges.
            return
        self._busy.discard(connection)
        self._idle.append(connection)

    def dropped(self, connection: Connection) -> None:
        """Forget a connection; its transport is still to go."""
        self._busy.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self._ending.add(connection)
        if self._waiting.line:
            self._free()

    def lost(self, connection: Connection) -> None:
        """The transport is gone, nothing of the connection is left."""
        self._ending.discard(connection)
        self._tell_empty()

    def sweep(self, now: float) -> bool:
        """Act on what is overdue or has been idle for too long."""
        for connection in [one for one in self._busy if one.deadline <= now]:
            connection.overdue(now)
        while self._idle and self._idle[0].expires <= now:
            self._idle[0].drop()
        if self._waiting.line:
            self._waiting.expire(now)
        self._resolver.refresh()
        self._watched = bool(self._busy or self._idle or self._opening)
        return self._watched

    def _retire(self, addresses: frozenset[Address]) -> None:
        """Only these addresses hold: finish what runs on others, begin nothing there."""
        for connection in (*self._idle, *self._busy):
            if connection.address not in addresses:
                connection.retired = True
        for connection in [one for one in self._idle if one.retired]:
            connection.drop()

    def _free(self) -> None:
        """A place is free: whoever is first in line may open a connection."""
        while self._waiting.line and self.busy < self.endpoint.connections:
            if self._waiting.serve(None):
                self._opening += 1
        self._tell_empty()

    async def _emptied(self, patience: float) -> None:
        """Wait until no connection is left, for so long."""
        if self._held_open():
            self._empty = asyncio.get_running_loop().create_future()
            await asyncio.wait({self._empty}, timeout=patience)
            self._empty = None

    def _tell_empty(self) -> None:
        empty = self._empty
        if empty is not None and not empty.done() and not self._held_open():
            empty.set_result(None)

    def _held_open(self) -> bool:
        return bool(self._busy or self._opening or self._ending)


def _answered_nobody(waiter: asyncio.Future[Reply]) -> None:
    """The answer and the caller's leaving crossed: nobody will read this stream."""
    if waiter.cancelled() or waiter.exception() is not None:
        return
    body = waiter.result().body
    if isinstance(body, StreamedBody):
        body.drop()
