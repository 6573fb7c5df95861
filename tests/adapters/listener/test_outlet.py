"""How answers leave, and how connections end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from proxy.core.model import Reply
from proxy.errors import UpstreamFailed
from proxy.ports import Incoming
from tests.adapters.listener.raw import Handle, Serve, post

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


class Stream:
    """A body in parts that remembers how it ended."""

    def __init__(self, *parts: bytes, error: Exception | None = None, wait: bool = False) -> None:
        self.parts = list(parts)
        self.error = error
        self.wait = wait
        self.closed = 0
        self.given = 0

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        await asyncio.sleep(0)
        if self.parts:
            self.given += 1
            return self.parts.pop(0)
        if self.error is not None:
            raise self.error
        if self.wait:
            await asyncio.Event().wait()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.closed += 1


def answering(reply: Reply) -> Handle:
    async def handler(incoming: Incoming) -> Reply:
        return reply

    return handler


async def test_a_stream_of_known_length(serve: Serve) -> None:
    bodies = [Stream(b"abc", b"", b"def"), Stream(b"ghijkl")]
    given = list(bodies)

    async def handler(incoming: Incoming) -> Reply:
        return Reply(200, [], given.pop(0), length=6)

    served = await serve(handler)
    client = await served.connect()
    for expected in (b"abcdef", b"ghijkl"):
        await client.send(GET)
        answer = await client.answer()
        assert (answer.body, answer.headers) == (expected, [("content-length", "6")])

    assert [body.closed for body in bodies] == [1, 1]


async def test_whole_answers_and_streams_leave_in_the_order_of_their_requests(
    serve: Serve,
) -> None:
    """Whole ones wait for the end of the turn; a stream behind them must not overtake them."""
    given = [
        Reply(200, [], b"first"),
        Reply(200, [], b"second"),
        Reply(200, [], Stream(b"third"), length=5),
        Reply(200, [], b"x" * 100_000),
        Reply(200, [], b"fifth"),
    ]
    expected = [b"first", b"second", b"third", b"x" * 100_000, b"fifth"]

    async def handler(incoming: Incoming) -> Reply:
        return given.pop(0)

    served = await serve(handler)
    client = await served.connect()
    await client.send(GET * 5)

    assert [(await client.answer()).body for _ in expected] == expected


async def test_an_answer_that_waits_is_not_lost_when_the_connection_ends(serve: Serve) -> None:
    given = [Reply(200, [], b"first"), Reply(200, [(b"x", b"1\r\ny: 2")], b"unsafe")]

    async def handler(incoming: Incoming) -> Reply:
        return given.pop(0)

    served = await serve(handler)
    client = await served.connect()
    await client.send(GET * 2)

    assert [(await client.answer()).status for _ in range(2)] == [200, 502]
    assert len(served.reports) == 1
    served.reports.clear()


async def test_a_stream_of_unknown_length_is_chunked(serve: Serve) -> None:
    body = Stream(b"abc", b"", b"defghijklmnopqrstuvw")
    served = await serve(answering(Reply(200, [], body)))
    client = await served.connect()
    await client.send(GET)

    answer = await client.answer()

    assert answer.body == b"abcdefghijklmnopqrstuvw"
    assert answer.headers == [("transfer-encoding", "chunked")]
    assert body.closed == 1


async def test_a_stream_to_an_old_client_ends_with_the_connection(serve: Serve) -> None:
    served = await serve(answering(Reply(200, [], Stream(b"abc", b"def"))))
    client = await served.connect()
    await client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")

    answer = await client.answer()

    assert (answer.body, answer.headers) == (b"abcdef", [("connection", "close")])


async def test_the_head_of_a_stream_does_not_wait_for_its_body(serve: Serve) -> None:
    served = await serve(answering(Reply(200, [], Stream(wait=True))))
    client = await served.connect()
    await client.send(GET)

    assert (await client.head())[0] == 200


@pytest.mark.row("R7", "R8")
@pytest.mark.parametrize("length", [None, 10])
@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
async def test_a_stream_that_breaks_never_ends_cleanly(
    serve: Serve, length: int | None, version: bytes
) -> None:
    """Half an answer must not be taken for the whole, not even by a client without framing."""
    body = Stream(b"abc", error=UpstreamFailed("reset", "gone", sent=True))
    served = await serve(answering(Reply(200, [], body, length=length)))
    client = await served.connect()
    await client.send(b"GET / HTTP/%b\r\nHost: a\r\n\r\n" % version)

    with pytest.raises(ConnectionResetError):
        await client.to_the_end()
    assert body.closed == 1


@pytest.mark.row("R7")
async def test_a_stream_shorter_than_declared_never_ends_cleanly(serve: Serve) -> None:
    served = await serve(answering(Reply(200, [], Stream(b"abc"), length=4)))
    client = await served.connect()
    await client.send(GET)

    with pytest.raises(ConnectionResetError):
        await client.to_the_end()
    assert len(served.reports) == 1
    served.reports.clear()


async def test_surplus_of_a_stream_is_not_sent(serve: Serve) -> None:
    served = await serve(answering(Reply(200, [], Stream(b"abc", b"def"), length=4)))

    assert (await served.ask(GET)).body == b"abcd"


async def test_a_bug_in_a_stream_is_reported(serve: Serve) -> None:
    served = await serve(answering(Reply(200, [], Stream(b"abc", error=RuntimeError("a bug")))))
    client = await served.connect()
    await client.send(GET)

    with pytest.raises(ConnectionResetError):
        await client.to_the_end()
    assert [str(report["exception"]) for report in served.reports] == ["a bug"]
    served.reports.clear()


@pytest.mark.parametrize("status", [204, 304])
async def test_a_stream_that_may_have_no_body_is_closed_unread(serve: Serve, status: int) -> None:
    body = Stream(b"abc")
    served = await serve(answering(Reply(status, [], body)))
    client = await served.connect()
    await client.send(GET)

    assert (await client.answer()).status == status
    await client.send(GET)
    assert (await client.answer()).status == status
    assert (body.given, body.closed) == (0, 2)


@pytest.mark.row("R6")
async def test_the_answer_to_a_head_request_has_its_length_and_no_body(serve: Serve) -> None:
    served = await serve(answering(Reply(200, [], b"{}")))
    client = await served.connect()
    await client.send(GET.replace(b"GET", b"HEAD"))

    assert (await client.answer("HEAD")).header("content-length") == "2"
    await client.send(GET)
    assert (await client.answer()).body == b"{}"


@pytest.mark.row("R12")
async def test_a_stream_goes_no_faster_than_its_reader(serve: Serve) -> None:
    body = Stream(*[b"x" * 65536] * 300)
    served = await serve(answering(Reply(200, [], body)))
    client = await served.connect()
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    await client.send(GET)
    await client.head()
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    (connection,) = served.listener._acceptor.everybody()  # type: ignore[union-attr]
    while not connection.writing_paused:
        await asyncio.sleep(0)
    given = body.given
    await asyncio.sleep(0.05)

    assert body.given == given < 300
    client.writer.transport.resume_reading()  # type: ignore[attr-defined]
    assert len(await client.chunks()) == 65536 * 300


async def test_a_caller_who_hangs_up_ends_a_stream_that_is_silent(serve: Serve) -> None:
    """An event stream may say nothing for hours; its upstream connection is freed at once."""
    body = Stream(b"abc", wait=True)
    served = await serve(answering(Reply(200, [], body)))
    client = await served.connect()
    await client.send(GET)
    await client.head()
    client.abort()

    while served.listener.inflight:
        await asyncio.sleep(0)
    assert body.closed == 1


async def test_a_caller_who_hangs_up_ends_a_stream_that_flows(serve: Serve) -> None:
    class Endless(Stream):
        async def __anext__(self) -> bytes:
            await asyncio.sleep(0)
            self.given += 1
            return b"x" * 10_000

    body = Endless()
    served = await serve(answering(Reply(200, [], body)))
    client = await served.connect()
    await client.send(GET)
    await client.head()
    client.abort()

    while served.listener.inflight:
        await asyncio.sleep(0)
    assert body.closed == 1


async def test_a_stream_for_a_caller_who_is_gone_is_closed_unread(serve: Serve) -> None:
    body = Stream(b"abc")

    async def handler(incoming: Incoming) -> Reply:
        while not incoming.gone:
            await asyncio.sleep(0)
        return Reply(200, [], body)

    served = await serve(handler)
    client = await served.connect()
    await client.send(GET)
    while served.listener.inflight == 0:
        await asyncio.sleep(0)
    client.abort()
    while served.listener.inflight:
        await asyncio.sleep(0)

    assert (body.given, body.closed) == (0, 1)


@pytest.mark.row("L9")
@pytest.mark.row("R12")
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_client_that_takes_nothing_is_cut_off(serve: Serve, streamed: bool) -> None:
    parts = [b"x" * 1_000_000] * 20
    body: Stream | bytes = Stream(*parts) if streamed else b"".join(parts)
    served = await serve(answering(Reply(200, [], body)), write_timeout=0.05)
    client = await served.connect()
    await client.send(GET)
    await client.head()
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]

    while served.listener.open_connections or served.listener.inflight:
        await asyncio.sleep(0.01)
    if isinstance(body, Stream):
        assert body.closed == 1


@pytest.mark.parametrize("field", [b"", b"Connection: close\r\n"])
async def test_a_client_that_takes_its_time_is_not_cut_off(serve: Serve, field: bytes) -> None:
    """The deadline is for progress, not for the whole; also once only the flush is left."""
    served = await serve(answering(Reply(200, [], b"x" * 6_000_000)), write_timeout=0.2)
    client = await served.connect()
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    await client.send(GET.replace(b"\r\n\r\n", b"\r\n%b\r\n" % field))
    await client.head()
    taken = 0
    while taken < 6_000_000:
        taken += len(await client.reader.read(200_000))
        await asyncio.sleep(0.02)

    assert taken == 6_000_000


async def test_a_closing_client_that_takes_nothing_is_cut_off(serve: Serve) -> None:
    served = await serve(answering(Reply(200, [], b"x" * 60_000)), write_timeout=0.05)
    client = await served.connect()
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    await client.send(GET * 90 + GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))

    while served.listener.open_connections:
        await asyncio.sleep(0.01)


async def test_an_answer_before_the_body_arrives_whole_and_closes(serve: Serve) -> None:
    """Closing on unread bytes would make the kernel reset the answer away."""
    served = await serve(answering(Reply(401, [], b"no")))
    client = await served.connect()
    await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\n\r\n")
    answer = await client.answer()
    await client.send(b"x" * 5_000_000)

    assert (answer.status, answer.body, answer.header("connection")) == (401, b"no", "close")
    assert await client.rest() == b""


async def test_a_client_that_never_stops_sending_is_cut_off(serve: Serve) -> None:
    served = await serve(answering(Reply(401)), linger=0.05)
    client = await served.connect()
    await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\n\r\n")
    await client.answer()

    async def send_on() -> None:
        while True:
            await client.send(b"x" * 1000)
            await asyncio.sleep(0.005)

    with pytest.raises(OSError):
        await send_on()


async def test_a_body_that_is_here_but_unread_does_not_close_the_connection(serve: Serve) -> None:
    served = await serve(answering(Reply(429)))
    client = await served.connect()
    for _ in range(2):
        await client.send(post(b"abc"))
        assert (await client.answer()).header("connection") is None


async def test_a_reply_may_ask_to_close(serve: Serve) -> None:
    served = await serve(answering(Reply(400, close=True)))
    client = await served.connect()
    await client.send(post(b"abc"))

    assert (await client.answer()).header("connection") == "close"
    assert await client.rest() == b""


@pytest.mark.parametrize("streamed", [False, True])
async def test_an_answer_that_would_break_the_wire_becomes_502(
    serve: Serve, streamed: bool
) -> None:
    body = Stream(b"abc")
    headers = [(b"x-a", b"1\r\nSet-Cookie: a=b")]
    served = await serve(answering(Reply(200, headers, body if streamed else b"abc")))
    client = await served.connect()
    await client.send(GET)

    answer = await client.answer()

    assert (answer.status, answer.header("x-a"), served.faults) == (502, None, [502])
    assert await client.rest() == b""
    assert (body.given, body.closed) == (0, int(streamed))
    assert len(served.reports) == 1
    served.reports.clear()


async def test_an_iterator_that_cannot_be_closed_is_fine(serve: Serve) -> None:
    class Bare:
        done = False

        def __aiter__(self) -> AsyncIterator[bytes]:
            return self

        async def __anext__(self) -> bytes:
            if self.done:
                raise StopAsyncIteration
            self.done = True
            return b"abc"

    served = await serve(answering(Reply(200, [], Bare())))

    assert (await served.ask(GET)).body == b"abc"


async def test_a_caller_who_leaves_while_an_answer_waits_for_it(serve: Serve) -> None:
    served = await serve(answering(Reply(200, [], b"x" * 20_000_000)))
    client = await served.connect()
    await client.send(GET)
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    (connection,) = served.listener._acceptor.everybody()  # type: ignore[union-attr]
    while not connection._flushing:
        await asyncio.sleep(0)
    client.abort()

    while served.listener.open_connections or served.listener.inflight:
        await asyncio.sleep(0)


async def test_a_stream_that_outlives_its_own_cancellation_still_ends(serve: Serve) -> None:
    """An iterator may swallow the cancellation that the caller's leaving sent it."""

    class Stubborn(Stream):
        async def __anext__(self) -> bytes:
            self.given += 1
            if self.given > 1:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    pass
            return b"x"

    body = Stubborn()
    served = await serve(answering(Reply(200, [], body)))
    client = await served.connect()
    await client.send(GET)
    await client.head()
    client.abort()

    while served.listener.inflight:
        await asyncio.sleep(0)
    assert (body.given, body.closed) == (2, 1)


async def test_a_stream_that_ends_as_its_caller_leaves(serve: Serve) -> None:
    class Last(Stream):
        async def __anext__(self) -> bytes:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                pass
            raise StopAsyncIteration

    body = Last()
    served = await serve(answering(Reply(200, [], body)))
    client = await served.connect()
    await client.send(GET)
    await client.head()
    client.abort()

    while served.listener.inflight:
        await asyncio.sleep(0)
    assert body.closed == 1


async def test_a_fault_of_a_client_who_left_needs_no_answer(serve: Serve) -> None:
    go = asyncio.Event()

    async def handler(incoming: Incoming) -> Reply:
        await go.wait()
        raise RuntimeError("a bug")

    served = await serve(handler)
    client = await served.connect()
    await client.send(GET)
    while served.listener.inflight == 0:
        await asyncio.sleep(0)
    client.abort()
    while served.listener.open_connections:
        await asyncio.sleep(0)
    go.set()
    while served.listener.inflight:
        await asyncio.sleep(0)

    assert served.faults == [500]
    served.reports.clear()
