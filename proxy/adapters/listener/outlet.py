"""How answers leave: written no faster than the client takes them, and how a connection ends."""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from collections.abc import AsyncIterator
from enum import Enum
from fcntl import ioctl
from termios import TIOCOUTQ
from typing import TYPE_CHECKING, Any, Final, cast

from aiohttp.http import HttpVersion11
from aiohttp.web_protocol import RequestHandler

from proxy.adapters.listener.framing import Frame, UnsafeReply, opening, whole
from proxy.adapters.listener.request import NEVER, Request
from proxy.adapters.listener.room import DONE, OWES, Rank
from proxy.core.model import Reply
from proxy.errors import UpstreamFailed

if TYPE_CHECKING:
    from proxy.adapters.listener.acceptor import Acceptor

_CLOSE: Final = b"connection: close\r\n"
_KEEP: Final = b"connection: keep-alive\r\n"
_SMALL: Final = 16_384  # bytes of answers that may wait for the end of the turn
_PILE: Final = 65_536  # bytes of answers that nobody takes while more requests come
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: on, 0 s.


class Then(Enum):
    """What becomes of the connection after an answer."""

    GO_ON = "the next request"
    CLOSE = "nothing more"
    LINGER = "the client may still be sending: let it finish, or it never sees the answer"
    HANDED_ON = "whatever it is, another task sees to it"


# Bound once: reading a member of an enumeration is slow in Python 3.11.
_GO_ON, _CLOSED, _LINGER = Then.GO_ON, Then.CLOSE, Then.LINGER


