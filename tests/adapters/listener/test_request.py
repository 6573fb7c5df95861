"""What the path gets to see of a request, and when its body is refused."""

from __future__ import annotations

import asyncio
import gzip

import pytest

from proxy.adapters.listener.request import NEVER
from proxy.core.model import Reply
from proxy.errors import ClientGone, Refused
from proxy.ports import Incoming
from tests.adapters.listener.raw import BODY_LIMIT, Serve, post, refusing

CHUNKED = b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"


def far() -> float:
    return asyncio.get_running_loop().time() + 10


async def test_method_target_headers_and_version_are_as_on_the_wire(serve: Serve) -> None:
    seen: list[Incoming] = []

    async def handler(incoming: Incoming) -> Reply:
        seen.append(incoming)
        return Reply(200)

    served = await serve(handler)
    await served.ask(
        b"DELETE /a//../%2e%2e/b%2fc?x=%20&y=a+b HTTP/1.1\r\nhOST: Example\r\nX-A:  1 \r\n"
        b"x-a: caf\xe9\r\nX-Utf: \xc3\xa9\r\n\r\n"
    )

    (incoming,) = seen
    assert incoming.method == "DELETE"
    assert incoming.target == "/a//../%2e%2e/b%2fc?x=%20&y=a+b"
    assert incoming.version == (1, 1)
    assert incoming.headers == (
        (b"hOST", b"Example"),
        (b"X-A", b"1"),
        (b"x-a", b"caf\xe9"),
        (b"X-Utf", b"\xc3\xa9"),
    )
    assert incoming.peer == "127.0.0.1"
    assert not incoming.secure
    assert incoming.declared_length() is None


@pytest.mark.parametrize("raw", [b"/caf\xe9", b"/caf\xc3\xa9", b"/\xff\xfe"])
async def test_a_target_keeps_its_bytes_above_ascii(serve: Serve, raw: bytes) -> None:
    """Whoever guards the target must see bytes, not what a decoder made of them."""
    seen: list[str] = []

    async def handler(incoming: Incoming) -> Reply:
        seen.append(incoming.target)
        return Reply(200)

    served = await serve(handler)
    answer = await served.ask(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % raw)

    if answer.status == 200:
        assert seen[0].encode("ascii", "surrogateescape") == raw
    else:
        assert (answer.status, seen) == (400, [])


@pytest.mark.parametrize(
    "body", [b"", b"x", b"\x00\r\n\r\nGET / HTTP/1.1\r\n\r\n\xff", b"a" * BODY_LIMIT]
)
async def test_a_body_is_read_exactly_as_sent(serve: Serve, body: bytes) -> None:
    served = await serve()

    assert (await served.ask(post(body))).body == b"POST /retell " + body


async def test_a_compressed_body_is_left_alone(serve: Serve) -> None:
    """Its signature covers the bytes that were sent."""
    served = await serve()
    body = gzip.compress(b"{}")

    answer = await served.ask(post(body, b"Content-Encoding: gzip"))

    assert answer.body == b"POST /retell " + body


async def test_a_body_in_chunks_is_read_whole_without_extensions_and_trailers(
    serve: Serve,
) -> None:
    served = await serve()

    answer = await served.ask(CHUNKED + b"\r\n3;a=b\r\nabc\r\n2\r\nde\r\n0\r\nX-T: 1\r\n\r\n")

    assert answer.body == b"POST /x abcde"


async def test_a_body_that_comes_in_pieces_is_read_whole(serve: Serve) -> None:
    served = await serve()
    client = await served.connect()
    for piece in (b"POST /x HTTP/1.1\r\nHo", b"st: a\r\nContent-Length: 6\r\n\r\na", b"bc", b"def"):
        await client.send(piece)
        await asyncio.sleep(0)

    assert (await client.answer()).body == b"POST /x abcdef"


async def test_a_body_can_be_asked_for_again(serve: Serve) -> None:
    async def handler(incoming: Incoming) -> Reply:
        first = await incoming.read(BODY_LIMIT, far())
        return Reply(200, [], first + await incoming.read(BODY_LIMIT, far()))

    served = await serve(handler)

    assert (await served.ask(post(b"ab"))).body == b"abab"


