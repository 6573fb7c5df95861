from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from backends.base import close
from proxy.core.model import Call, Head, Headers, Kind, Outbound, Reply
from proxy.errors import UpstreamFailed
from proxy.relay import Sender, Settled, heard_out
from tests.fakes import FakeUpstream

OUT = Outbound("POST", "/", [])


def sender(upstream: FakeUpstream) -> Sender:
    return Sender(upstream, [(b"x-request-id", b"r")], deadline=9.0, linger=30.0)


async def test_only_the_leg_that_can_run_the_tool_lingers_and_counts_as_dispatched() -> None:
    upstream = FakeUpstream()
    send = sender(upstream)

    await send(OUT, dispatches=False)
    before = send.dispatched
    await send(OUT)

    assert (before, send.dispatched) == (False, True)
    assert [sent.linger for sent in upstream.sent] == [0.0, 30.0]
    assert {sent.deadline for sent in upstream.sent} == {9.0}


async def test_a_dispatching_leg_that_failed_was_begun_all_the_same() -> None:
    send = sender(FakeUpstream(fails=UpstreamFailed("reset", "cut", sent=True)))

    with pytest.raises(UpstreamFailed):
        await send(OUT)

    assert send.dispatched


class Asked:
    """A `late` hook: says what it was made to say, and counts."""

    def __init__(self, says: bool = True) -> None:
        self.says = says
        self.times = 0

    def __call__(self) -> bool:
        self.times += 1
        return self.says


async def test_only_a_leg_that_can_run_the_tool_may_be_late() -> None:
    upstream, asked = FakeUpstream(), Asked()
    send = Sender(upstream, [], deadline=9.0, linger=30.0, late=asked)

    await send(OUT, dispatches=False)
    await send(OUT)

    first, second = [sent.late for sent in upstream.sent]
    assert first is None
    assert second is not None
    assert second()


async def test_without_a_time_to_linger_nothing_is_late() -> None:
    upstream = FakeUpstream()
    await Sender(upstream, [], deadline=9.0, linger=0.0, late=Asked())(OUT)

    assert [sent.late for sent in upstream.sent] == [None]


@pytest.mark.parametrize("says", [True, False])
async def test_an_attempt_is_asked_once_and_that_holds_for_all_of_its_legs(says: bool) -> None:
    """Two may be under way at once."""
    upstream, asked = FakeUpstream(), Asked(says)
    send = Sender(upstream, [], deadline=9.0, linger=30.0, late=asked)
    await send(OUT)
    await send(OUT)

    assert [late() for *_, late in upstream.sent if late is not None] == [says, says]
    assert asked.times == 1


class Ends:
    def __init__(self) -> None:
        self.seen: list[tuple[str | None, bool]] = []

    def __call__(self, failure: UpstreamFailed | None, whole: bool) -> None:
        self.seen.append((failure.why if failure else None, whole))


class Chunks:
    """An iterator of chunks, then perhaps a failure; remembers whether it was closed."""

    def __init__(self, *chunks: bytes, failure: BaseException | None = None) -> None:
        self._chunks = list(chunks)
        self._failure = failure
        self.closed = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._chunks:
            return self._chunks.pop(0)
        raise self._failure or StopAsyncIteration

    async def aclose(self) -> None:
        self.closed = True


async def test_a_whole_stream_is_told_once() -> None:
    ends, heard = Ends(), list[bytes]()
    body = Settled(Chunks(b"ab", b"c"), ends, hear=heard.append)

    assert [chunk async for chunk in body] == [b"ab", b"c"] == heard
    await body.aclose()

    assert body.size == 3
    assert ends.seen == [(None, True)]


async def test_a_broken_stream_tells_the_failure() -> None:
    ends = Ends()
    body = Settled(Chunks(b"ab", failure=UpstreamFailed("reset", "cut", sent=True)), ends)

    with pytest.raises(UpstreamFailed):
        [chunk async for chunk in body]
    await body.aclose()

    assert ends.seen == [("reset", False)]


async def test_a_stream_closed_before_its_first_chunk_is_told_too() -> None:
    """The permit of its attempt would be lost otherwise."""
    ends, chunks = Ends(), Chunks(b"ab")
    await Settled(chunks, ends).aclose()

    assert ends.seen == [(None, False)]
    assert chunks.closed


async def test_a_bug_while_streaming_is_told_as_cut() -> None:
    ends = Ends()
    with pytest.raises(RuntimeError):
        [chunk async for chunk in Settled(Chunks(failure=RuntimeError("odd")), ends)]

    assert ends.seen == [(None, False)]


