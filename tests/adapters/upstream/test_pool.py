"""The upstream as the handler sees it, against raw origins."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from proxy.adapters.upstream import Endpoint, HttpUpstream
from proxy.adapters.upstream.body import StreamedBody
from proxy.adapters.upstream.connection import Connection
from proxy.adapters.upstream.pool import _answered_nobody
from proxy.core.model import Outbound, Reply
from proxy.errors import UpstreamFailed
from tests.adapters.upstream.origin import (
    Client,
    Peer,
    answering,
    failing,
    get,
    ok,
    post,
    read,
    swallowing,
    until,
)
from tests.interpreter import interpreted_only

Origins = Any


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


async def test_some_fields_stand_in_every_request(origins: Origins, client: Client) -> None:
    seen: list[bytes] = []

    async def script(peer: Peer) -> None:
        while request := await peer.request():
            seen.append(request)
            await peer.send(ok())

    origin = await origins(script)
    endpoint = Endpoint.from_url(f"http://127.0.0.1:{origin.port}")
    upstream = HttpUpstream(
        endpoint, clock=client.clock, sweep=client.sweep, always=[(b"x-from", b"us")]
    )
    client.made.append(upstream)
    await client.send(upstream)
    await client.send(upstream, get())
    assert [request.count(b"\r\nx-from: us\r\n") for request in seen] == [1, 1]


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
    assert upstream.busy == 0


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
        ok(b"ok") + ok(b"evil"),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n" + ok(b"evil"),
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


async def test_connect_does_not_take_a_connection_that_has_ended_for_one(client: Client) -> None:
    """Not even if only the kernel knows yet."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        upstream = client.upstream(listening.getsockname()[1])
        await upstream.connect(deadline=client.soon())
        accepted, _ = listening.accept()
        accepted.close()
        await upstream.connect(deadline=client.soon())
        assert (upstream.opened_total, upstream.idle) == (2, 1)


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


async def test_a_retired_pool_serves_whoever_still_sends_and_keeps_nothing(
    origins: Origins, client: Client
) -> None:
    """An exchange may have taken the old rules just before new ones came into force."""
    origin = await origins(answering(ok(b"done")))
    upstream = client.upstream(origin.port)
    await upstream.send(post(), [], deadline=client.soon())
    assert upstream.idle == 1

    upstream.retire()
    assert upstream.idle == 0
    reply = await upstream.send(post(), [], deadline=client.soon())

    assert reply.body == b"done"
    assert (upstream.idle, upstream.busy) == (0, 0)


async def test_closing_cuts_what_outlasts_the_grace(origins: Origins, client: Client) -> None:
    origin = await origins(lambda peer: peer.gone())
    upstream = client.upstream(origin.port)
    running = asyncio.create_task(client.send(upstream))
    lingering = asyncio.create_task(client.send(upstream, linger=60.0))
    await until(lambda: origin.connections == 2)
    lingering.cancel()
    await asyncio.gather(lingering, return_exceptions=True)
    await upstream.aclose(0.01)
    failure = await failing(running)
    assert (failure.why, failure.sent) == ("reset", True)
    assert upstream.busy == 0


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


@interpreted_only
async def test_an_exchange_leaves_no_cycles_to_collect(origins: Origins, client: Client) -> None:
    """Memory stays flat without the collector's help: each failed or streamed exchange too."""

    refs: list[weakref.ref[Connection]] = []

    async def note(connection: Connection) -> None:
        refs.append(weakref.ref(connection))

    async def script(peer: Peer) -> None:
        request = await peer.request()
        if b"cut" in request:
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
        elif b"stream" in request:
            await peer.send(ok(b"all", b"Content-Type: text/event-stream", b"Connection: close"))
        else:
            await peer.send(b"no HTTP\r\n")

    origin = await origins(script)
    upstream = client.upstream(origin.port)
    upstream._dialer = Dialer(upstream, note)  # type: ignore[assignment]
    gc.collect()
    gc.disable()
    try:
        for body in (b"cut", b"stream", b"bad"):
            with contextlib.suppress(UpstreamFailed):
                await read(await client.send(upstream, post(body)))
        await until(lambda: all(ref() is None for ref in refs))
    finally:
        gc.enable()
    assert len(refs) == 3


