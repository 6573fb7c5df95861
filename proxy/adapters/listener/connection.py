"""One client connection: its requests answered in order, its deadlines kept.

aiohttp's `RequestHandler` parses, queues pipelined requests and pauses the socket when that
queue or a body is full.  What it does per request besides (a task of its own, a writer, a
response object, timers) is replaced by `start` and what that calls.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from aiohttp import hdrs
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader

from proxy.adapters.listener.chunks import Unfit
from proxy.adapters.listener.outlet import Outlet, Then, close
from proxy.adapters.listener.request import (
    NEVER,
    Message,
    Request,
    break_off,
    framing_fault,
)
from proxy.adapters.listener.room import OWES, Rank
from proxy.adapters.listener.seams import Seams
from proxy.core.model import Reply

if TYPE_CHECKING:
    from proxy.adapters.listener.acceptor import Acceptor

IN_A_ROW: Final = 8
"""Requests that one connection has answered before others have their turn."""

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class _Fault(NamedTuple):
    """Takes the place of a message that never became one."""

    status: int


_Queued: TypeAlias = tuple[Any, StreamReader]


class Connection(Outlet):
    """Serves one client; made by `Acceptor` for each accepted socket."""

    __slots__ = (
        "_broken",
        "_gives_way",
        "_head_began",
        "_request",
        "_rest",
        "_seams",
        "_served",
        "first_due",
        "peer",
        "secure",
        "turned_away",
    )

    def __init__(self, acceptor: Acceptor, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(acceptor, loop)
        self.peer = ""
        self.secure = False
        self.turned_away = False  # there are too many
        self.first_due = 0.0  # when its first head is; 0: as long from now as any
        self._request: Request | None = None
        self._served = False  # at least one request has come
        self._head_began = False  # part of a head is here
        self._seams = Seams()
        self._rest = b""  # came, and waits until there is room for it
        self._gives_way = False  # it goes on when others had their turn
        self._broken = False  # nothing that follows can be understood

    # -- told by the transport ----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember who is here."""
        peer = transport.get_extra_info("peername")
        self.peer = peer[0] if isinstance(peer, tuple) else ""
        self.secure = transport.get_extra_info("ssl_object") is not None
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Tell the request that is being answered, and its handler if it works for nobody now."""
        request, task = self._request, self._task_handler
        super().connection_lost(exc)
        if request is not None:
            request.hang_up()
            if request.perishable and not request.answered and task is not None:
                task.cancel()

    def data_received(self, data: bytes) -> None:
        """Give the parser one request at a time; notice a head that is on its way.

        Called without data it goes on with what had to wait.
        """
        if self._broken or self._discarding or self._force_close:
            return
        if not data:
            super().data_received(b"")
        if self._rest:
            data, self._rest = self._rest + data, b""
        seams = self._seams
        try:
            room = not (self._messages or self._reading_paused or self._upgraded)
            if room and seams.lone(data):
                self._parse(data, lone=True)
            else:
                self._pass_on(data)
        except Unfit as unfit:
            self._break_off(unfit.status)
        if seams.begun and not self._head_began and self._waiter is not None:
            self._head_began = True
            self.due = min(self.due, self._loop.time() + self._acceptor.options.head_timeout)

    def _pass_on(self, data: bytes) -> None:
        """Cut `data` up for the parser, as far as there is room; raises `Unfit`."""
        at, size = 0, len(data)
        while at < size and not self._broken:
            if self._reading_paused or len(self._messages) >= self._max_msg_queue_size:
                self._rest = data[at:]
                return
            if self._upgraded:  # What follows an offered WebSocket may be frames.
                super().data_received(data[at:])
                return
            in_chunks = self._seams.in_chunks
            piece, at = self._seams.cut(data, at)
            self._parse(piece)
            if in_chunks and at < size and not self._broken:
                self._rest = data[at:]
                self._give_way()
                return

    def _give_way(self) -> None:
        """Let others have their turn: a read can hold more tiny chunks than one turn should."""
        if not self._gives_way:
            self._gives_way = True
            self._pause_reading_for_buffer()
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        """One's turn again."""
        self._gives_way = False
        if self.transport is None:
            return
        self.data_received(b"")
        if not self._gives_way and len(self._messages) < self._max_msg_queue_size:
            self._resume_reading_for_buffer()

    def _parse(self, piece: bytes, *, lone: bool = False) -> None:
        """Feed the parser, and see that it finds a head where one ends, and nowhere else.

        `lone`: the whole body follows in the same piece.
        """
        messages, seams = self._messages, self._seams
        before = len(messages)
        super().data_received(piece)
        found = len(messages) - before
        if found and type(messages[-1][0]) is not RawRequestMessage:
            error: Any = messages.pop()[0]
            self._break_off(_status_of(error.exc))
        elif found != seams.whole:
            if found:
                messages.pop()
            self._break_off(400)
        elif found:
            message: Message = messages[-1][0]
            payload = messages[-1][1]
            if payload.is_eof():
                return
            if lone:
                self._break_off(400)
            else:
                length = message.headers.get(hdrs.CONTENT_LENGTH)
                seams.body(int(length or 0), chunked=message.chunked)

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Called at the end of every body, when there is mostly nothing to resume."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def _break_off(self, status: int) -> None:
        """There is a fault: in a body that is still coming, or in what should be a head."""
        self._broken = True
        if self._messages:
            payload = self._messages[-1][1]
        else:
            payload = self._request.payload if self._request else EMPTY_PAYLOAD
        if not payload.is_eof():
            break_off(payload, status)
            return
        self._messages.append(_fault(status))
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # -- told by the sweep and by the drain ---------------------------------------------------

    def expire(self) -> None:
        """`due` has passed."""
        self.due = NEVER
        if self._closing or self._flushing or self._discarding:
            super().expire()
        elif self._request is not None:
            self._request.late()
        elif self._messages:
            pass  # A request came just in time.
        elif self._head_began and self._waiter is not None:
            self._messages.append(_fault(408))
            self._waiter.set_result(None)
        else:
            self.hang_up()

    @property
    def rank(self) -> Rank | None:
        """Whether it makes room for others, and when: if a request, or the rest of one, is due."""
        if self._closing or self._flushing or self._discarding:
            return super().rank
        if self.due < NEVER:
            return OWES, self.due
        between = self._messages and self._request is None and self.transport is not None
        return self.rank_between() if between else None

    def close_if_idle(self) -> None:
        """Close unless a request is being answered or is on its way in."""
        if self._waiter is not None and not self._messages and not self._head_began:
            self.hang_up()

    def cut(self) -> asyncio.Task[None] | None:
        """End everything now; the task that is ending."""
        task = self._task_handler
        self.abort()
        if task is not None:
            task.cancel()
        return task

    # -- told by the request ------------------------------------------------------------------

    def go_on(self) -> None:
        """Ask a client that waits for it to send its body."""
        if self.transport is not None:
            self.say(_CONTINUE)

    def body_begins(self, deadline: float) -> None:
        """Make the request `late` once `deadline` has passed."""
        self.due = deadline
        self._acceptor.arriving.bodies += 1

    def body_grows(self, size: int) -> bool:
        """Whether there is room for so many bytes more."""
        return self._acceptor.arriving.grow(size)

    def body_ends(self, held: int) -> None:
        """It is whole, or no more of it is wanted; `held` is by how much it grew."""
        self.due = NEVER
        arriving = self._acceptor.arriving
        arriving.bodies -= 1
        arriving.held -= held

    def answer_early(self, request: Request, reply: Reply) -> bool:
        """Hand this connection on to a new task, which begins with `reply`.

        The present one is inside the handler of `request`, and only ends after that.
        """
        task = self._task_handler
        if (
            request.answered
            or request.gone
            or task is None
            or not request.complete()
            or not isinstance(reply.body, bytes)
        ):
            return False
        request.answered = True
        self._task_handler = self._acceptor.hand_on(task, self.start((request, reply)))
        return True

    # -- the loop -----------------------------------------------------------------------------

    async def start(self, early: tuple[Request, Reply] | None = None) -> None:
        """Answer this connection's requests, one after another; first the one answered `early`.

        All of them in this one task, unless one is answered early, so a context variable that a
        handler sets lives on into the connection's next request.
        """
        acceptor, go_on, in_a_row = self._acceptor, Then.GO_ON, 0
        then = go_on
        try:
            if early is not None:
                then = await self._put_out(*early)
            elif self.turned_away:
                then = self.refuse(503)
            while then is go_on and self.transport is not None:
                if not self._messages:
                    # Part of a head may have come behind the last request.
                    began = self._head_began = self._seams.begun
                    idle = self._served and not began
                    options, in_a_row = acceptor.options, 0
                    patience = options.idle_timeout if idle else options.head_timeout
                    self.due = self.first_due or self._loop.time() + patience
                    self.first_due = 0.0
                    self._waiter = self._loop.create_future()
                    try:
                        await self._waiter
                    finally:
                        self._waiter = None
                elif (in_a_row := in_a_row + 1) == IN_A_ROW:
                    in_a_row = 0
                    await asyncio.sleep(0)
                message, payload = self._take()
                then = await self._exchange(message, payload)
            if then is Then.LINGER:
                await self.linger()
        except Exception as error:
            acceptor.report("a connection failed", error)
            self.abort()

    def _take(self) -> _Queued:
        """The next request, or the fault in its place."""
        self.due, self._head_began, self._served = NEVER, False, True
        item = self._messages.popleft()
        if self._parser is not None:
            self._parser.message_consumed()
        if self._buffer_paused and len(self._messages) <= self._msg_queue_resume_size:
            self._resume_reading_if_drained()
        return item

    async def _exchange(self, message: Any, payload: StreamReader) -> Then:
        """One request and its answer."""
        acceptor = self._acceptor
        fault = framing_fault(message) if type(message) is RawRequestMessage else message.status
        if fault:
            return self.refuse(fault)
        request = self._request = Request.of(message, payload, self)
        if self.transport is None:  # The client sent it and left; a call event is still worth it.
            request.hang_up()
        acceptor.inflight += 1
        try:
            reply = await acceptor.handler(request)
        except Exception as error:
            acceptor.report("the handler failed", error)
            if request.answered:
                return Then.HANDED_ON
            reply = acceptor.fault(500)
        except BaseException:
            if not request.answered:
                self._answered()
            raise
        if request.answered:
            return await self._drop(reply)
        request.answered = True
        try:
            return await self.answer(request, reply, last=self._is_last(message))
        finally:
            self._answered()

    async def _put_out(self, request: Request, reply: Reply) -> Then:
        """What `_exchange` ends with, for a request answered early."""
        try:
            return await self.answer(request, reply, last=self._is_last(request.message))
        finally:
            self._answered()

    def _answered(self) -> None:
        """The exchange is over, as far as the caller is concerned."""
        self._acceptor.inflight -= 1
        self._request = None

    async def _drop(self, reply: Reply) -> Then:
        """What the handler of a request returned that had been answered early."""
        if not isinstance(reply.body, bytes):
            try:
                await close(reply.body)
            except Exception as error:
                self._acceptor.report("a streamed answer failed", error)
        return Then.HANDED_ON

    def _is_last(self, message: Message) -> bool:
        """Nothing that follows this request is answered."""
        return bool(message.should_close)


def _fault(status: int) -> _Queued:
    return _Fault(status), EMPTY_PAYLOAD


def _status_of(error: BaseException) -> int:
    """The status for what the parser found wrong; its message, which echoes input, is not used."""
    if isinstance(error, LineTooLong):
        # The request target is the one line that the parser reports as a bytearray.
        return 414 if isinstance(error.args[0], bytearray) else 431
    return 431 if "Too many headers" in str(error) else 400