async def test_chunks_without_a_close_of_their_own_are_fine() -> None:
    class Plain:
        def __aiter__(self) -> AsyncIterator[bytes]:
            return self

        async def __anext__(self) -> bytes:
            raise StopAsyncIteration

    ends = Ends()
    await Settled(Plain(), ends).aclose()

    assert ends.seen == [(None, False)]


class Silent:
    """A stream that gives one chunk and then nothing; remembers how it was let go."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self.closed = False
        self._left = [b"one"]

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self._left:
            await asyncio.Event().wait()
        return self._left.pop()

    def drop(self) -> None:
        self.ended.set()

    async def aclose(self) -> None:
        self.closed = True


class Streaming(FakeUpstream):
    def __init__(self, body: AsyncIterator[bytes]) -> None:
        super().__init__()
        self.body = body

    async def send(self, outbound: Outbound, extra: Headers, **more: Any) -> Reply:
        return Reply(200, [], self.body)


async def test_what_is_to_leave_later_does_so_and_is_one_exchange() -> None:
    upstream = FakeUpstream()
    outbound = Outbound("GET", "/", [], whole=True, after=0.001)
    far = asyncio.get_running_loop().time() + 60

    await Sender(upstream, [], deadline=far, linger=3.0)(outbound)

    assert [(sent.outbound.target, sent.linger) for sent in upstream.sent] == [("/", 3.0)]


@pytest.mark.parametrize("left", [-1.0, 0.001])
async def test_nobody_waits_past_the_deadline_to_ask_later(left: float) -> None:
    upstream = FakeUpstream()
    soon = asyncio.get_running_loop().time() + left

    async with asyncio.timeout(20):
        send = Sender(upstream, [], deadline=soon, linger=0.0)
        await send(Outbound("GET", "/", [], after=1e6), dispatches=False)

    assert [sent.deadline for sent in upstream.sent] == [soon]


WHOLE = Outbound("POST", "/", [], whole=True)


def hasty(body: AsyncIterator[bytes], linger: float) -> Sender:
    past = asyncio.get_running_loop().time()
    return Sender(Streaming(body), [], deadline=past, linger=linger)


async def test_a_stream_that_the_backend_reads_is_bounded_by_the_deadline() -> None:
    """Servers open their stream at once and fall silent afterwards."""
    stream = Silent()
    reply = await hasty(stream, 0.0)(WHOLE)

    assert not isinstance(reply.body, bytes)
    with pytest.raises(UpstreamFailed) as caught:
        [chunk async for chunk in reply.body]
    await close(reply.body)

    assert (caught.value.why, caught.value.sent) == ("timeout", True)
    assert stream.closed


async def test_a_late_stream_of_a_write_keeps_its_connection_for_a_while() -> None:
    stream = Silent()
    reply = await hasty(stream, 1e-6)(WHOLE)

    assert not isinstance(reply.body, bytes)
    with pytest.raises(UpstreamFailed):
        [chunk async for chunk in reply.body]
    await close(reply.body)

    assert not stream.closed
    await stream.ended.wait()


class Slow(Silent):
    """A stream that gives a chunk, and another one once it may go on, and then ends."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Event()
        self.asked = 0

    async def __anext__(self) -> bytes:
        self.asked += 1
        if self.asked == 2:
            await self.go.wait()
            return b"two"
        if self.asked == 3:
            raise StopAsyncIteration
        return b"one"


class Going(Asked):
    """Lets a stream go on when asked."""

    def __init__(self, stream: Slow) -> None:
        super().__init__()
        self._stream = stream

    def __call__(self) -> bool:
        self._stream.go.set()
        return super().__call__()


def later(body: AsyncIterator[bytes], late: Asked, *, seconds: float, linger: float) -> Sender:
    deadline = asyncio.get_running_loop().time() + seconds
    return Sender(Streaming(body), [], deadline=deadline, linger=linger, late=late)


@pytest.mark.parametrize("seconds", [0.02, 0.0], ids=["it passes", "it has passed"])
async def test_a_stream_is_read_past_its_deadline_by_who_waits_on(seconds: float) -> None:
    stream = Slow()
    asked = Going(stream)
    reply = await later(stream, asked, seconds=seconds, linger=30.0)(WHOLE)

    assert not isinstance(reply.body, bytes)
    assert [chunk async for chunk in reply.body] == [b"one", b"two"]
    await close(reply.body)
    assert (asked.times, stream.closed) == (1, True)