async def test_a_body_larger_than_the_read_buffer_is_read_whole(serve: Serve) -> None:
    async def handler(incoming: Incoming) -> Reply:
        return Reply(200, [], await incoming.read(1 << 24, far()))

    served = await serve(handler, read_buffer=4096)
    body = bytes(range(256)) * 4096
    in_chunks = b"".join(
        b"%x\r\n%b\r\n" % (len(body[at : at + 7000]), body[at : at + 7000])
        for at in range(0, len(body), 7000)
    )

    assert (await served.ask(post(body))).body == body
    assert (await served.ask(CHUNKED + b"\r\n" + in_chunks + b"0\r\n\r\n")).body == body


async def test_a_declared_length_over_the_limit_is_refused_before_any_body(serve: Serve) -> None:
    served = await serve(refusing)
    client = await served.connect()
    await client.send(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n")

    answer = await client.answer()

    assert (answer.status, answer.body) == (413, b"body_too_large")
    assert answer.header("connection") == "close"
    assert await client.rest() == b""


async def test_chunks_over_the_limit_are_refused_when_they_cross_it(serve: Serve) -> None:
    served = await serve(refusing)
    client = await served.connect()
    await client.send(CHUNKED + b"\r\n3e8\r\n" + b"a" * BODY_LIMIT + b"\r\n")
    await client.send(b"1\r\na\r\n")

    answer = await client.answer()

    assert (answer.status, answer.body) == (413, b"body_too_large")


async def test_chunks_over_the_limit_are_refused_if_all_are_here(serve: Serve) -> None:
    served = await serve(refusing)

    answer = await served.ask(CHUNKED + b"\r\n3e9\r\n" + b"a" * 1001 + b"\r\n0\r\n\r\n")

    assert (answer.status, answer.body) == (413, b"body_too_large")


@pytest.mark.row("L7")
async def test_a_body_that_stalls_is_refused_at_its_deadline(serve: Serve) -> None:
    async def handler(incoming: Incoming) -> Reply:
        with pytest.raises(Refused) as refused:
            await incoming.read(BODY_LIMIT, asyncio.get_running_loop().time() + 0.02)
        return Reply(refused.value.status, [], refused.value.code.encode())

    served = await serve(handler)
    client = await served.connect()
    await client.send(post(b"abc")[:-1])

    answer = await client.answer()

    assert (answer.status, answer.body) == (408, b"body_timeout")
    assert answer.header("connection") == "close"


async def test_the_deadline_of_a_body_ends_with_the_body(serve: Serve) -> None:
    """A handler that works on past it must not be disturbed."""
    dues: list[float] = []

    async def handler(incoming: Incoming) -> Reply:
        await incoming.read(BODY_LIMIT, far())
        (connection,) = served.listener._acceptor.everybody()  # type: ignore[union-attr]
        dues.append(connection.due)
        return Reply(200)

    served = await serve(handler)
    client = await served.connect()
    await client.send(post(b"abc")[:-1])
    await asyncio.sleep(0)
    await client.send(b"c")
    await client.answer()

    assert dues == [NEVER]


@pytest.mark.parametrize(
    "broken", [b"zz\r\nabc\r\n", b"3\r\nabcd\r\n", b"3\r\nabc\n\n", b"+3\r\nabc\r\n0\r\n\r\n"]
)
async def test_framing_that_breaks_half_way_is_refused_where_the_body_is_read(
    serve: Serve, broken: bytes
) -> None:
    reading = asyncio.Event()

    async def handler(incoming: Incoming) -> Reply:
        reading.set()
        return await refusing(incoming)

    served = await serve(handler)
    client = await served.connect()
    await client.send(CHUNKED + b"\r\n")
    await reading.wait()
    await client.send(broken)

    answer = await client.answer()

    assert (answer.status, answer.body) == (400, b"bad_framing")
    assert answer.header("connection") == "close"
    assert await client.rest() == b""
    assert served.faults == []


async def test_a_broken_body_behind_another_request_is_refused_in_its_turn(serve: Serve) -> None:
    go = asyncio.Event()

    async def handler(incoming: Incoming) -> Reply:
        await go.wait()
        return await refusing(incoming)

    served = await serve(handler)
    client = await served.connect()
    await client.send(post(b"first") + CHUNKED + b"\r\n")
    while served.listener.inflight == 0:
        await asyncio.sleep(0)
    await client.send(b"zz\r\n")
    await asyncio.sleep(0.05)  # Either order is right; this makes the one meant here likely.
    go.set()

    assert (await client.answer()).body == b"POST /retell first"
    assert (await client.answer()).body == b"bad_framing"
    assert await client.rest() == b""


async def test_a_caller_who_hangs_up_half_way_is_gone(serve: Serve) -> None:
    seen: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    async def handler(incoming: Incoming) -> Reply:
        with pytest.raises(ClientGone):
            await incoming.read(BODY_LIMIT, far())
        seen.set_result(incoming.gone)
        return Reply(499)

    served = await serve(handler)
    client = await served.connect()
    await client.send(post(b"abc")[:-1])
    while served.listener.inflight == 0:
        await asyncio.sleep(0)
    await client.close()

    assert await seen


async def test_a_body_that_came_whole_stays_readable_when_the_caller_is_gone(serve: Serve) -> None:
    """An event that was sent is better handled than lost."""
    seen: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def handler(incoming: Incoming) -> Reply:
        while not incoming.gone:
            await asyncio.sleep(0)
        seen.set_result(await incoming.read(BODY_LIMIT, far()))
        return Reply(200)

    served = await serve(handler)
    client = await served.connect()
    await client.send(post(b"abc"))
    while served.listener.inflight == 0:
        await asyncio.sleep(0)
    client.abort()

    assert await seen == b"abc"


@pytest.mark.row("E1")
async def test_a_client_that_waits_is_told_to_go_on_when_its_body_is_read(serve: Serve) -> None:
    read = asyncio.Event()

    async def handler(incoming: Incoming) -> Reply:
        await read.wait()
        return await refusing(incoming)

    served = await serve(handler)
    client = await served.connect()
    await client.send(post(b"abc", b"Expect: 100-Continue")[:-3])
    while served.listener.inflight == 0:
        await asyncio.sleep(0)
    assert not client.reader._buffer, "nothing is written before the guards have passed it"  # type: ignore[attr-defined]
    read.set()

    assert await client.head() == (100, [], "HTTP/1.1")
    await client.send(b"abc")
    assert (await client.answer()).body == b"POST /retell abc"


@pytest.mark.row("E3")
async def test_a_refusal_comes_without_going_on(serve: Serve) -> None:
    async def handler(incoming: Incoming) -> Reply:
        return Reply(401)

    served = await serve(handler)
    client = await served.connect()
    await client.send(post(b"abc", b"Expect: 100-continue")[:-3])

    answer = await client.answer()

    assert answer.status == 401
    assert answer.header("connection") == "close", "nobody knows whether the body will come"
    assert await client.rest() == b""


@pytest.mark.row("E3")
async def test_a_body_over_the_limit_is_refused_without_going_on(serve: Serve) -> None:
    served = await serve(refusing)
    client = await served.connect()
    await client.send(
        b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\nExpect: 100-continue\r\n\r\n"
    )

    assert (await client.answer()).status == 413


@pytest.mark.row("E2")
async def test_any_other_expectation_of_who_still_waits_fails(serve: Serve) -> None:
    served = await serve(refusing)

    answer = await served.ask(post(b"abc", b"Expect: 200-ok")[:-3])

    assert (answer.status, answer.body) == (417, b"expectation_failed")


@pytest.mark.row("E5")
async def test_an_old_client_is_never_told_to_go_on(serve: Serve) -> None:
    served = await serve()

    answer = await served.ask(
        b"POST /x HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc"
    )

    assert (answer.status, answer.body) == (200, b"POST /x abc")


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: , chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\nContent-Length: 1\r\n\r\na", 400),
        (b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n", 400),
        (b"POST /x HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"GET /x HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"GET /x HTTP/0.9\r\nHost: a\r\n\r\n", 505),
        (CHUNKED.replace(b"chunked", b"CHUNKED") + b"\r\n0\r\n\r\n", 0),
    ],
)
async def test_heads_that_the_parser_takes_and_a_proxy_must_not(
    serve: Serve, head: bytes, status: int
) -> None:
    """The next hop may read them differently."""
    served = await serve()

    answer = await served.ask(head)

    assert served.faults == ([status] if status else [])
    assert answer.status == (status or 200)
    assert (answer.header("connection") == "close") == bool(status)
