"""What an attempt holds in its hands: the way out to its upstream, and an answer that streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from proxy.core.body_verdicts import BodyVerdicts
from proxy.core.dialects.answers import JSON
from proxy.core.dialects.ear import Ear
from proxy.core.model import Call, Headers, Kind, Outbound, Reply
from proxy.errors import UpstreamFailed
from proxy.ports import Upstream


class Sender:
    """One attempt's `send`: bound to its upstream, its deadline and its exchange's headers.

    `dispatched`: the leg that can run the tool has been begun.  `late` (see `Upstream.send`) is
    called at most once, for that leg or by who bounds the whole attempt; what it says holds for
    all that the attempt still waits for.  Without `linger` it is never called.
    """

    __slots__ = ("_deadline", "_extra", "_late", "_linger", "_upstream", "_waits_on", "dispatched")

    def __init__(
        self,
        upstream: Upstream,
        extra: Headers,
        *,
        deadline: float,
        linger: float,
        late: Callable[[], bool] | None = None,
    ) -> None:
        self.dispatched = False
        self._late = late if linger > 0 else None
        self._waits_on = False
        self._upstream = upstream
        self._extra = extra
        self._deadline = deadline
        self._linger = linger

    def __call__(
        self, outbound: Outbound, *, dispatches: bool = True
    ) -> Coroutine[Any, Any, Reply]:
        """See `backends.base.Send`.  No coroutine of its own where the upstream's will do."""
        if outbound.after:
            return self._afterwards(outbound, dispatches)
        linger, late = 0.0, None
        if dispatches:
            self.dispatched = True
            linger = self._linger
            late = self.late if self._late is not None else None
        deadline = self._deadline
        answer = self._upstream.send(
            outbound, self._extra, deadline=deadline, linger=linger, late=late
        )
        return self._bounded(answer, linger, late) if outbound.whole else answer

    def late(self) -> bool:
        """What `late` says, or said: shall the attempt wait on?"""
        late, self._late = self._late, None
        if late is not None:
            self._waits_on = late()
        return self._waits_on

    async def _afterwards(self, outbound: Outbound, dispatches: bool) -> Reply:
        left = self._deadline - asyncio.get_running_loop().time()
        await asyncio.sleep(max(0.0, min(outbound.after, left)))
        outbound.after = 0.0
        return await self(outbound, dispatches=dispatches)

    async def _bounded(
        self,
        answer: Coroutine[Any, Any, Reply],
        linger: float,
        late: Callable[[], bool] | None,
    ) -> Reply:
        reply = await answer
        if not isinstance(reply.body, bytes):
            reply.body = Bounded(reply.body, self._deadline, linger=linger, late=late)
        return reply


class Bounded:
    """A streamed body that has to end by a deadline (loop time), as the backend waits for it.

    Past that it raises `UpstreamFailed`; its connection is then kept for `linger` seconds, for
    hanging up would tell the upstream to cancel what it began.  If `late` says so, at the
    deadline, those seconds are spent reading on instead.
    """

    __slots__ = ("_chunks", "_deadline", "_ends", "_late", "_linger", "_overdue")

    def __init__(
        self,
        chunks: AsyncIterator[bytes],
        deadline: float,
        *,
        linger: float,
        late: Callable[[], bool] | None,
    ) -> None:
        self._chunks = chunks
        self._deadline = deadline
        self._ends = deadline + linger  # at the latest
        self._linger = linger
        self._late = late
        self._overdue = False

    def __aiter__(self) -> Bounded:
        return self

    async def __anext__(self) -> bytes:
        if self._late is None:
            return await self._next(asyncio.timeout_at(self._deadline))
        bound = asyncio.timeout_at(self._ends)
        asking = asyncio.get_running_loop().call_at(self._deadline, self._ask, self._late, bound)
        try:
            return await self._next(bound)
        finally:
            asking.cancel()

    async def _next(self, bound: asyncio.Timeout) -> bytes:
        try:
            async with bound:
                return await self._chunks.__anext__()
        except TimeoutError as error:
            self._overdue = bound.expired()
            raise UpstreamFailed("timeout", "the stream took too long", sent=True) from error

    def _ask(self, late: Callable[[], bool], bound: asyncio.Timeout) -> None:
        """The deadline has passed while somebody waits."""
        if late():
            self._linger = 0.0  # Being spent.
        else:
            bound.reschedule(self._deadline)

    async def aclose(self) -> None:
        """Let go of the upstream, at once or after its time to finish."""
        await let_go(self._chunks, self._linger if self._overdue else 0.0)


