"""Too many, too slow, too much: what it costs us, and that everybody else is served meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from typing import Any

import pytest

from tests.functional.conftest import World
from tests.functional.kit import SLOTS, Sidecar, event, function
from tests.functional.wire import (
    JSON,
    Client,
    Peer,
    Play,
    Seen,
    answers,
    request,
    until,
    waits,
)

BIG = b"x" * 5_000_000
POST = b"POST /retell HTTP/1.1\r\nHost: a\r\n"


async def narrow(sidecar: Sidecar) -> Client:
    """A client whose own buffer holds next to nothing."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", sidecar.port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=4096)
    return Client(reader, writer)


def unread(client: Client) -> None:
    """From now on it takes nothing."""
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]


# -- Slow senders: L6, L7.


async def drip(client: Client, data: bytes) -> None:
    """A byte every 20 ms, as long as the other side is there."""
    try:
        for at in range(len(data)):
            await client.send(data[at : at + 1])
            await asyncio.sleep(0.02)
    except ConnectionError:
        pass


@pytest.mark.row("L6")
@pytest.mark.parametrize("kept", [False, True], ids=["first request", "kept connection"])
async def test_a_head_that_drips_has_its_time_in_all_not_from_byte_to_byte(
    world: World, kept: bool
) -> None:
    sidecar = await world.sidecar(listen={"header_timeout": "300ms", "idle_timeout": "60s"})
    client = await sidecar.connect()
    if kept:
        await client.ask(request("POST", "/retell", event()))
    dripping = asyncio.create_task(drip(client, POST + b"X-Slow: 1\r\n" * 1000))

    answer = await client.answer()

    assert (answer.status, answer.code, answer.value(b"connection")) == (408, "too_slow", b"close")
    assert await client.closed()
    dripping.cancel()
    assert len(world.webhook.seen) == kept


@pytest.mark.row("L7")
@pytest.mark.parametrize("framing", ["length", "chunks"])
async def test_a_body_that_drips_has_its_time_in_all(world: World, framing: str) -> None:
    sidecar = await world.sidecar(listen={"body_timeout": "300ms"})
    client = await sidecar.connect()
    if framing == "length":
        await client.send(POST + b"Content-Length: 9000\r\n\r\n")
        dripping = asyncio.create_task(drip(client, b"x" * 9000))
    else:
        await client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n")
        dripping = asyncio.create_task(drip(client, b"1\r\nx\r\n" * 9000))

    answer = await client.answer()

    assert (answer.status, answer.code) == (408, "body_timeout")
    assert await client.closed()
    dripping.cancel()
    assert world.webhook.connections == world.mcp.connections == 0


async def test_slow_bodies_are_no_work_and_shed_nobody(world: World) -> None:
    """A signature is over the whole body: who may not ask is found out only at its end."""
    sidecar = await world.sidecar(limits={"in_flight": 2}, split={"percent": 0})
    for _ in range(10):
        client = await sidecar.connect()
        await client.send(POST + b"Content-Length: 100\r\n\r\n{")
    await until(lambda: sidecar.app.listener.arriving == 10)

    assert (await sidecar.call(SLOTS)).arm == "webhook"
    assert (await sidecar.post("/retell", event())).arm == "webhook"


@pytest.mark.row("L2")
async def test_unfinished_bodies_share_a_bound_and_calls_go_on(world: World) -> None:
    sidecar = await world.sidecar(limits={"bodies": "1MB"})
    head, held = POST + b"Content-Length: 2000000\r\n\r\n", []
    for _ in range(2):
        client = await sidecar.connect()
        await client.send(head + b"x" * 500_000)
        held.append(client)
    last = await sidecar.connect()
    await last.send(head + b"x" * 500_000)
    answer = await last.answer()

    assert (answer.status, answer.code, answer.value(b"retry-after")) == (503, "overloaded", b"5")
    assert (await sidecar.call(SLOTS, "call_b")).arm == "mcp"
    whole = function(SLOTS, "call_c", {"notes": "x" * 12_000})
    client = await sidecar.connect()
    await client.send(request("POST", "/retell", whole)[:-10])
    await until(lambda: sidecar.app.listener.arriving == 3)
    assert (await client.ask(whole[-10:])).status == 200


