"""The upstream as the handler sees it, against raw origins."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any

import pytest

from proxy.core.model import Outbound, Reply
from proxy.errors import UpstreamFailed
from tests.adapters.upstream.origin import (
    Client,
    Peer,
    answering,
    get,
    ok,
    post,
    read,
    until,
)

Origins = Any


async def failing(awaitable: Any) -> UpstreamFailed:
    with pytest.raises(UpstreamFailed) as caught:
        await awaitable
    return caught.value


# -- Requests on the wire.


async def test_a_post_is_byte_exact_on_the_wire(origins: Origins, client: Client) -> None:
    seen: list[bytes] = []

    async def script(peer: Peer) -> None:
        seen.append(await peer.request())
        await peer.send(ok(b"done"))

    origin = await origins(script)
    outbound = Outbound(
        "POST",
        "/a%20b?x=1&y=%C3%A9",
        [(b"X-Retell-Signature", b"v=1,d=ab"), (b"content-type", b"application/json")],
        b'{"name": "caf\xe9"}',
    )
    reply = await client.upstream(origin.port).send(
        outbound, [(b"x-request-id", b"r1")], deadline=client.soon()
    )
    assert reply == Reply(200, [], b"done", None, b"OK")
    assert seen == [
        b"POST /a%20b?x=1&y=%C3%A9 HTTP/1.1\r\n"
        b"Host: 127.0.0.1:" + str(origin.port).encode() + b"\r\n"
        b"X-Retell-Signature: v=1,d=ab\r\n"
        b"content-type: application/json\r\n"
        b"x-request-id: r1\r\n"
        b"Content-Length: 16\r\n\r\n"
        b'{"name": "caf\xe9"}'
    ]


async def test_a_body_of_megabytes_arrives_whole(origins: Origins, client: Client) -> None:
    body = os.urandom(5_000_000)
    seen: list[bytes] = []

    async def script(peer: Peer) -> None:
        seen.append(await peer.request())
        await peer.send(ok())

    origin = await origins(script)
    await client.send(client.upstream(origin.port), post(body))
    assert seen[0].endswith(b"\r\n\r\n" + body)


async def test_a_request_that_could_be_two_never_leaves(origins: Origins, client: Client) -> None:
    origin = await origins(answering(then=ok()))
    upstream = client.upstream(origin.port)
    failure = await failing(client.send(upstream, post(target="/ HTTP/1.1\r\nX: y")))
    assert (failure.why, failure.sent) == ("config", False)
    assert origin.connections == 0


# -- Keeping connections.


async def test_a_thousand_requests_one_after_another_open_one_connection(
    origins: Origins, client: Client
) -> None:
    origin = await origins(answering(then=ok(b"x")))
    upstream = client.upstream(origin.port)
    for _ in range(1000):
        await client.send(upstream)
    assert (origin.connections, upstream.opened_total) == (1, 1)
    assert (upstream.busy, upstream.idle) == (0, 1)


async def test_requests_at_the_same_time_never_mix(origins: Origins, client: Client) -> None:
    async def script(peer: Peer) -> None:
        while request := await peer.request():
            await asyncio.sleep(0.001 * (len(request) % 3))
            await peer.send(ok(request.split(b"\r\n\r\n", 1)[1]))

    origin = await origins(script)
    upstream = client.upstream(origin.port, connections=20)

    async def one(number: int) -> None:
        body = b"call-%d" % number * (number % 5 + 1)
        assert (await client.send(upstream, post(body))).body == body

    for start in range(0, 200, 20):
        await asyncio.gather(*[one(number) for number in range(start, start + 20)])
    assert origin.connections == upstream.opened_total <= 20


async def test_the_last_used_connection_is_used_first(origins: Origins, client: Client) -> None:
    ports: list[int] = []

    async def script(peer: Peer) -> None:
        while await peer.request():
            ports.append(peer.writer.get_extra_info("peername")[1])
            await peer.send(ok())

    origin = await origins(script)
    upstream = client.upstream(origin.port)
    await asyncio.gather(*[client.send(upstream) for _ in range(3)])
    last = ports[-1]
    ports.clear()
    for _ in range(5):
        await client.send(upstream)
    assert len(set(ports)) == 1
    assert ports[0] == last


async def test_a_connection_idle_for_too_long_is_not_used(origins: Origins, client: Client) -> None:
    """The upstream may be closing it at this very moment."""
    origin = await origins(answering(then=ok()))
    upstream = client.upstream(origin.port, keepalive=4.0, connections=1)
    await client.send(upstream)
    client.clock.ahead += 4.0
    await client.send(upstream)
    assert upstream.opened_total == 2


async def test_the_sweep_closes_idle_connections_and_then_rests(
    origins: Origins, client: Client
) -> None:
    origin = await origins(answering(then=ok()))
    upstream = client.upstream(origin.port)
    await client.send(upstream)
    assert client.sweep.running
    client.clock.ahead += 5.0
    await until(lambda: upstream.idle == 0)
    await until(lambda: not client.sweep.running)
    await client.send(upstream)
    assert client.sweep.running


async def test_a_connection_that_the_origin_closed_is_never_used(
    origins: Origins, client: Client
) -> None:
    """Also if the loop has not seen the end yet: the kernel is asked."""
    listening = socket.create_server(("127.0.0.1", 0))
    upstream = client.upstream(listening.getsockname()[1])
    loop = asyncio.get_running_loop()

    async def answer() -> socket.socket:
        listening.setblocking(False)
        accepted, _ = await loop.sock_accept(listening)
        accepted.setblocking(False)
        await loop.sock_recv(accepted, 65_536)
        await loop.sock_sendall(accepted, ok(b"one"))
        return accepted

    first, _ = await asyncio.gather(answer(), client.send(upstream))
    assert upstream.idle == 1
    first.close()  # From here to the next request the loop does not turn.
    second, reply = await asyncio.gather(answer(), client.send(upstream))
    assert (reply.body, upstream.opened_total) == (b"one", 2)
    second.close()
    listening.close()


async def test_what_comes_while_idle_ends_the_connection(origins: Origins, client: Client) -> None:
    more = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(ok())
        await more.wait()
        await peer.send(ok(b"stray"))
        await peer.gone()

    origin = await origins(script)
    upstream = client.upstream(origin.port)
    await client.send(upstream)
    more.set()
    await until(lambda: upstream.idle == 0)
    more.set()
    assert (await client.send(upstream)).body == b""
    assert upstream.opened_total == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nConnection: foo, CLOSE\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok!",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n!",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n\r\n",
    ],
)
async def test_a_good_answer_is_delivered_and_its_connection_is_not_used_again(
    origins: Origins, client: Client, answer: bytes
) -> None:
    """Surplus bytes must cost neither the answer nor the next caller's answer."""
    origin = await origins(answering(answer))
    upstream = client.upstream(origin.port)
    for number in range(1, 4):
        reply = await client.send(upstream)
        assert (reply.status, reply.body) == (200, b"ok")
        assert (upstream.idle, upstream.opened_total) == (0, number)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nconnection: keep-alive\r\ncontent-length:2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX: y\r\n\r\n",
    ],
)
async def test_these_answers_leave_the_connection_usable(
    origins: Origins, client: Client, answer: bytes
) -> None:
    origin = await origins(answering(then=answer))
    upstream = client.upstream(origin.port)
    for _ in range(3):
        assert (await client.send(upstream)).body == b"ok"
    assert upstream.opened_total == 1


