"""An answer that streams as events always comes to its end: the response that its caller waits for.

A client whose stream ends without one waits for ever, or fails as a whole.  So where the arm
breaks off, or says nothing for too long, somebody else has the last word.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeAlias

from proxy.core.dialects import sse
from proxy.core.dialects.answers import EVENTS
from proxy.core.dialects.ear import Answered
from proxy.core.dialects.headers import media_type
from proxy.core.model import Reply, Verdict
from proxy.core.verdict import LATE, judge_failure
from proxy.errors import UpstreamFailed
from proxy.hedged import Start
from proxy.relay import let_go

CAP = 300.0
"""Seconds after which a tool's stream has its last word, however much its arm still says."""

STREAM_END = 1.0
"""Seconds that a stream may stay open once it has answered."""

Finish: TypeAlias = Callable[[Verdict], Awaitable[bytes]]
"""The events that end a stream whose arm came to no answer; told how it failed."""


class Finale:
    """A stream of events, in whole events, up to and with its answer.

    `first`: clock seconds (the loop's) by which something must have been said, None if that may
    take as long as it likes; from then on every event gives `patience` seconds more.  With
    `linger`, a stream whose reader leaves before the answer is read on for that many seconds.
    `resumable`: the server may end the stream after an event with an ID, and its reader comes back
    for the answer with a GET (MCP up to 2025-11-25, SEP-1699).
    """

    def __init__(
        self,
        chunks: AsyncIterator[bytes],
        rpc_id: bytes,
        finish: Finish,
        *,
        start: Start,
        first: float | None = None,
        patience: float = 0.0,
        linger: float = 0.0,
        resumable: bool = False,
    ) -> None:
        self._chunks = chunks
        self._answered = Answered(rpc_id)
        self._finish = finish
        self._start = start
        self._until = first
        self._cap = 0.0 if first is None else first + CAP
        self._patience = patience
        self._linger = linger
        self._resumable = resumable
        self._held = b""  # the beginning of an event
        self._step: asyncio.Task[bytes | UpstreamFailed | None] | None = None
        self._over = False

    def __aiter__(self) -> Finale:
        return self

    async def __anext__(self) -> bytes:
        while not self._over:
            try:
                chunk = await self._next()
            except StopAsyncIteration:
                self._over = True
                if self._answered.yes or (self._resumable and self._answered.numbered):
                    break
                short = UpstreamFailed("body", "the stream ended without an answer", sent=True)
                return await self._last_word(judge_failure(short, dispatched=True))
            except UpstreamFailed as failure:
                self._over = True
                if self._answered.yes:  # What its caller waited for is there.
                    break
                return await self._last_word(judge_failure(failure, dispatched=True))
            except TimeoutError:
                if self._answered.yes:
                    await self._cut()
                    break
                self._over = True
                late = getattr(self._chunks, "late", None)
                if late is not None:
                    late()
                await self._leave()
                return await self._last_word(LATE)
            if ready := self._whole(chunk):
                return ready
        if self._held:
            held, self._held = self._held, b""
            return held
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """The reader leaves; harmless after the end."""
        if not self._over:
            self._over = True
            await self._leave()

    def drop(self) -> None:
        """Break the arm's stream off; the last word is still said."""
        drop = getattr(self._chunks, "drop", None)
        if drop is not None:
            drop()

    async def _next(self) -> bytes:
        """The next chunk; raises TimeoutError, and then the chunk may still come."""
        if self._until is None and not self._answered.yes:
            return await self._chunks.__anext__()
        if self._step is None:
            self._step = self._start(_step(self._chunks), "stream")
        step = self._step
        now = asyncio.get_running_loop().time()
        await asyncio.wait({step}, timeout=max(0.0, self._patient_until() - now))
        if not step.done():
            raise TimeoutError
        self._step = None
        chunk = step.result()
        if chunk is None:
            raise StopAsyncIteration
        if isinstance(chunk, UpstreamFailed):
            raise chunk
        return chunk

    def _patient_until(self) -> float:
        """Whoever has asked its client something waits longer than its tool works."""
        until = self._until
        if until is None or (self._answered.asks and not self._answered.yes):
            return self._cap
        return min(until, self._cap)

    def _whole(self, chunk: bytes) -> bytes:
        """What there is of whole events; the rest is held until it is whole."""
        was, heard = self._answered.yes, self._answered.feed(chunk)
        now = asyncio.get_running_loop().time()
        if self._answered.yes:
            if not was:
                self._until = self._cap = now + STREAM_END
        elif heard and self._until is not None:
            self._until = now + self._patience
        data = self._held + chunk if self._held else chunk
        end = len(data) if self._answered.lost else sse.end_of_events(data)
        self._held = data[end:]
        return self._answered.mended or data[:end]

    async def _cut(self) -> None:
        """All that was asked for has been said: the stream ends well, though it stays open."""
        self._over = True
        drop = getattr(self._chunks, "drop", None)
        if drop is None:
            await self._leave()
            return
        drop()
        if self._step is not None:
            await asyncio.wait({self._step})
        async for _ in self._chunks:
            pass

    async def _last_word(self, verdict: Verdict) -> bytes:
        self._held = b""
        return await self._finish(verdict)

    async def _leave(self) -> None:
        """Nobody reads on; what only reads may be broken off, the other is heard to its end."""
        step, self._step = self._step, None
        if self._linger > 0 and not self._answered.yes:
            self._start(_read_out(self._chunks, step, self._linger), "stream of a write")
            return
        if step is not None:
            step.cancel()
            await asyncio.wait({step})
        await let_go(self._chunks, 0.0)


async def _step(chunks: AsyncIterator[bytes]) -> bytes | UpstreamFailed | None:
    """The next chunk, None at the end: nobody may be left to hear an exception."""
    try:
        return await chunks.__anext__()
    except StopAsyncIteration:
        return None
    except UpstreamFailed as failure:
        return failure


async def _read_out(
    chunks: AsyncIterator[bytes], step: Awaitable[object] | None, patience: float
) -> None:
    try:
        async with asyncio.timeout(patience):
            if step is not None:
                await step
            async for _ in chunks:
                pass
    except (TimeoutError, UpstreamFailed):
        pass  # Whoever listens on the way has been told.
    finally:
        await let_go(chunks, 0.0)


def as_events(reply: Reply) -> bytes:
    """A whole answer to an MCP caller as the events that end its stream."""
    assert isinstance(reply.body, bytes)
    return reply.body if media_type(reply.headers) == EVENTS else sse.render(reply.body)