# -- Slow readers: L9.


def in_chunks() -> Play:
    async def play(peer: Peer, asked: Seen) -> bool:
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(50):
            await peer.send(b"186a0\r\n" + b"x" * 100_000 + b"\r\n")
        await peer.send(b"0\r\n\r\n")
        return True

    return play


@pytest.mark.row("L9")
@pytest.mark.parametrize("play", [answers(BIG, JSON), in_chunks()], ids=["length", "chunks"])
async def test_an_answer_that_nobody_takes_is_cut_and_its_arm_freed(
    world: World, play: Play
) -> None:
    world.webhook.play = play
    sidecar = await world.sidecar(split={"percent": 0}, listen={"write_timeout": "300ms"})
    client = await narrow(sidecar)
    unread(client)
    await client.send(request("POST", "/retell", function(SLOTS)))

    await until(lambda: world.webhook.seen)
    await until(lambda: world.webhook.open == 0, "the arm's connection is free")
    await sidecar.settled()

    assert sidecar.app.listener.open_connections == 0
    (line,) = await sidecar.lines(1)
    assert line["outcome"] == "gone"
    assert line["bytes_out"] < len(BIG)
    await client.close()


@pytest.mark.row("L9")
async def test_a_reader_who_takes_next_to_nothing_is_cut_as_well(world: World) -> None:
    """Progress alone is not enough: a byte now and then would hold a connection for hours."""
    world.webhook.play = answers(BIG, JSON)
    sidecar = await world.sidecar(split={"percent": 0}, listen={"write_timeout": "400ms"})
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", sidecar.port))
        sock.setblocking(False)
        sock.send(request("POST", "/retell", function(SLOTS)))
        await until(lambda: world.webhook.seen)
        taken = 0
        while sidecar.app.listener.open_connections:
            await asyncio.sleep(0.02)
            with contextlib.suppress(BlockingIOError):
                taken += len(sock.recv(1))

    assert 0 < taken < 1000
    await until(lambda: world.webhook.open == 0, "the arm's connection is free")
    await sidecar.settled()


@pytest.mark.row("L9")
async def test_a_reader_who_takes_enough_gets_all_of_it(world: World) -> None:
    """Longer than the time for writing, in all: that is for progress."""
    world.webhook.play = answers(BIG, JSON)
    sidecar = await world.sidecar(split={"percent": 0}, listen={"write_timeout": "200ms"})
    client = await narrow(sidecar)
    await client.send(request("POST", "/retell", function(SLOTS)))
    began, size = time.monotonic(), 0
    while size < len(BIG):
        part = await client.reader.read(100_000)
        assert part, "cut"
        size += len(part)
        if time.monotonic() - began < 0.8:
            await asyncio.sleep(0.02)

    assert size >= len(BIG)
    await client.close()


async def test_slow_readers_of_other_pages_leave_connections_to_calls(world: World) -> None:
    """They need not prove anything, and each holds a connection to the application."""
    world.webhook.play = answers(BIG)
    sidecar = await world.sidecar(
        split={"percent": 0}, passthrough="webhook", backends={"webhook": {"connections": 4}}
    )
    readers = [await narrow(sidecar) for _ in range(3)]
    for reader in readers:
        unread(reader)
        await reader.send(request("GET", "/big"))
    upstream = sidecar.app.wiring.upstreams["webhook"]
    await until(lambda: len(world.webhook.seen) == 3)
    assert upstream.busy == 3

    refused = await sidecar.get("/big")
    world.webhook.play = answers(b"{}", JSON)
    served = await sidecar.call(SLOTS)

    assert (refused.status, refused.code, refused.value(b"retry-after")) == (
        503, "overloaded", b"5",
    )  # fmt: skip
    assert (served.status, served.arm) == (200, "webhook")
    for reader in readers:
        reader.abort()
    await sidecar.settled()


# -- Many requests on one connection: F19.


