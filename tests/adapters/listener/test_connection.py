"""One connection: order, faults, deadlines, and what a client does besides asking."""

from __future__ import annotations

import asyncio
import resource

import pytest

from proxy.adapters.listener.connection import IN_A_ROW
from proxy.core.model import Reply
from proxy.ports import Incoming
from tests.adapters.listener.raw import Serve, Served, echo, post

GET = b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n"


async def test_a_connection_serves_one_request_after_another(serve: Serve) -> None:
    served = await serve()
    client = await served.connect()
    for number in range(5):
        await client.send(post(b"%d" % number))
        answer = await client.answer()
        assert (answer.body, answer.header("connection")) == (b"POST /retell %d" % number, None)
        assert answer.version == "HTTP/1.1"

    assert served.listener.open_connections == 1


async def test_pipelined_requests_are_answered_in_order(serve: Serve) -> None:
    """Also if the first takes longest."""
    first = asyncio.Event()

    async def handler(incoming: Incoming) -> Reply:
        if incoming.target == "/0":
            await first.wait()
        return await echo(incoming)

    served = await serve(handler)
    client = await served.connect()
    await client.send(b"".join(GET % number for number in range(100)))
    await asyncio.sleep(0)
    first.set()

    assert [(await client.answer()).body for _ in range(100)] == [
        b"GET /%d " % number for number in range(100)
    ]


@pytest.mark.row("F19")
async def test_pipelining_without_reading_holds_the_client_up_instead_of_filling_memory(
    serve: Serve,
) -> None:
    handled = 0

    async def handler(incoming: Incoming) -> Reply:
        nonlocal handled
        handled += 1
        return Reply(200, [], b"x" * 5000)

    served = await serve(handler)
    client = await served.connect()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    total = 10_000
    sending = asyncio.ensure_future(client.send(b"".join(GET % n for n in range(total))))
    (connection,) = served.listener._acceptor.everybody()  # type: ignore[union-attr]
    while not connection.writing_paused:
        await asyncio.sleep(0)
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    await asyncio.sleep(0.1)
    held = handled
    await asyncio.sleep(0.05)

    assert handled == held < total
    assert len(connection._messages) <= 32
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40_000  # kB
    client.writer.transport.resume_reading()  # type: ignore[attr-defined]
    for _ in range(total):
        await client.answer("GET")
    await sending
    assert handled == total


async def test_http_1_0_closes_unless_the_client_asks_to_keep_the_connection(serve: Serve) -> None:
    served = await serve()
    client = await served.connect()
    await client.send(b"GET /1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert (await client.answer()).header("connection") == "keep-alive"
    await client.send(b"GET /2 HTTP/1.0\r\n\r\n")
    assert (await client.answer()).header("connection") == "close"

    assert await client.rest() == b""


async def test_a_client_may_ask_to_close(serve: Serve) -> None:
    served = await serve()
    client = await served.connect()
    await client.send(post(b"", b"Connection: close"))

    assert (await client.answer()).header("connection") == "close"
    assert await client.rest() == b""


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX : 1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n folded\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: a\n\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na", 400),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (b"M" * 100_000 + b" / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"a" * 100_000), 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: %b\r\n\r\n" % (b"a" * 9000), 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n%b: 1\r\n\r\n" % (b"a" * 9000), 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: 1\r\n" * 129 + b"\r\n", 431),
    ],
)
async def test_what_is_no_request_gets_a_short_answer_and_a_closed_connection(
    serve: Serve, request_bytes: bytes, status: int
) -> None:
    """Ours, not the parser's: that one echoes the bytes and names its version."""
    served = await serve()
    client = await served.connect()
    await client.send(request_bytes)

    answer = await client.answer()

    assert (answer.status, answer.version, answer.body) == (status, "HTTP/1.1", b'{"error":{}}')
    assert answer.headers == [
        ("content-type", "application/json"),
        ("content-length", "12"),
        ("connection", "close"),
    ]
    assert await client.rest() == b""
    assert served.faults == [status]


async def test_garbage_behind_a_request_is_answered_in_its_turn(serve: Serve) -> None:
    served = await serve()
    client = await served.connect()
    await client.send(post(b"a"))
    assert (await client.answer()).body == b"POST /retell a"
    await client.send(b"nonsense\r\n\r\n")
    await client.send(post(b"b"))

    assert (await client.answer()).status == 400
    assert await client.rest() == b"", "nothing after garbage is understood"


