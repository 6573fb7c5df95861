"""One connection to an upstream: one exchange at a time, and whether it may carry another."""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias, cast

from proxy.adapters.turn import Turn
from proxy.adapters.upstream.answer import NO_BODY, Answer
from proxy.adapters.upstream.dismissed import refuses_us
from proxy.adapters.upstream.head import Malformed, check_start, read_head
from proxy.core.model import Reply
from proxy.errors import UpstreamFailed

if TYPE_CHECKING:
    from proxy.adapters.upstream.resolver import Address

Late: TypeAlias = Callable[[], bool]
"""Asked at the deadline: shall whoever waits for the answer wait on?  Must not raise."""

_JOINED: Final = 65_536  # a larger body is written beside its head, not copied behind it
_INTERIM: Final = 16
_NEVER: Final = float("inf")
_NOTHING: Final = (b"", b"")

_IDLE, _WAITING, _HEAD, _BODY, _DEAD = range(5)  # phases; waiting: for the end of the turn


class Unsent(Exception):
    """The other end hung up, or spoke, before the request was written: it may go elsewhere."""


class Owner(Protocol):
    """The pool that a connection belongs to."""

    def released(self, connection: Connection) -> None:
        """Its exchange is over and it may carry another."""

    def dropped(self, connection: Connection) -> None:
        """It will carry nothing more."""

    def lost(self, connection: Connection) -> None:
        """Its transport is gone."""