async def test_waiting_on_for_a_stream_has_an_end_and_so_has_its_connection() -> None:
    stream, asked = Silent(), Asked()
    reply = await later(stream, asked, seconds=0.0, linger=0.02)(WHOLE)

    assert not isinstance(reply.body, bytes)
    with pytest.raises(UpstreamFailed) as caught:
        [chunk async for chunk in reply.body]
    await close(reply.body)

    assert (caught.value.why, caught.value.sent) == ("timeout", True)
    assert (asked.times, stream.closed) == (1, True)


async def test_a_stream_that_nobody_waits_on_for_keeps_its_connection_for_a_while() -> None:
    stream, asked = Silent(), Asked(False)
    reply = await later(stream, asked, seconds=0.0, linger=0.02)(WHOLE)

    assert not isinstance(reply.body, bytes)
    with pytest.raises(UpstreamFailed) as caught:
        [chunk async for chunk in reply.body]
    await close(reply.body)

    assert caught.value.why == "timeout"
    assert (asked.times, stream.closed) == (1, False)
    await stream.ended.wait()


async def test_an_attempt_that_was_late_for_its_head_is_not_asked_again_for_its_body() -> None:
    class LateHead(Streaming):
        async def send(self, outbound: Outbound, extra: Headers, **more: Any) -> Reply:
            assert more["late"]()
            return await super().send(outbound, extra)

    stream = Slow()
    asked = Going(stream)
    deadline = asyncio.get_running_loop().time()
    send = Sender(LateHead(stream), [], deadline=deadline, linger=30.0, late=asked)
    reply = await send(WHOLE)

    assert not isinstance(reply.body, bytes)
    assert [chunk async for chunk in reply.body] == [b"one", b"two"]
    assert asked.times == 1


async def test_a_stream_that_ends_in_time_asks_nobody() -> None:
    asked = Asked()
    reply = await later(Chunks(b"a", b"b"), asked, seconds=30.0, linger=30.0)(WHOLE)

    assert not isinstance(reply.body, bytes)
    assert [chunk async for chunk in reply.body] == [b"a", b"b"]
    assert asked.times == 0


async def test_a_stream_in_time_is_read_and_closed_as_ever() -> None:
    chunks = Chunks(b"a", b"b")
    send = Sender(Streaming(chunks), [], deadline=float("inf"), linger=30.0)

    reply = await send(WHOLE)

    assert not isinstance(reply.body, bytes)
    assert [chunk async for chunk in reply.body] == [b"a", b"b"]
    await close(reply.body)
    assert chunks.closed


async def test_a_stream_for_the_caller_is_not_touched() -> None:
    stream = Silent()

    assert (await hasty(stream, 0.0)(OUT)).body is stream


async def test_chunks_that_cannot_be_closed_are_let_go() -> None:
    class Plain:
        def __aiter__(self) -> AsyncIterator[bytes]:
            return self

        async def __anext__(self) -> bytes:
            raise StopAsyncIteration

    reply = await hasty(Plain(), 1.0)(WHOLE)

    assert not isinstance(reply.body, bytes)
    await close(reply.body)


async def test_a_reader_who_leaves_gives_the_upstream_its_time_to_finish() -> None:
    stream, ends = Silent(), Ends()
    body = Settled(stream, ends, linger=1e-6)

    assert await body.__anext__() == b"one"
    await body.aclose()

    assert ends.seen == [(None, False)]
    assert not stream.closed
    await stream.ended.wait()


async def test_an_answer_that_came_whole_needs_no_bound() -> None:
    reply = await Sender(FakeUpstream(), [], deadline=0.0, linger=30.0, late=Asked())(WHOLE)

    assert reply.body == b""


@pytest.mark.parametrize(
    ("failure", "whole"), [(None, True), (UpstreamFailed("reset", "cut", sent=True), False)]
)
async def test_events_that_are_nobodys_language_are_heard_to_their_end(
    failure: UpstreamFailed | None, whole: bool
) -> None:
    chunks = Chunks(b"data: 1\n\n", b"data: 2\n\n", failure=failure)
    reply = Reply(200, [(b"content-type", b"text/event-stream")], chunks)
    call = Call(Kind.FUNCTION, Head("POST", "/retell", "", {}, [], b"localhost", "127.0.0.1"))

    assert await heard_out(call, reply, patience=9.0) is (reply if whole else None)
    assert chunks.closed