@pytest.mark.row("F19")
async def test_ten_thousand_requests_that_nobody_reads_the_answers_of_wait_in_the_socket(
    world: World,
) -> None:
    """What is read of them is bounded; once their answers are read all of them are answered."""
    sidecar = await world.sidecar()
    asked = [(request("GET", f"/nothing/{n}"), 404) if n % 3 else
             (request("DELETE", "/api/mcp/retell/health"), 405) for n in range(10_000)]  # fmt: skip
    client = await narrow(sidecar)
    unread(client)
    await until(lambda: sidecar.app.listener.open_connections == 1)
    kernels = connection(sidecar).transport.get_extra_info("socket")
    kernels.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    client.writer.write(b"".join(one for one, _ in asked))
    await until(lambda: connection(sidecar).writing_paused, "the client takes nothing")
    done = await settled(sidecar)

    assert done < 9_000
    waiting = connection(sidecar)
    assert len(waiting._messages) <= 32
    assert waiting.transport.get_write_buffer_size() < 200_000

    client.writer.transport.resume_reading()  # type: ignore[attr-defined]
    got = [(await client.answer(b"GET")).status for _ in asked]
    assert got == [status for _, status in asked]
    await client.close()


def connection(sidecar: Sidecar) -> Any:
    """The only one."""
    acceptor = sidecar.app.listener._acceptor
    assert acceptor is not None
    (one,) = acceptor.everybody()
    return one


async def settled(sidecar: Sidecar) -> float:
    """How many requests have been answered, once their number stands still."""
    before = -1.0
    while (now := (await sidecar.metrics()).total("requests_total")) != before:
        before = now
        await asyncio.sleep(0.1)
    return before


# -- Sizes: L5, L13.


