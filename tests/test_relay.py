from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from proxy.core.model import Headers, Outbound, Reply
from proxy.errors import UpstreamFailed
from proxy.relay import Sender, Settled

OUT = Outbound("POST", "/", [])


class Upstream:
    def __init__(self, failure: UpstreamFailed | None = None) -> None:
        self.failure = failure
        self.sent: list[tuple[Headers, float, float]] = []

    async def send(
        self,
        outbound: Outbound,
        extra: Headers,
        *,
        deadline: float,
        linger: float = 0.0,
        buffer: int | None = None,
    ) -> Reply:
        self.sent.append((extra, deadline, linger))
        if self.failure:
            raise self.failure
        return Reply(200)

    async def connect(self, *, deadline: float) -> None: ...

    async def aclose(self, grace: float) -> None: ...


def sender(upstream: Upstream) -> Sender:
    return Sender(upstream, [(b"x-request-id", b"r")], deadline=9.0, linger=30.0)


async def test_only_the_leg_that_can_run_the_tool_lingers_and_counts_as_dispatched() -> None:
    upstream = Upstream()
    send = sender(upstream)

    await send(OUT, dispatches=False)
    before = send.dispatched
    await send(OUT)

    assert (before, send.dispatched) == (False, True)
    assert [linger for _, _, linger in upstream.sent] == [0.0, 30.0]
    assert {deadline for _, deadline, _ in upstream.sent} == {9.0}


async def test_a_dispatching_leg_that_failed_was_begun_all_the_same() -> None:
    send = sender(Upstream(UpstreamFailed("reset", "cut", sent=True)))

    with pytest.raises(UpstreamFailed):
        await send(OUT)

    assert send.dispatched


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
    ends = Ends()
    body = Settled(Chunks(b"ab", b"c"), ends)

    assert [chunk async for chunk in body] == [b"ab", b"c"]
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
