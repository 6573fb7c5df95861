"""A stream between an upstream and a reader of different speed."""

from __future__ import annotations

import asyncio

import pytest

from proxy.adapters.upstream.body import HIGH_WATER, StreamedBody
from proxy.errors import UpstreamFailed


class Source:
    def __init__(self) -> None:
        self.told: list[str] = []

    def pause(self) -> None:
        self.told.append("pause")

    def resume(self) -> None:
        self.told.append("resume")

    def drop(self) -> None:
        self.told.append("drop")


async def test_what_piled_up_comes_at_once() -> None:
    stream = StreamedBody(Source())
    stream.feed(b"a")
    stream.feed(b"b")
    assert stream.buffered == 2
    assert await anext(stream) == b"ab"
    assert stream.buffered == 0


async def test_a_waiting_reader_is_woken() -> None:
    stream = StreamedBody(Source())
    reading = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    stream.feed(b"a")
    stream.end()
    assert await reading == b"a"
    assert [chunk async for chunk in stream] == []


async def test_the_source_is_held_back_above_the_mark_until_all_is_taken() -> None:
    source = Source()
    stream = StreamedBody(source)
    stream.feed(b"a" * HIGH_WATER)
    assert source.told == []
    stream.feed(b"a")
    assert source.told == ["pause"]
    await anext(stream)
    assert source.told == ["pause", "resume"]


async def test_a_failure_comes_after_the_bytes_before_it_and_stays() -> None:
    stream = StreamedBody(Source())
    stream.feed(b"a")
    stream.end(UpstreamFailed("reset", "cut", sent=True))
    assert await anext(stream) == b"a"
    for _ in range(2):
        with pytest.raises(UpstreamFailed, match="cut"):
            await anext(stream)


async def test_closing_before_the_end_drops_the_source_once() -> None:
    source = Source()
    stream = StreamedBody(source)
    stream.feed(b"a")
    await stream.aclose()
    await stream.aclose()
    assert source.told == ["drop"]
    assert [chunk async for chunk in stream] == []


async def test_closing_after_the_end_drops_nothing() -> None:
    source = Source()
    stream = StreamedBody(source)
    stream.end()
    await stream.aclose()
    assert source.told == []


async def test_closing_wakes_a_reader() -> None:
    stream = StreamedBody(Source())
    reading = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    await stream.aclose()
    with pytest.raises(StopAsyncIteration):
        await reading


async def test_a_reader_that_left_is_no_trouble() -> None:
    stream = StreamedBody(Source())
    reading = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    reading.cancel()
    stream.feed(b"a")
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert await anext(stream) == b"a"