@pytest.mark.row("L13")
async def test_three_hundred_thousand_chunks_of_one_byte_are_one_body(world: World) -> None:
    body = b'{"event":"call_ended","call":{"call_id":"call_a","t":"' + b"x" * 300_000 + b'"}}'
    sidecar = await world.sidecar()
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body)

    client = await sidecar.connect()
    answer = await client.ask(POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")

    assert answer.status == 200
    (seen,) = world.webhook.seen
    assert seen.body == body


HUGE = {
    "a target of 100 kB": (b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
    "a method of 100 kB": (b"G" * 100_000 + b" / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "129 fields": (request("POST", "/retell", b"", *[b"X-%d: 1" % n for n in range(127)]), 431),
    "a field of 9 kB": (request("POST", "/retell", b"", b"X-A: " + b"x" * 9000), 431),
}


@pytest.mark.row("L5")
@pytest.mark.parametrize(("raw", "status"), HUGE.values(), ids=HUGE)
@pytest.mark.parametrize("pieces", [1, 7])
async def test_a_head_out_of_all_proportion_is_cut(
    world: World, raw: bytes, status: int, pieces: int
) -> None:
    """However it arrives."""
    sidecar = await world.sidecar()
    client = await sidecar.connect()
    step = -(-len(raw) // pieces)
    for at in range(0, len(raw), step):
        await client.send(raw[at : at + step])
        await asyncio.sleep(0.005)
    answer = await client.answer()

    assert (answer.status, answer.value(b"connection")) == (status, b"close")
    assert await client.closed()
    assert world.webhook.connections == 0


# -- How many: connections, rates.


async def test_beyond_the_bound_of_connections_one_hears_503_and_calls_go_on(
    world: World,
) -> None:
    go = asyncio.Event()
    world.webhook.play = waits(go, answers(b"{}", JSON))
    sidecar = await world.sidecar(split={"percent": 0}, listen={"connections": 5})
    calls = [asyncio.create_task(sidecar.call(SLOTS, f"call_{n}x")) for n in range(5)]
    await until(lambda: len(world.webhook.seen) == 5)

    late = await Client.connect(sidecar.port)
    await late.send(request("POST", "/retell", event()))
    answer = await late.answer()
    await late.close()

    assert (answer.status, answer.code) == (503, "too_many_connections")
    assert answer.value(b"retry-after") == b"5"
    assert answer.about["request_id"].encode() == answer.value(b"x-request-id")
    metrics = await sidecar.metrics()
    assert metrics.total("connections_refused_total", reason="full") == 1
    assert metrics.total("connections") == metrics.total("connections_limit") == 5
    assert metrics.total("shed_total", reason="connections") == 1
    (told,) = sidecar.events("load_shed")
    assert told["reason"] == "connections"

    await sidecar.write(world.rules(split={"percent": 0}, listen={"connections": 50}))
    more = asyncio.create_task(sidecar.call(SLOTS, "call_more"))
    await until(lambda: len(world.webhook.seen) == 6)
    go.set()
    assert {(await call).status for call in [*calls, more]} == {200}


async def test_silent_connections_make_room_for_calls(world: World) -> None:
    """All there are, taken by who says nothing."""
    sidecar = await world.sidecar(listen={"connections": 20})
    for _ in range(20):
        await sidecar.connect()

    assert (await sidecar.call(SLOTS)).status == 200
    metrics = await sidecar.metrics()
    assert metrics.total("connections_let_go_total") == 2
    assert metrics.total("connections_refused_total") == 0


@pytest.mark.row("L9")
async def test_who_reads_no_answers_makes_room_for_calls(world: World) -> None:
    """Anybody may ask for health, as often as he likes."""
    sidecar = await world.sidecar(listen={"connections": 10})
    clients = [await narrow(sidecar) for _ in range(10)]
    for client in clients:
        unread(client)
        client.writer.write(request("GET", "/api/mcp/retell/health") * 2000)
    acceptor = sidecar.app.listener._acceptor
    assert acceptor is not None
    await until(lambda: sidecar.app.listener.open_connections == 10)
    for one in acceptor.everybody():
        kernels = one._wire.get_extra_info("socket")
        kernels.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    await until(lambda: all(one.writing_paused for one in acceptor.everybody()), "nobody reads")

    async with asyncio.timeout(10):
        while (await sidecar.get("/api/mcp/retell/health")).status == 503:
            await asyncio.sleep(0.1)
    assert (await sidecar.call(SLOTS)).status == 200
    for client in clients:
        client.abort()


async def test_one_address_has_its_own_bound(world: World) -> None:
    sidecar = await world.sidecar(listen={"connections_per_address": 3})
    for _ in range(3):
        await sidecar.connect()
    late = await sidecar.connect()
    answer = await late.answer()

    assert (answer.status, answer.code) == (503, "too_many_connections")
    assert (await sidecar.metrics()).total("connections_refused_total", reason="address") == 1


@pytest.mark.row("L11")
async def test_exactly_the_limit_is_admitted_of_many_at_once(world: World) -> None:
    """100 a minute, burst 1: what flows in while they ask is known to the request."""
    sidecar = await world.sidecar(limits={"tools_per_minute": 100, "burst": 1})
    began = time.monotonic()
    got = await asyncio.gather(*[sidecar.call(SLOTS, f"call_{n}x") for n in range(160)])
    flowed = int((time.monotonic() - began) * 100 / 60) + 1

    admitted = sum(answer.arm == "mcp" for answer in got)
    assert 100 <= admitted <= 100 + flowed
    assert len(world.mcp.tools) == admitted
    assert {answer.reason for answer in got if answer.arm != "mcp"} == {"last_answer"}


@pytest.mark.row("L11")
async def test_a_stranger_over_his_limit_is_told_when_to_come_back(world: World) -> None:
    sidecar = await world.sidecar(limits={"ip_per_minute": 200, "burst": 1})
    began = time.monotonic()
    got = await asyncio.gather(*[sidecar.get("/nothing") for _ in range(300)])
    flowed = int((time.monotonic() - began) * 200 / 60) + 1

    admitted = sum(answer.status == 404 for answer in got)
    refused = [answer for answer in got if answer.status == 429]
    assert 200 <= admitted <= 200 + flowed
    assert len(refused) == 300 - admitted
    assert {answer.value(b"retry-after") for answer in refused} <= {b"1"}