async def test_garbage_while_a_request_is_being_answered_waits_for_it(serve: Serve) -> None:
    go = asyncio.Event()

    async def handler(incoming: Incoming) -> Reply:
        await go.wait()
        return await echo(incoming)

    served = await serve(handler)
    client = await served.connect()
    await client.send(post(b"a"))
    while served.listener.inflight == 0:
        await asyncio.sleep(0)
    await client.send(b"nonsense\r\n\r\n")
    await client.send(b"more nonsense\r\n\r\n")
    (connection,) = served.listener._acceptor.everybody()  # type: ignore[union-attr]
    while not connection._messages:
        await asyncio.sleep(0)
    go.set()

    assert [(await client.answer()).status for _ in range(2)] == [200, 400]
    assert await client.rest() == b""
    assert served.faults == [400]


@pytest.mark.row("L6")
async def test_a_silent_connection_is_closed_at_the_head_deadline(serve: Serve) -> None:
    served = await serve(head_timeout=0.03)
    client = await served.connect()

    assert await client.rest() == b""
    assert served.faults == []


@pytest.mark.row("L6")
async def test_a_head_that_drips_is_closed_with_408(serve: Serve) -> None:
    """The clock runs from the first byte, whatever comes after it."""
    served = await serve(head_timeout=0.05, idle_timeout=30.0)
    client = await served.connect()
    await client.send(post(b"a"))
    await client.answer()

    async def drip() -> None:
        await client.send(b"GET / HTTP/1.1\r\nX: ")
        while True:
            await client.send(b"a")
            await asyncio.sleep(0.005)

    dripping = asyncio.ensure_future(drip())
    answer = await client.answer()
    dripping.cancel()

    assert answer.status == 408
    assert served.faults == [408]


@pytest.mark.row("L8")
@pytest.mark.row("L6", "L8")
async def test_part_of_a_head_behind_a_request_has_a_heads_time(serve: Serve) -> None:
    """Not that of an idle connection, which is far longer."""
    served = await serve(head_timeout=0.05)
    client = await served.connect()
    await client.send(GET % 1 + b"GET /2 HTTP/1.1\r\n")

    assert (await client.answer()).status == 200
    answer = await client.answer()
    assert (answer.status, answer.header("connection")) == (408, "close")
    assert await client.rest() == b""


async def test_an_idle_connection_is_closed_at_the_idle_deadline(serve: Serve) -> None:
    served = await serve(idle_timeout=0.03, head_timeout=30.0)
    client = await served.connect()
    await client.send(post(b"a"))
    await client.answer()
    await client.send(b"\r\n")  # What some clients send after a body is no head.

    assert await client.rest() == b""
    assert served.faults == []


async def test_a_slow_handler_has_no_deadline_of_the_listener(serve: Serve) -> None:
    """Its budget is the path's business."""
    ticks = 0

    async def handler(incoming: Incoming) -> Reply:
        nonlocal ticks
        while ticks < 20:
            ticks += 1
            await asyncio.sleep(0.005)
        return Reply(200)

    served = await serve(handler, head_timeout=0.01, idle_timeout=0.01, write_timeout=0.01)

    assert (await served.ask(post(b"a"))).status == 200


async def test_a_caller_who_hangs_up_does_not_stop_the_handler(serve: Serve) -> None:
    """A booking that has begun is finished."""
    go = asyncio.Event()
    gone: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    async def handler(incoming: Incoming) -> Reply:
        await go.wait()
        gone.set_result(incoming.gone)
        return Reply(200)

    served = await serve(handler)
    client = await served.connect()
    await client.send(post(b"a"))
    while served.listener.inflight == 0:
        await asyncio.sleep(0)
    client.abort()
    while served.listener.open_connections:
        await asyncio.sleep(0)
    assert served.listener.inflight == 1
    go.set()

    assert await gone