# -- What can happen between a connection's birth and its first use.


class Dialer:
    """The real one, with something happening before it hands out its connection."""

    def __init__(self, upstream: HttpUpstream, then: Callable[[Connection], Awaitable[None]]):
        self.real = upstream._dialer
        self.then = then

    async def open(self, make: Any, patience: float) -> Connection:
        connection = await self.real.open(make, patience)
        await self.then(connection)
        return connection


async def test_a_connection_that_closes_at_once_was_sent_nothing(
    origins: Origins, client: Client
) -> None:
    async def script(peer: Peer) -> None:
        peer.close()

    async def then(connection: Connection) -> None:
        await until(lambda: connection.gone)

    origin = await origins(script)
    upstream = client.upstream(origin.port)
    upstream._dialer = Dialer(upstream, then)  # type: ignore[assignment]
    failure = await failing(client.send(upstream))
    assert (failure.why, failure.sent, upstream.busy) == ("connect", False, 0)


async def test_a_new_connection_that_ends_before_the_request_is_written_was_sent_nothing(
    origins: Origins, client: Client
) -> None:
    """And it is not tried again: an origin that takes nobody would be asked for ever."""

    async def then(connection: Connection) -> None:
        asyncio.get_running_loop().call_soon(connection.eof_received)

    origin = await origins(answering(then=ok()))
    upstream = client.upstream(origin.port)
    upstream._dialer = Dialer(upstream, then)  # type: ignore[assignment]
    failure = await failing(client.send(upstream))
    assert (failure.why, failure.sent, upstream.busy) == ("connect", False, 0)
    assert upstream.opened_total == 1


async def test_a_deadline_that_passes_while_connecting_was_sent_nothing(
    origins: Origins, client: Client
) -> None:
    async def then(connection: Connection) -> None:
        client.clock.ahead += 10.0

    origin = await origins(answering(then=ok()))
    upstream = client.upstream(origin.port, keepalive=100.0)
    upstream._dialer = Dialer(upstream, then)  # type: ignore[assignment]
    failure = await failing(client.send(upstream))
    assert (failure.why, failure.sent) == ("timeout", False)
    assert (upstream.busy, upstream.idle) == (0, 1)
    await client.send(upstream)
    assert upstream.opened_total == 1


async def test_a_connection_that_opens_after_the_end_is_closed(
    origins: Origins, client: Client
) -> None:
    opened, go = asyncio.Event(), asyncio.Event()

    async def then(connection: Connection) -> None:
        opened.set()
        await go.wait()

    origin = await origins(answering(then=ok()))
    upstream = client.upstream(origin.port)
    upstream._dialer = Dialer(upstream, then)  # type: ignore[assignment]
    sending = asyncio.create_task(client.send(upstream))
    await opened.wait()
    closing = asyncio.create_task(upstream.aclose(0.0))
    await asyncio.sleep(0.01)
    go.set()
    assert not (await failing(sending)).sent
    await closing
    assert (upstream.busy, upstream.idle) == (0, 0)


async def test_a_stream_that_nobody_took_is_dropped() -> None:
    """The answer was set, then its task was cancelled before it ran."""

    class Source:
        dropped = False

        def drop(self) -> None:
            self.dropped = True

        pause = resume = drop

    source = Source()
    loop = asyncio.get_running_loop()
    whole, streamed, failed, cancelled = (loop.create_future() for _ in range(4))
    whole.set_result(Reply(200))
    streamed.set_result(Reply(200, [], StreamedBody(source)))
    failed.set_exception(UpstreamFailed("reset", "cut", sent=True))
    cancelled.cancel()
    for waiter in (whole, streamed, failed, cancelled):
        _answered_nobody(waiter)
    assert source.dropped