async def test_a_second_response_reaches_nobody(origins: Origins, client: Client) -> None:
    async def script(peer: Peer) -> None:
        while request := await peer.request():
            body = request.split(b"\r\n\r\n")[1]
            await peer.send(ok(body) + ok(b"poison"))

    origin = await origins(script)
    upstream = client.upstream(origin.port, connections=8)

    async def one(number: int) -> None:
        assert (
            await client.send(upstream, post(b"canary-%d" % number))
        ).body == b"canary-%d" % number

    for _ in range(7):
        await asyncio.gather(*[one(number) for number in range(8)])


async def test_an_answer_before_the_whole_request_was_read_is_relayed_and_ends_the_connection(
    origins: Origins, client: Client
) -> None:
    """Else the rest of the upload would stand where the origin expects a request."""

    async def script(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.send(ok(b"enough"))
        await asyncio.Event().wait()

    origin = await origins(script)
    upstream = client.upstream(origin.port)
    body = b"GET /smuggled HTTP/1.1\r\n\r\n" * 400_000
    assert (await client.send(upstream, post(body))).body == b"enough"
    assert upstream.idle == 0


# -- How an exchange fails, and whether it was sent.


async def test_a_refused_connection_was_not_sent(client: Client) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    failure = await failing(client.send(client.upstream(port)))
    assert (failure.why, failure.sent) == ("connect", False)


async def test_a_connection_that_does_not_come_about_in_time_was_not_sent(client: Client) -> None:
    with swallowing() as port:
        upstream = client.upstream(port, connect_timeout=0.05)
        failure = await failing(client.send(upstream))
        assert (failure.why, failure.sent) == ("connect", False)
        assert (upstream.busy, upstream.opened_total) == (0, 0)


async def test_a_passed_deadline_was_not_sent(origins: Origins, client: Client) -> None:
    origin = await origins(answering(then=ok()))
    upstream = client.upstream(origin.port)
    failure = await failing(client.send(upstream, deadline=client.clock.now()))
    assert (failure.why, failure.sent, origin.connections) == ("timeout", False, 0)


async def test_a_full_pool_was_not_sent(origins: Origins, client: Client) -> None:
    origin = await origins(lambda peer: peer.gone())
    upstream = client.upstream(origin.port, connections=2)
    running = [asyncio.create_task(client.send(upstream)) for _ in range(2)]
    await until(lambda: upstream.busy == 2)
    failure = await failing(client.send(upstream))
    assert (failure.why, failure.sent) == ("full", False)
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


@pytest.mark.parametrize("served_before", [0, 1])
@pytest.mark.parametrize("end", ["close", "reset"])
async def test_a_connection_that_dies_after_the_request_is_unknown_and_never_replayed(
    origins: Origins, client: Client, served_before: int, end: str
) -> None:
    """A booking may have been made."""
    seen: list[bytes] = []

    async def script(peer: Peer) -> None:
        for _ in range(served_before):
            seen.append(await peer.request())
            await peer.send(ok())
        seen.append(await peer.request())
        getattr(peer, end)()

    origin = await origins(script)
    upstream = client.upstream(origin.port)
    for _ in range(served_before):
        await client.send(upstream)
    failure = await failing(client.send(upstream, post(b"book")))
    assert (failure.why, failure.sent) == ("reset", True)
    assert len(seen) == served_before + 1
    assert (upstream.busy, upstream.idle) == (0, 0)


async def test_silence_is_a_timeout_after_sending(origins: Origins, client: Client) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        client.clock.ahead += 10.0
        await peer.gone()

    origin = await origins(script)
    upstream = client.upstream(origin.port)
    failure = await failing(client.send(upstream))
    assert (failure.why, failure.sent) == ("timeout", True)
    assert (upstream.busy, upstream.idle) == (0, 0)


async def test_a_body_that_drips_past_the_deadline_is_a_timeout(
    origins: Origins, client: Client
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", b"abc")
        client.clock.ahead += 10.0
        await peer.gone()

    origin = await origins(script)
    failure = await failing(client.send(client.upstream(origin.port)))
    assert (failure.why, failure.sent) == ("timeout", True)


WHOLE = {
    "counted": b"HTTP/1.1 200 OK\r\nX-A: b\r\nContent-Length: 5\r\n\r\nhello",
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nT: u\r\n\r\n",
    "interim": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "events": b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 5\r\n\r\nhello",
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


# -- Leaving, lingering.


class Ends:
    """Remembers how lingering exchanges ended."""

    def __init__(self) -> None:
        self.heard: list[Reply | UpstreamFailed] = []

    def __call__(self, end: Reply | UpstreamFailed) -> None:
        self.heard.append(end)


async def test_a_late_answer_is_heard_and_its_connection_kept(
    origins: Origins, client: Client
) -> None:
    finish = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        client.clock.ahead += 10.0
        await finish.wait()
        await peer.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 6\r\n\r\n",
            b"booked",
        )
        await answering(then=ok())(peer)

    origin = await origins(script)
    upstream = client.upstream(origin.port)
    ends = Ends()
    failure = await failing(client.send(upstream, linger=30.0, late=ends))
    assert (failure.why, failure.sent, upstream.busy) == ("timeout", True, 1)
    finish.set()
    await until(lambda: bool(ends.heard))
    (reply,) = ends.heard
    assert isinstance(reply, Reply)
    assert (reply.status, reply.body) == (200, b"booked")
    await client.send(upstream)
    assert upstream.opened_total == 1
    assert len(ends.heard) == 1


async def test_a_late_answer_that_is_too_large_is_told_by_its_size(
    origins: Origins, client: Client
) -> None:
    finish = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        client.clock.ahead += 10.0
        await finish.wait()
        await peer.send(
            b"HTTP/1.1 200 OK\r\nContent-Length: 3000\r\n\r\n", b"a" * 2000, b"b" * 1000
        )
        await peer.gone()

    origin = await origins(script)
    upstream = client.upstream(origin.port)
    ends = Ends()
    await failing(client.send(upstream, linger=30.0, late=ends, buffer=1500))
    finish.set()
    await until(lambda: bool(ends.heard))
    assert ends.heard == [Reply(200, [], b"", 3000, b"OK")]
    assert upstream.idle == 1


async def test_lingering_has_an_end(origins: Origins, client: Client) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        client.clock.ahead += 10.0
        await peer.gone()

    origin = await origins(script)
    upstream = client.upstream(origin.port)
    ends = Ends()
    await failing(client.send(upstream, linger=30.0, late=ends))
    client.clock.ahead += 31.0
    await until(lambda: bool(ends.heard))
    (failure,) = ends.heard
    assert isinstance(failure, UpstreamFailed)
    assert (failure.why, failure.sent, upstream.busy) == ("timeout", True, 0)


async def test_a_lingering_exchange_that_is_cut_is_heard_too(
    origins: Origins, client: Client
) -> None:
    finish = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        client.clock.ahead += 10.0
        await finish.wait()

    origin = await origins(script)
    ends = Ends()
    await failing(client.send(client.upstream(origin.port), linger=30.0, late=ends))
    finish.set()
    await until(lambda: bool(ends.heard))
    assert isinstance(ends.heard[0], UpstreamFailed)
    assert ends.heard[0].why == "reset"


async def test_cancelling_closes_the_connection(origins: Origins, client: Client) -> None:
    asked, gone = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        asked.set()
        await peer.gone()
        gone.set()

    origin = await origins(script)
    upstream = client.upstream(origin.port)
    task = asyncio.create_task(client.send(upstream))
    await asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await gone.wait()
    assert (upstream.busy, upstream.idle) == (0, 0)


async def test_cancelling_a_write_lets_it_finish(origins: Origins, client: Client) -> None:
    asked, finish = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        asked.set()
        await finish.wait()
        await peer.send(ok(b"booked"))
        await peer.gone()

    origin = await origins(script)
    upstream = client.upstream(origin.port)
    ends = Ends()
    task = asyncio.create_task(client.send(upstream, linger=30.0, late=ends))
    await asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    client.clock.ahead += 20.0  # Past the deadline, within deadline + linger.
    await asyncio.sleep(0.02)
    finish.set()
    await until(lambda: bool(ends.heard))
    assert ends.heard == [Reply(200, [], b"booked", None, b"OK")]
    assert upstream.idle == 1


async def test_cancelling_while_connecting_leaves_nothing(client: Client) -> None:
    with swallowing() as port:
        upstream = client.upstream(port)
        task = asyncio.create_task(client.send(upstream))
        await until(lambda: upstream.busy == 1)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert upstream.busy == 0


# -- Probes and the end.


async def test_connect_opens_one_connection_and_sends_nothing(
    origins: Origins, client: Client
) -> None:
    read_bytes: list[bytes] = []

    async def script(peer: Peer) -> None:
        read_bytes.append(await peer.request())
        await peer.send(ok())

    origin = await origins(script)
    upstream = client.upstream(origin.port)
    await upstream.connect(deadline=client.soon())
    await upstream.connect(deadline=client.soon())
    assert (upstream.opened_total, upstream.idle, read_bytes) == (1, 1, [])
    await client.send(upstream)
    assert upstream.opened_total == 1


async def test_connect_to_a_dead_upstream_fails(client: Client) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    failure = await failing(client.upstream(port).connect(deadline=client.soon()))
    assert (failure.why, failure.sent) == ("connect", False)


async def test_closing_lets_what_runs_finish(origins: Origins, client: Client) -> None:
    finish = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await finish.wait()
        await peer.send(ok(b"done"))
        await peer.gone()

    origin = await origins(script)
    upstream = client.upstream(origin.port)
    running = asyncio.create_task(client.send(upstream))
    await until(lambda: upstream.busy == 1 and origin.connections == 1)
    closing = asyncio.create_task(upstream.aclose(30.0))
    await asyncio.sleep(0)
    finish.set()
    assert (await running).body == b"done"
    await closing
    assert (upstream.busy, upstream.idle) == (0, 0)


async def test_closing_cuts_what_outlasts_the_grace(origins: Origins, client: Client) -> None:
    origin = await origins(lambda peer: peer.gone())
    upstream = client.upstream(origin.port)
    ends = Ends()
    running = asyncio.create_task(client.send(upstream))
    lingering = asyncio.create_task(client.send(upstream, linger=60.0, late=ends))
    await until(lambda: origin.connections == 2)
    lingering.cancel()
    await asyncio.gather(lingering, return_exceptions=True)
    await upstream.aclose(0.01)
    failure = await failing(running)
    assert (failure.why, failure.sent) == ("reset", True)
    assert isinstance(ends.heard[0], UpstreamFailed)


async def test_a_closed_upstream_sends_nothing(origins: Origins, client: Client) -> None:
    origin = await origins(answering(then=ok()))
    upstream = client.upstream(origin.port)
    await client.send(upstream)
    await upstream.aclose(0.0)
    failure = await failing(client.send(upstream))
    assert (failure.why, failure.sent, origin.connections) == ("connect", False, 1)


async def test_closing_while_a_connection_opens_leaves_nothing(client: Client) -> None:
    with swallowing() as port:
        upstream = client.upstream(port, connect_timeout=0.3)
        task = asyncio.create_task(client.send(upstream))
        await until(lambda: upstream.busy == 1)
        await upstream.aclose(0.0)
        assert not (await failing(task)).sent


async def test_no_file_descriptor_is_left_behind(origins: Origins, client: Client) -> None:
    async def script(peer: Peer) -> None:
        if (await peer.request()).endswith(b"cut"):
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe")
        else:
            await peer.send(ok(b"hello"))

    origin = await origins(script)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(30):
        upstream = client.upstream(origin.port)
        await asyncio.gather(
            *[client.send(upstream, post(body)) for body in (b"cut", b"ok", b"ok", b"cut")],
            return_exceptions=True,
        )
        await upstream.aclose(1.0)
    await until(lambda: len(os.listdir("/proc/self/fd")) <= before)


class swallowing:  # noqa: N801 - reads as a statement
    """A port whose queue is full: the kernel drops what would connect."""

    def __enter__(self) -> int:
        self.listening = socket.socket()
        self.listening.bind(("127.0.0.1", 0))
        self.listening.listen(0)
        address = self.listening.getsockname()
        self.filling = [socket.socket() for _ in range(4)]
        for sock in self.filling:
            sock.setblocking(False)
            sock.connect_ex(address)
        return int(address[1])

    def __exit__(self, *_: object) -> None:
        for sock in (*self.filling, self.listening):
            sock.close()