async def test_an_upgrade_is_an_ordinary_request(serve: Serve) -> None:
    served = await serve()
    client = await served.connect()
    await client.send(
        b"GET /llm/call_1 HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )

    answer = await client.answer()

    assert (answer.status, answer.body) == (200, b"GET /llm/call_1 ")
    assert answer.header("connection") == "close", "what follows may be frames"
    assert await client.rest() == b""


async def test_an_upgrade_that_nobody_knows_keeps_the_connection(serve: Serve) -> None:
    """Some clients offer h2c with every first request."""
    served = await serve()
    client = await served.connect()
    await client.send(
        b"GET /1 HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n"
    )
    assert (await client.answer()).body == b"GET /1 "
    await client.send(GET % 2)

    assert (await client.answer()).body == b"GET /2 "


async def test_a_tunnel_is_an_ordinary_request(serve: Serve) -> None:
    async def handler(incoming: Incoming) -> Reply:
        return Reply(405, [], f"{incoming.method} {incoming.target}".encode())

    served = await serve(handler)
    client = await served.connect()
    await client.send(b"CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test:443\r\n\r\n")

    answer = await client.answer()

    assert (answer.status, answer.body) == (405, b"CONNECT evil.test:443")
    assert await client.rest() == b""


async def test_a_handler_that_fails_gets_an_answer_and_is_reported(serve: Serve) -> None:
    async def handler(incoming: Incoming) -> Reply:
        raise RuntimeError("a bug")

    served = await serve(handler)
    client = await served.connect()
    await client.send(GET % 1)

    assert (await client.answer()).status == 500
    assert served.faults == [500]
    assert [str(report["exception"]) for report in served.reports] == ["a bug"]
    served.reports.clear()
    await client.send(GET % 2)
    assert (await client.answer()).status == 500
    served.reports.clear()


async def test_a_fault_in_the_loop_itself_ends_the_connection(serve: Serve) -> None:
    async def handler(incoming: Incoming) -> Reply:
        return Reply(200, [(b"x", None)])  # type: ignore[list-item]

    served = await serve(handler)
    client = await served.connect()
    await client.send(GET % 1)
    with pytest.raises(ConnectionResetError):
        await client.rest()

    assert [type(report["exception"]) for report in served.reports] == [TypeError]
    served.reports.clear()


async def test_a_request_whose_sender_left_at_once_is_still_handled(serve: Serve) -> None:
    """Nobody hears the answer, but an event that was sent is better handled than lost."""
    seen: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    gone: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    async def handler(incoming: Incoming) -> Reply:
        reply = await echo(incoming)
        assert isinstance(reply.body, bytes)
        seen.set_result(reply.body)
        while not incoming.gone:
            await asyncio.sleep(0)
        gone.set_result(incoming.gone)
        return reply

    served = await serve(handler)
    client = await served.connect()
    while served.listener.open_connections == 0:
        await asyncio.sleep(0)
    client.writer.write(post(b"a"))
    await client.close()

    assert await seen == b"POST /retell a"
    assert await gone


async def test_what_is_half_sent_by_a_client_who_left_is_dropped(serve: Serve) -> None:
    served = await serve()
    client = await served.connect()
    await client.send(b"GET / HTTP")
    await client.close()
    while served.listener.open_connections:
        await asyncio.sleep(0)

    assert served.faults == []


CHUNKS = b"POST /0 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n"
TRAILER = b"0\r\nAuthorization: Bearer theirs\r\n\r\n"
TRAILED = {
    "in one piece": (CHUNKS + TRAILER,),
    "cut before the trailer": (CHUNKS + b"0\r\n", b"Authorization: x\r\n\r\n"),
    "cut in the trailer": (CHUNKS + b"0\r\nAuthorization: x\r", b"\n\r\n"),
    "one that looks like a last chunk": (CHUNKS + b"0\r\nA: 0\r\n\r\n",),
    "an extension": (CHUNKS + b"0;a=b\r\n\r\n",),
}
AFTER = b"POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nc\r\n0\r\n\r\n"


@pytest.mark.row("F12")
@pytest.mark.parametrize("after", [AFTER, GET % 1], ids=["in chunks", "without a body"])
@pytest.mark.parametrize("at_once", [False, True], ids=["later", "at once"])
@pytest.mark.parametrize("pieces", TRAILED.values(), ids=TRAILED)
async def test_a_trailer_never_becomes_a_header_of_the_next_request(
    serve: Serve, pieces: tuple[bytes, ...], *, at_once: bool, after: bytes
) -> None:
    """The parser would put it there, as the next caller's behind a shared connection."""
    seen: list[tuple[tuple[bytes, bytes], ...]] = []

    async def handler(incoming: Incoming) -> Reply:
        seen.append(incoming.headers)
        return await echo(incoming)

    served = await serve(handler)
    client = await served.connect()
    first, last = pieces[:-1], pieces[-1]
    for piece in first:
        await client.send(piece)
        await asyncio.sleep(0.01)
    if at_once:
        await client.send(last + after)
        bodies = [(await client.answer()).body for _ in range(2)]
    else:
        await client.send(last)
        bodies = [(await client.answer()).body]
        await client.send(after)
        bodies.append((await client.answer()).body)

    assert bodies == [b"POST /0 ab", b"POST /1 c" if after is AFTER else b"GET /1 "]
    names = {name.lower() for headers in seen for name, _ in headers}
    assert names == {b"host", b"transfer-encoding"}


@pytest.mark.row("F19")
async def test_what_stands_behind_a_body_that_nobody_has_read_yet_waits_with_it(
    serve: Serve,
) -> None:
    """The body fills its buffer and the socket is paused; all behind it is here already."""
    read = asyncio.Event()

    async def handler(incoming: Incoming) -> Reply:
        if incoming.method == "POST":
            await read.wait()
        body = await incoming.read(1 << 20, asyncio.get_running_loop().time() + 10)
        return Reply(200, [], b"%d" % len(body))

    served = await serve(handler, read_buffer=1024)
    client = await served.connect()
    sent = post(b"x" * 20_000) + CHUNKS.replace(b"ab", b"abc").replace(b"2\r\n", b"3\r\n")
    await client.send(sent + TRAILER + b"".join(GET % n for n in range(40)))
    while served.listener.inflight == 0:
        await asyncio.sleep(0)
    read.set()
    bodies = [(await client.answer()).body for _ in range(42)]

    assert bodies == [b"20000", b"3", *[b"0"] * 40]


async def test_plain_chunks_do_not_cost_the_connection(serve: Serve) -> None:
    served = await serve()
    client = await served.connect()
    for _ in range(3):
        await client.send(CHUNKS + b"0\r\n\r\n")
        answer = await client.answer()
        assert (answer.body, answer.header("connection")) == (b"POST /0 ab", None)

    assert served.listener.open_connections == 1


async def turns_of_others(served: Served, attack: bytes) -> int:
    """How many requests another client has answered while the first one's bytes are worked off."""
    greedy, other = await served.connect(), await served.connect()
    await other.send(GET % 0)
    await other.answer()
    greedy.writer.write(attack)
    turns, tail = 0, b""

    async def last() -> None:
        nonlocal tail
        while not tail.endswith(b"last"):
            part = await greedy.reader.read(65_536)
            assert part, tail
            tail = tail[-300:] + part

    done = asyncio.ensure_future(last())
    while not done.done():
        await other.send(GET % 0)
        await other.answer()
        turns += 1
    await done
    return turns


async def test_who_pipelines_lets_others_have_their_turn(serve: Serve) -> None:
    """One read holds thousands of small requests, and their handlers may never wait."""

    async def handler(incoming: Incoming) -> Reply:
        return Reply(200, [], b"last" if incoming.target == "/last" else b"-")

    served = await serve(handler)
    last = b"GET /last HTTP/1.1\r\nHost: a\r\n\r\n"

    assert await turns_of_others(served, GET % 1 * 2000 + last) >= 2000 // IN_A_ROW // 8


@pytest.mark.row("L13")
@pytest.mark.parametrize("bodies", [1, 20], ids=["one body", "many bodies"])
async def test_who_sends_tiny_chunks_lets_others_have_their_turn(serve: Serve, bodies: int) -> None:
    async def handler(incoming: Incoming) -> Reply:
        body = await incoming.read(10**6, asyncio.get_running_loop().time() + 10)
        if incoming.method == "POST":
            sizes.append(len(body))
        last = incoming.method == "POST" and len(sizes) == bodies
        return Reply(200, [], b"last" if last else b"-")

    sizes: list[int] = []
    served = await serve(handler)
    chunks = 40_000 // bodies
    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = head + b"1\r\nx\r\n" * chunks + b"0\r\n\r\n"

    assert await turns_of_others(served, body * bodies) >= 3
    assert sizes == [chunks] * bodies