class Settled:
    """A streamed body that tells exactly once how it ended.

    `ended(failure, whole)`: the upstream's failure if it broke, and whether the body was read to
    its end; neither means that the reader went away.  Then the upstream has `linger` seconds to
    finish.  `hear` is given every chunk that is handed on, `late` is told if that takes too long
    for its reader (else whoever is behind).  An async generator would not do: closed before its
    first step, it runs none of its own clean-up.
    """

    __slots__ = ("_chunks", "_ended", "_hear", "_late", "_linger", "size")

    def __init__(
        self,
        chunks: AsyncIterator[bytes],
        ended: Callable[[UpstreamFailed | None, bool], None],
        *,
        linger: float = 0.0,
        hear: Callable[[bytes], object] | None = None,
        late: Callable[[], None] | None = None,
    ) -> None:
        self.size = 0  # bytes handed on
        self._chunks = chunks
        self._hear = hear
        self._late = late
        self._linger = linger
        self._ended: Callable[[UpstreamFailed | None, bool], None] | None = ended

    def __aiter__(self) -> Settled:
        return self

    async def __anext__(self) -> bytes:
        try:
            chunk = await self._chunks.__anext__()
        except StopAsyncIteration:
            self._tell(None, whole=True)
            raise
        except UpstreamFailed as failure:
            self._tell(failure, whole=False)
            raise
        except BaseException:
            self._tell(None, whole=False)
            raise
        self.size += len(chunk)
        if self._hear is not None:
            self._hear(chunk)
        return chunk

    async def aclose(self) -> None:
        """Let go of the upstream; harmless after the end."""
        self._tell(None, whole=False)
        await let_go(self._chunks, self._linger)

    def late(self) -> None:
        """The answer that it should bring does not come in time; it may still come."""
        tell = self._late or getattr(self._chunks, "late", None)
        if tell is not None:
            tell()

    def drop(self) -> None:
        """Break the stream off: its reader finds it at its end."""
        drop = getattr(self._chunks, "drop", None)
        if drop is not None:
            drop()

    def _tell(self, failure: UpstreamFailed | None, *, whole: bool) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(failure, whole)


async def let_go(chunks: AsyncIterator[bytes], linger: float) -> None:
    """Give a stream up: at once, or unread after `linger` seconds; harmless after its end."""
    drop = getattr(chunks, "drop", None)
    if linger > 0 and drop is not None:
        asyncio.get_running_loop().call_later(linger, drop)
        return
    close = getattr(chunks, "aclose", None)
    if close is not None:
        await close()


async def heard_out(
    call: Call, reply: Reply, *, patience: float, by_rule: BodyVerdicts | None = None
) -> Reply | None:
    """Read a write's stream of events whose caller has left, for `patience` seconds at most.

    Its head may come long before the tool ends, and hanging up would stop that.  The answer, whole
    and judged, where the events are MCP's; else the stream itself, once it has come to its end.
    None if neither.
    """
    assert not isinstance(reply.body, bytes)
    speaks_mcp = call.kind is Kind.MCP and call.rpc_id is not None
    ear = Ear(call.rpc_id or b"", by_rule) if speaks_mcp else None
    whole = False
    try:
        async with asyncio.timeout(patience):
            async for chunk in reply.body:
                if ear is not None and ear.feed(chunk):
                    break
            whole = True
    except (TimeoutError, UpstreamFailed):
        whole = False
    finally:
        await let_go(reply.body, 0.0)
    if ear is None:
        return reply if whole else None
    if ear.message is None:
        return None
    return Reply(200, [(b"content-type", JSON)], ear.message, verdict=ear.verdict)