class Outlet(RequestHandler):
    """The writing half of a connection.

    There is no timer here: `due` is the clock time at which what goes on now has taken too long,
    and the listener's sweep calls `expire` when it has passed.
    """

    __slots__ = (
        "_acceptor",
        "_closing",
        "_discarding",
        "_flushing",
        "_held",
        "_since",
        "_streaming",
        "_unsent",
        "_wire",
        "due",
    )

    def __init__(self, acceptor: Acceptor, loop: asyncio.AbstractEventLoop) -> None:
        options = acceptor.options
        super().__init__(
            acceptor,
            loop=loop,
            keepalive_timeout=0,  # aiohttp's own timer stays off.
            access_log=cast(Any, None),
            max_line_size=options.max_line,
            max_field_size=options.max_line,
            max_headers=options.max_headers,
            read_bufsize=options.read_buffer,
            auto_decompress=False,
        )
        self.due = NEVER
        self._acceptor = acceptor
        self._held = b""  # to be written when the turn is over
        self._unsent = 0  # bytes that the client had not taken when last looked at
        self._since = 0.0  # when that was
        self._flushing = False  # waiting for the client to take an answer
        self._streaming = False  # waiting for the rest of an answer
        self._discarding = False  # answered for good; what still comes is thrown away
        self._closing = False  # closed but for what is not flushed yet

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is here; from 3.12 on, `start` runs up to its first wait inside this call."""
        self._wire = cast(asyncio.Transport, transport)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """The client is gone.  The handler is not cancelled: what it began, it finishes."""
        task = self._task_handler
        super().connection_lost(exc)
        self.due = NEVER
        if self._streaming and task is not None:
            task.cancel()  # It may wait for an upstream that has nothing more to say.

    def expire(self) -> None:
        """`due` has passed while an answer, or the connection's end, was on its way out."""
        if self._closing or self._flushing:
            before, options = self._unsent, self._acceptor.options
            self._watch_progress()
            if before - self._unsent < min(before, options.min_rate * options.write_timeout):
                self.abort()
        elif self._discarding:
            self._wire.abort()

    @property
    def rank(self) -> Rank | None:
        """Whether it makes room for others while an answer, or its end, is on its way out."""
        if self._streaming or self.due == NEVER:
            return None
        if self._discarding and not self._wire.get_write_buffer_size():
            return OWES, self.due  # It may still be sending, and read its answer after that.
        waited, left = self._loop.time() - self._since, self._left()
        if self._closing and not left:
            # What was written in this turn may be on its way to the kernel.
            return (DONE, self._since) if waited > 0.0 else None
        options = self._acceptor.options
        dawdles = waited >= options.patience and self._unsent - left < waited * options.pace
        return (OWES, self._since + options.head_timeout) if dawdles else None

    def rank_between(self) -> Rank | None:
        """The same while its next request waits for its turn: if it reads no answers meanwhile."""
        if self._left() <= _PILE:
            return None
        options = self._acceptor.options
        return OWES, self._loop.time() + options.head_timeout - options.patience

    def evict(self) -> None:
        """Go, for others, without a word; an answer that the kernel has whole is not taken back."""
        if (self._closing or self._discarding) and not self._wire.get_write_buffer_size():
            self.due = NEVER
            self._wire.abort()
        else:
            self.abort()

    def abort(self) -> None:
        """Drop the connection with a reset, so that no client takes what it has for the whole."""
        self.due = NEVER
        self.write_out()
        sock = self._wire.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            except (OSError, ValueError):
                pass  # It is closed already, which uvloop tells by a negative descriptor.
        self._wire.abort()

    def put(self, data: bytes) -> None:
        """Write `data` when the turn is over; see `Turn`."""
        if not self._held:
            self._acceptor.turn.add(self)
        self._held += data

    def write_out(self) -> None:
        """Write all that was put."""
        held, self._held = self._held, b""
        if held and self.transport is not None:
            self._wire.write(held)

    def say(self, data: bytes) -> None:
        """Write `data` now, behind all that was put."""
        if self._held:
            self.write_out()
        self._wire.write(data)

    async def answer(self, request: Request, reply: Reply, *, last: bool) -> Then:
        """Write the answer to `request`; `last` says that the client will not send another."""
        body, unread = reply.body, not request.complete()
        chunks = request.version >= HttpVersion11
        last = last or unread or reply.close or self._upgraded or self._acceptor.draining
        try:
            if self.transport is None:
                return _CLOSED
            if isinstance(body, bytes):
                connection = _CLOSE if last else b"" if chunks else _KEEP
                text = whole(reply, body, request.method, connection)
                if last or len(self._held) + len(text) > _SMALL:
                    self.say(text)
                else:
                    self.put(text)
            else:
                last = last or (reply.length is None and not chunks)
                connection = _CLOSE if last else b"" if chunks else _KEEP
                head, frame = opening(reply, request.method, chunks=chunks, connection=connection)
                self.say(head)
                if frame is not None and not await self._stream(body, frame):
                    return _CLOSED
        except UnsafeReply as error:
            self._acceptor.report("an answer could not be framed", error)
            return self.refuse(502)
        finally:
            if not isinstance(body, bytes):
                await close(body)
        if self._paused:
            await self._flushed()
        if not last:
            return _GO_ON
        if unread:
            return _LINGER
        self.hang_up()
        return _CLOSED

    def refuse(self, status: int) -> Then:
        """Answer what is no request, or has no answer; nothing after it is read."""
        reply = self._acceptor.fault(status)
        if self.transport is not None:
            self.say(whole(reply, cast(bytes, reply.body), "", _CLOSE))
        return _LINGER

    def hang_up(self) -> None:
        """Close once everything is flushed; a client that takes nothing is not waited for."""
        if self.transport is not None:
            self.write_out()
            self._closing = True
            self._watch_progress()
            self.force_close()

    async def linger(self) -> None:
        """Throw away what still comes for a while: closing on it would reset the answer away."""
        if self.transport is None:
            return
        self._discarding = True
        if self._wire.can_write_eof():
            self._wire.write_eof()
        self._wire.resume_reading()
        self._watch_progress()
        self.due = self._since + self._acceptor.options.linger
        await self.woken()

    async def woken(self) -> None:
        """Wait until somebody sets `_waiter`; cancelled when the connection ends."""
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    async def _stream(self, body: AsyncIterator[bytes], frame: Frame) -> bool:
        """Write a body as it comes and as the client takes it; False: the connection is gone.

        Only a body that came whole is given its end; any other ends in a reset.
        """
        self._streaming = True
        try:
            async for part in body:
                if self.transport is None:
                    return False
                self.say(frame.part(part))
                if self._paused:
                    await self._flushed()
            if self.transport is None:
                return False
            self.say(frame.last())
        except asyncio.CancelledError:
            if self.transport is None:
                return False  # `connection_lost` woke us from an upstream that said nothing.
            raise
        except Exception as error:
            if not isinstance(error, UpstreamFailed):
                self._acceptor.report("a streamed answer failed", error)
            self.abort()
            return False
        finally:
            self._streaming = False
        return True

    async def _flushed(self) -> None:
        """Wait until the client has taken most of what was written."""
        self._flushing = True
        self._watch_progress()
        try:
            await self._drain_helper()
        except ConnectionError:
            pass  # Whoever waits sees that there is no transport any more.
        finally:
            self._flushing = False
            self.due = NEVER

    def _watch_progress(self) -> None:
        self._unsent, self._since = self._left(), self._loop.time()
        self.due = self._since + self._acceptor.options.write_timeout

    def _left(self) -> int:
        """Bytes that were written and the client has not taken."""
        return self._wire.get_write_buffer_size() + _queued(self._wire)


def _queued(wire: asyncio.Transport) -> int:
    """Bytes that the kernel has taken and the client has not.

    The kernel asks for more only once a third of its buffer, megabytes at times, is free: without
    them a client that takes its time looks like one that takes nothing.
    """
    sock = wire.get_extra_info("socket")
    if sock is None:
        return 0
    try:
        return int.from_bytes(ioctl(sock.fileno(), TIOCOUTQ, bytes(4)), sys.byteorder)
    except (OSError, ValueError):
        return 0  # It is closed already, or of a sort that does not tell.


async def close(body: AsyncIterator[bytes]) -> None:
    """Let go of a streamed answer, read or not."""
    aclose = getattr(body, "aclose", None)
    if aclose is not None:
        await aclose()
