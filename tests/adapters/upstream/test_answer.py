"""Answers without a body, whole and streamed, cut and malformed."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from tests.adapters.upstream.origin import (
    Client,
    Peer,
    answering,
    failing,
    get,
    ok,
    read,
    until,
)

Origins = Any


# -- Answers without a body.


async def test_the_answer_to_a_head_tells_its_length(origins: Origins, client: Client) -> None:
    origin = await origins(answering(then=b"HTTP/1.1 200 OK\r\nContent-Length: 700000\r\n\r\n"))
    upstream = client.upstream(origin.port)
    for _ in range(2):
        reply = await client.send(upstream, get(method="HEAD"))
        assert (reply.body, reply.length) == (b"", 700_000)
    assert upstream.opened_total == 1


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", True),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", True),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", True),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", False),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello", False),
        (b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", False),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nhello", False),
    ],
)
async def test_204_and_304_have_no_body_whatever_they_say(
    origins: Origins, client: Client, answer: bytes, kept: bool
) -> None:
    origin = await origins(answering(then=answer))
    upstream = client.upstream(origin.port)
    for number in (1, 2):
        reply = await client.send(upstream)
        assert (reply.body, reply.length) == (b"", None)
        assert upstream.opened_total == (1 if kept else number)


# -- Streams.


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


async def test_events_come_as_they_are_sent(origins: Origins, client: Client) -> None:
    go: asyncio.Queue[bytes] = asyncio.Queue()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: Text/Event-Stream; charset=utf-8\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        while event := await go.get():
            await peer.send(b"%x\r\n%b\r\n" % (len(event), event))
        await peer.send(b"0\r\n\r\n")
        await peer.gone()

    origin = await origins(script)
    upstream = client.upstream(origin.port)
    reply = await client.send(upstream)
    assert not isinstance(reply.body, bytes)
    assert upstream.busy == 1
    for event in (b"data: 1\n\n", b"data: 2\n\n"):
        go.put_nowait(event)
        assert await anext(reply.body) == event
    go.put_nowait(b"")
    assert await read(reply) == b""
    assert (upstream.busy, upstream.idle) == (0, 1)


async def test_a_stream_outlives_the_deadline_but_not_its_silence(
    origins: Origins, client: Client
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED + b"1\r\na\r\n")
        await peer.gone()

    origin = await origins(script)
    upstream = client.upstream(origin.port, stall=60.0)
    reply = await client.send(upstream, buffer=0)
    assert not isinstance(reply.body, bytes)
    assert await anext(reply.body) == b"a"
    client.clock.ahead += 30.0
    waiting = asyncio.ensure_future(anext(reply.body))
    await asyncio.sleep(0.02)
    assert not waiting.done()
    client.clock.ahead += 60.0  # The first look finds what came before, the second nothing.
    await asyncio.sleep(0.02)
    client.clock.ahead += 60.0
    failure = await failing(waiting)
    assert (failure.why, failure.sent, upstream.busy) == ("timeout", True, 0)


@pytest.mark.parametrize(
    ("buffer", "size", "streamed"),
    [
        (None, 262_144, False),
        (None, 262_145, True),
        (100, 100, False),
        (100, 101, True),
        (0, 1, True),
        (0, 0, False),
    ],
)
@pytest.mark.parametrize("chunked", [False, True])
async def test_an_answer_is_streamed_if_it_is_larger_than_the_buffer(
    origins: Origins, client: Client, buffer: int | None, size: int, streamed: bool, chunked: bool
) -> None:
    body = os.urandom(size)
    answer = CHUNKED + b"%x\r\n" % size + body + b"\r\n" * bool(size) + b"0\r\n\r\n" * bool(size)
    if not size:
        answer = CHUNKED + b"0\r\n\r\n"
    origin = await origins(answering(then=answer if chunked else ok(body)))
    upstream = client.upstream(origin.port)
    for _ in range(2):
        reply = await client.send(upstream, buffer=buffer)
        streamed = streamed or (chunked and buffer == 0)
        assert isinstance(reply.body, bytes) is not streamed
        assert reply.length == (size if streamed and not chunked else None)
        assert await read(reply) == body
    assert upstream.opened_total == 1


async def test_giving_a_stream_up_closes_its_connection(origins: Origins, client: Client) -> None:
    gone = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nabc")
        await peer.gone()
        gone.set()

    origin = await origins(script)
    upstream = client.upstream(origin.port)
    reply = await client.send(upstream)
    assert not isinstance(reply.body, bytes)
    assert await anext(reply.body) == b"abc"
    await reply.body.aclose()  # type: ignore[attr-defined]
    assert (upstream.busy, upstream.idle) == (0, 0)
    await gone.wait()
    with pytest.raises(StopAsyncIteration):
        await anext(reply.body)


async def test_a_stream_that_nobody_holds_closes_its_connection(
    origins: Origins, client: Client
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nabc")
        await peer.gone()

    origin = await origins(script)
    upstream = client.upstream(origin.port)
    reply = await client.send(upstream)
    assert upstream.busy == 1
    del reply
    await until(lambda: upstream.busy == 0)


async def test_a_slow_reader_holds_the_upstream_back(origins: Origins, client: Client) -> None:
    """60 MB pass through, and never more than a read beyond the mark is kept here."""
    block = os.urandom(1_000_000)
    sent = 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        peer.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 60000000\r\n\r\n")
        for _ in range(60):
            peer.writer.write(block)
            await peer.writer.drain()
            sent += len(block)
        await peer.gone()

    origin = await origins(script)
    upstream = client.upstream(origin.port)
    reply = await client.send(upstream)
    stream: Any = reply.body
    await until(lambda: stream.buffered > 65_536)
    for _ in range(50):
        await asyncio.sleep(0)
    assert stream.buffered <= 65_536 + 262_144
    assert sent < 30_000_000  # The rest is still there: kernels buffer some megabytes.
    size = most = 0
    async for chunk in stream:
        size += len(chunk)
        await asyncio.sleep(0)
        most = max(most, stream.buffered)
    assert size == 60_000_000
    assert most <= 65_536 + 262_144
    assert (upstream.busy, upstream.idle) == (0, 1)


WHOLE = {
    "counted": b"HTTP/1.1 200 OK\r\nX-A: b\r\nContent-Length: 5\r\n\r\nhello",
    "chunked": CHUNKED + b"5;a=b\r\nhello\r\n0\r\nT: u\r\n\r\n",
    "interim": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "events": ok(b"hello", b"Content-Type: text/event-stream"),
}


@pytest.mark.parametrize("kind", WHOLE)
async def test_an_answer_cut_at_any_byte_is_never_a_clean_one(
    origins: Origins, client: Client, kind: str
) -> None:
    whole = WHOLE[kind]
    cuts = iter(range(len(whole)))

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(whole[: next(cuts)])

    origin = await origins(script)
    upstream = client.upstream(origin.port)

    async def exchange() -> None:
        await read(await client.send(upstream))

    for _ in whole:
        failure = await failing(exchange())
        assert (failure.why, failure.sent) == ("reset", True)


async def test_a_reset_in_an_answer_that_ends_with_the_connection_is_no_end(
    origins: Origins, client: Client
) -> None:
    more = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        await more.wait()
        peer.reset()

    origin = await origins(script)
    upstream = client.upstream(origin.port)
    reply = await client.send(upstream, buffer=0)
    assert not isinstance(reply.body, bytes)
    assert await anext(reply.body) == b"half"
    more.set()
    assert (await failing(anext(reply.body))).sent


async def test_an_answer_that_ends_with_the_connection_is_whole(
    origins: Origins, client: Client
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\nall ", b"of it")

    origin = await origins(script)
    upstream = client.upstream(origin.port)
    assert (await client.send(upstream)).body == b"all of it"
    assert upstream.idle == 0


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 17 + ok(),
        b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000 + b"\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 129 + b"Content-Length: 0\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n",
    ],
)
async def test_an_answer_that_is_no_http_is_a_failure_and_ends_the_connection(
    origins: Origins, client: Client, answer: bytes
) -> None:
    origin = await origins(answering(answer))
    upstream = client.upstream(origin.port)
    failure = await failing(client.send(upstream))
    assert (failure.why, failure.sent) == ("reset", True)
    assert (upstream.busy, upstream.idle) == (0, 0)


@pytest.mark.parametrize(
    "before",
    [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * 16],
)
async def test_interim_answers_are_skipped(origins: Origins, client: Client, before: bytes) -> None:
    origin = await origins(answering(then=before + ok(b"final")))
    upstream = client.upstream(origin.port)
    for _ in range(2):
        reply = await client.send(upstream)
        assert (reply.status, reply.headers, reply.body) == (200, [], b"final")
    assert upstream.opened_total == 1