class Connection:
    """The protocol behind one transport: an `asyncio.Protocol` by its methods.

    `deadline` is when `overdue` is to be called; `expires` when it has been idle for too long.
    """

    __slots__ = (
        "__weakref__",
        "_answer",
        "_bodiless",
        "_held",
        "_interim",
        "_late",
        "_limit",
        "_loop",
        "_owner",
        "_paused",
        "_phase",
        "_poll",
        "_request",
        "_stall",
        "_transport",
        "_turn",
        "_until",
        "_waiter",
        "address",
        "deadline",
        "expires",
        "retired",
    )

    _transport: asyncio.Transport
    _loop: asyncio.AbstractEventLoop
    _poll: Callable[[int], list[tuple[int, int]]]

    def __init__(self, owner: Owner, address: Address, *, stall: float, turn: Turn) -> None:
        self.address = address
        self.deadline = _NEVER
        self.expires = 0.0
        self.retired = False  # its address is the upstream's no more
        self._owner = owner
        self._stall = stall
        self._turn = turn
        self._phase = _IDLE
        self._request: tuple[bytes, bytes] = _NOTHING  # head and body, not written yet
        self._waiter: asyncio.Future[Reply] | None = None
        self._late: Late | None = None
        self._answer: Answer | None = None
        self._held = b""
        self._paused = False

    # -- What the pool asks for.

    @property
    def gone(self) -> bool:
        """Dropped or lost."""
        return self._phase == _DEAD

    def usable(self) -> bool:
        """It has no exchange, and nobody has been seen to hang up."""
        return self._phase == _IDLE and not self._transport.is_closing()

    def quiet(self) -> bool:
        """Nothing has come and nobody has hung up since the last exchange.

        The kernel is asked: the loop may not have read yet what is already there.
        """
        return not self._transport.is_closing() and not self._poll(0)

    def start(
        self,
        head: bytes,
        body: bytes,
        *,
        bodiless: bool,
        limit: int,
        deadline: float,
        linger: float,
        late: Late | None,
    ) -> asyncio.Future[Reply]:
        """Have one request written; the future is its answer, or `Unsent`."""
        self._phase = _WAITING
        self._request = head, body
        self._bodiless = bodiless
        self._limit = limit
        self._until = deadline + linger if linger > 0 else 0.0  # 0: it is not to linger
        self._late = late
        self._interim = 0
        self.deadline = deadline
        self._turn.add(self)
        self._waiter = waiter = self._loop.create_future()
        return waiter

    def write_out(self) -> None:
        """Write the request, unless there is a reason not to.  From here on it counts as sent."""
        if self._phase != _WAITING:
            return
        if self.expires and not self.quiet():  # A new one has not been idle, and TLS may talk.
            self._give_back()
            return
        self._phase = _HEAD
        (head, body), self._request = self._request, _NOTHING
        if len(body) <= _JOINED:
            self._transport.write(head + body)
        else:
            self._transport.writelines((head, body))

    def leave(self, waiter: asyncio.Future[Reply]) -> None:
        """The caller waits no more: let the upstream finish if it may linger, else hang up."""
        if self._waiter is not waiter:
            return
        self._waiter = None
        if self._until and self._phase != _WAITING:
            self.deadline = self._until
        else:
            self.drop()

    def overdue(self, now: float) -> None:
        """The deadline has passed."""
        waiter, answer = self._waiter, self._answer
        if answer is not None and answer.streaming:
            self._check_stall(answer, now)
        elif waiter is None or now >= self._until or self._phase == _WAITING:
            self._fail("timeout", "no whole answer in time")
        elif waiter.done() or not self._waits_on():
            self._waiter = None
            self.deadline = self._until
            if not waiter.done():
                detail = "no whole answer in time, it may still come"
                waiter.set_exception(UpstreamFailed("timeout", detail, sent=True))
        else:
            self.deadline = self._until

    def _waits_on(self) -> bool:
        """Ask once; should that raise, the next sweep finds nobody left to ask."""
        late, self._late = self._late, None
        return late is not None and late()

    def close(self) -> None:
        """Hang up; whoever waits hears it."""
        if self._phase == _IDLE:
            self.drop()
        elif self._phase != _DEAD:
            self._fail("reset", "closed on this side")

    # -- What the stream asks for.

    def drop(self) -> None:
        """Hang up at once, whatever is under way; nobody is told."""
        if self._phase != _DEAD:
            self._phase = _DEAD
            self._answer = None
            self._request = _NOTHING
            self._owner.dropped(self)
            self._transport.abort()

    def pause(self) -> None:
        """Read no more for now."""
        if not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._paused:
            self._paused = False
            self._transport.resume_reading()

    # -- What the loop tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ready for a first request."""
        self._transport = cast("asyncio.Transport", transport)
        self._loop = asyncio.get_running_loop()
        poll = select.poll()
        poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
        self._poll = poll.poll

    def data_received(self, data: bytes) -> None:
        """Part of an answer; what comes while idle must never meet a request."""
        try:
            if self._phase == _HEAD:
                self._take_head(self._held + data if self._held else data)
            elif self._answer is not None:
                self._take_body(self._answer, data)
            elif self._phase == _WAITING:
                self._give_back()
            else:
                self.drop()
        except Malformed as fault:
            self._fail("reset", str(fault))

    def eof_received(self) -> None:
        """The end of an answer that ends with the connection; else a cut."""
        answer = self._answer
        if answer is not None and answer.ends_with_connection:
            self._finish(answer)
        else:
            self._cut()

    def connection_lost(self, error: Exception | None) -> None:
        """Gone, whoever closed it."""
        if self._phase == _HEAD and not self.expires and not self._held and refuses_us(error):
            # With TLS 1.3 the other end judges our certificate after we may write.
            self._fail("connect", "the upstream refused our certificate", unread=True)
        self._cut()
        self._owner.lost(self)

    def pause_writing(self) -> None:
        """A request is written whole: there is nothing to hold back."""

    def resume_writing(self) -> None:
        """Nothing was held back."""

    def _cut(self) -> None:
        """The upstream hung up."""
        if self._phase == _IDLE:
            self.drop()
        elif self._phase == _WAITING:
            self._give_back()
        elif self._phase == _HEAD and not self._held:
            self._fail("reset", "closed without an answer")
        elif self._phase != _DEAD:
            self._fail("reset", "closed half way through the answer")

    # -- The answer.

    def _take_head(self, data: bytes) -> None:
        end = data.find(b"\r\n\r\n")
        if end < 0:
            check_start(data)
            self._held = data
            return
        self._held = b""
        reply, frame = read_head(data, end)
        status = reply.status
        if status < 200:
            self._skip_interim(status)
            if len(data) > end + 4:
                self._take_head(data[end + 4 :])
        elif (
            frame.length == len(data) - end - 4 <= self._limit
            and not self._bodiless
            and not frame.events
            and status not in NO_BODY
        ):
            reply.body = data[end + 4 :]  # The usual case: all of it in one segment.
            self._settle(reply, frame.keep)
        else:
            self._phase = _BODY
            self._answer = Answer(reply, frame, bodiless=self._bodiless, limit=self._limit)
            self._take_body(self._answer, data[end + 4 :])

    def _skip_interim(self, status: int) -> None:
        self._interim += 1
        if status == 101:
            raise Malformed("switched protocols without being asked")
        if self._interim > _INTERIM:
            raise Malformed("too many interim answers")

    def _take_body(self, answer: Answer, data: bytes) -> None:
        answer.feed(data)
        if answer.large:
            self._hand_out(answer)
        if answer.ended:
            self._finish(answer)

    def _hand_out(self, answer: Answer) -> None:
        """Give the answer to the caller before its end, if the caller still waits."""
        waiter = self._waiter
        if waiter is None:
            answer.forget()
        elif not waiter.done():
            self._waiter = self._late = None
            self.deadline += self._stall
            waiter.set_result(answer.stream(self, self._orphaned))

    def _orphaned(self, _: object) -> None:
        """The reader let go of the stream without closing it."""
        self.drop()

    def _check_stall(self, answer: Answer, now: float) -> None:
        """A reader that is behind is no silent upstream."""
        if answer.heard or self._paused:
            answer.heard = False
            self.deadline = now + self._stall
        else:
            self._fail("timeout", "the answer stalled")

    # -- The end of an exchange.

    def _finish(self, answer: Answer) -> None:
        """The last byte of a body is here."""
        self._answer = None
        if answer.streaming:
            self._release(answer.keep)
            answer.end()
        else:
            self._settle(answer.whole(), answer.keep)

    def _settle(self, reply: Reply, keep: bool) -> None:
        """Hand out a whole answer, to whoever is still there for it."""
        waiter, self._waiter, self._late = self._waiter, None, None
        self._release(keep)
        if waiter is not None and not waiter.done():
            waiter.set_result(reply)

    def _release(self, keep: bool) -> None:
        """Back to the pool, unless anything at all speaks against another exchange."""
        self._phase = _IDLE
        if self._paused:
            self.resume()
        transport = self._transport
        # An answer that came before its whole request was out leaves a request half written.
        if (
            keep
            and not self.retired
            and not transport.is_closing()
            and not transport.get_write_buffer_size()
        ):
            self._owner.released(self)
        else:
            self.drop()

    def _give_back(self) -> None:
        """The other end has done with this connection; its request has not left."""
        waiter, self._waiter = self._waiter, None
        self.drop()
        if waiter is not None and not waiter.done():
            waiter.set_exception(Unsent())

    def _fail(self, why: str, detail: str, *, unread: bool = False) -> None:
        """No whole answer will come; the connection is of no more use."""
        sent = self._phase != _WAITING and not unread
        waiter, self._waiter = self._waiter, None
        answer, self._answer = self._answer, None
        self.drop()
        failure = UpstreamFailed(why, detail, sent=sent)
        if answer is not None and answer.streaming:
            answer.end(failure)
        elif waiter is not None and not waiter.done():
            waiter.set_exception(failure)
