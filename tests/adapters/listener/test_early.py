"""Answers given while their handler goes on: what becomes of the connection, and of the handler."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar

import pytest

from proxy.core.model import Reply
from proxy.ports import Incoming
from tests.adapters.listener.raw import Client, Serve, Served, echo, post

GET = b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKED = (
    b"POST /slow HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"
)
TRAILED = CHUNKED[:-2] + b"Authorization: Bearer theirs\r\n\r\n"
SLOW = post(b"a", target=b"/slow")
PENDING = Reply(200, [(b"content-type", b"text/plain")], b"pending")


class Bookings:
    """Serves like `echo`, but goes on with every `/slow` request until told to `finish`."""

    def __init__(self) -> None:
        self.waiting: list[Incoming] = []
        self.finish = asyncio.Event()
        self.finished = 0
        self.cancelled = 0
        self.late: Reply | Exception = Reply(200, [], b"booked")

    async def __call__(self, incoming: Incoming) -> Reply:
        reply = await echo(incoming)
        if incoming.target != "/slow":
            return reply
        self.waiting.append(incoming)
        try:
            await self.finish.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        self.finished += 1
        if isinstance(self.late, Exception):
            raise self.late
        return self.late

    async def asked(self, times: int = 1) -> Incoming:
        await until(lambda: len(self.waiting) == times)
        return self.waiting[-1]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0)


async def answered_early(serve: Serve, request: bytes = SLOW) -> tuple[Served, Client, Bookings]:
    """A request that has its early answer, read by the client, while its handler goes on."""
    bookings = Bookings()
    served = await serve(bookings, drain_idle=0.0)
    client = await served.connect()
    await client.send(request)
    assert (await bookings.asked()).answer(PENDING)
    answer = await client.answer()
    assert (answer.status, answer.body) == (200, b"pending")
    assert served.listener.late == 1
    return served, client, bookings


async def ended(served: Served, bookings: Bookings) -> None:
    bookings.finish.set()
    await until(lambda: not served.listener.late)


async def test_a_connection_goes_on_while_the_handler_of_an_early_answer_does(
    serve: Serve,
) -> None:
    served, client, bookings = await answered_early(serve)
    for number in range(3):
        await client.send(post(b"%d" % number))
        assert (await client.answer()).body == b"POST /retell %d" % number
    assert (served.listener.inflight, bookings.finished) == (0, 0)

    await ended(served, bookings)
    await client.send(GET % 1)

    assert (await client.answer()).body == b"GET /1 ", "what it returned late went nowhere"
    assert bookings.finished == 1


async def test_early_answers_one_after_another(serve: Serve) -> None:
    served, client, bookings = await answered_early(serve)
    for times in (2, 3):
        await client.send(SLOW)
        assert (await bookings.asked(times)).answer(PENDING)
        assert (await client.answer()).body == b"pending"

    assert served.listener.late == 3
    await ended(served, bookings)
    assert bookings.finished == 3


async def test_requests_behind_the_one_answered_early_get_their_turn(serve: Serve) -> None:
    bookings = Bookings()
    served = await serve(bookings)
    client = await served.connect()
    await client.send(GET % 0 + SLOW + b"".join(GET % number for number in range(1, 50)))
    incoming = await bookings.asked()
    assert (await client.answer()).body == b"GET /0 "
    assert incoming.answer(PENDING)

    bodies = [(await client.answer()).body for _ in range(50)]

    assert bodies == [b"pending", *[b"GET /%d " % number for number in range(1, 50)]]
    await ended(served, bookings)


async def test_an_answer_is_given_once(serve: Serve) -> None:
    served, client, bookings = await answered_early(serve)
    assert not bookings.waiting[0].answer(PENDING)
    await ended(served, bookings)
    assert not bookings.waiting[0].answer(PENDING)
    await client.send(GET % 1)

    assert (await client.answer()).body == b"GET /1 "


async def test_nothing_is_early_once_the_handler_has_ended(serve: Serve) -> None:
    seen: list[Incoming] = []

    async def body() -> AsyncIterator[bytes]:
        yield b"ab"
        assert not seen[0].answer(PENDING)
        yield b"cd"

    async def handler(incoming: Incoming) -> Reply:
        seen.append(incoming)
        return Reply(200, [], body())

    served = await serve(handler)
    client = await served.connect()
    await client.send(GET % 1)

    assert (await client.answer()).body == b"abcd"
    assert not seen[0].answer(PENDING)


async def test_a_handler_may_answer_by_itself(serve: Serve) -> None:
    go = asyncio.Event()

    async def handler(incoming: Incoming) -> Reply:
        assert incoming.answer(PENDING)
        await go.wait()
        return Reply(500)

    served = await serve(handler)

    assert (await served.ask(SLOW)).body == b"pending"
    go.set()


async def test_a_stream_is_no_early_answer(serve: Serve) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"never"

    bookings = Bookings()
    served = await serve(bookings)
    client = await served.connect()
    await client.send(SLOW)
    stream = body()
    assert not (await bookings.asked()).answer(Reply(200, [], stream))
    await stream.aclose()  # type: ignore[attr-defined]
    bookings.finish.set()

    assert (await client.answer()).body == b"booked"


async def test_a_body_that_is_still_coming_rules_an_early_answer_out(serve: Serve) -> None:
    """Nobody could read the rest of it."""
    told: list[bool] = []

    async def handler(incoming: Incoming) -> Reply:
        told.append(incoming.answer(PENDING))
        return await echo(incoming)

    served = await serve(handler)
    client = await served.connect()
    await client.send(post(b"abc")[:-1])
    await until(lambda: bool(told))
    await client.send(b"c")

    assert (await client.answer()).body == b"POST /retell abc"
    assert told == [False]


async def test_a_head_request_hears_the_head_of_its_early_answer(serve: Serve) -> None:
    bookings = Bookings()
    served = await serve(bookings)
    client = await served.connect()
    await client.send(b"HEAD /slow HTTP/1.1\r\nHost: a\r\n\r\n" + GET % 1)
    assert (await bookings.asked()).answer(PENDING)
    answer = await client.answer("HEAD")

    assert (answer.header("content-length"), answer.body) == ("7", b"")
    assert (await client.answer()).body == b"GET /1 "
    await ended(served, bookings)


@pytest.mark.parametrize(
    ("request_bytes", "connection"),
    [
        (post(b"a", b"Connection: close", target=b"/slow"), "close"),
        (b"POST /slow HTTP/1.0\r\nContent-Length: 1\r\n\r\na", "close"),
        (TRAILED, None),
        (CHUNKED, None),
        (b"GET /slow HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "keep-alive"),
    ],
)
async def test_a_connection_ends_with_an_early_answer_as_with_any_other(
    serve: Serve, request_bytes: bytes, connection: str | None
) -> None:
    bookings = Bookings()
    served = await serve(bookings)
    client = await served.connect()
    await client.send(request_bytes)
    assert (await bookings.asked()).answer(PENDING)
    answer = await client.answer()

    assert (answer.body, answer.header("connection")) == (b"pending", connection)
    if connection == "close":
        assert await client.rest() == b""
        await until(lambda: not served.listener.open_connections)
    else:
        await client.send(GET % 1)
        assert (await client.answer()).body == b"GET /1 "
    assert served.listener.late == 1
    await ended(served, bookings)


async def test_an_early_answer_may_ask_for_the_end_of_the_connection(serve: Serve) -> None:
    bookings = Bookings()
    served = await serve(bookings)
    client = await served.connect()
    await client.send(SLOW + GET % 1)
    assert (await bookings.asked()).answer(Reply(200, [], b"pending", close=True))

    assert (await client.answer()).header("connection") == "close"
    assert await client.rest() == b""
    await ended(served, bookings)


async def test_an_early_answer_that_cannot_be_framed_ends_in_502(serve: Serve) -> None:
    bookings = Bookings()
    served = await serve(bookings)
    client = await served.connect()
    await client.send(SLOW)
    assert (await bookings.asked()).answer(Reply(200, [(b"x", b"a\r\nb")], b"pending"))

    assert (await client.answer()).status == 502
    assert await client.rest() == b""
    assert served.faults == [502]
    assert len(served.reports) == 1
    served.reports.clear()
    await ended(served, bookings)


async def test_an_early_answer_is_written_no_faster_than_it_is_taken(serve: Serve) -> None:
    bookings = Bookings()
    served = await serve(bookings, write_timeout=0.05)
    client = await served.connect()
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    await client.send(SLOW + GET % 1)
    assert (await bookings.asked()).answer(Reply(200, [], b"x" * 20_000_000))
    await until(lambda: served.listener.open_connections == 0)
    await until(lambda: served.listener.inflight == 0)

    assert served.listener.late == 1
    await ended(served, bookings)


async def test_a_caller_who_has_left_cannot_be_answered_early(serve: Serve) -> None:
    bookings = Bookings()
    served = await serve(bookings)
    client = await served.connect()
    await client.send(SLOW)
    incoming = await bookings.asked()
    await client.close()
    await until(lambda: incoming.gone)

    assert not incoming.answer(PENDING)
    bookings.finish.set()
    await until(lambda: not served.listener.inflight)
    assert bookings.finished == 1


async def test_a_caller_who_leaves_after_an_early_answer_stops_nobody(serve: Serve) -> None:
    served, client, bookings = await answered_early(serve)
    acceptor = served.listener._acceptor
    assert acceptor is not None
    client.abort()
    await until(lambda: not acceptor.everybody())

    assert (served.listener.late, bookings.cancelled) == (1, 0)
    await ended(served, bookings)
    assert (bookings.finished, bookings.waiting[0].gone) == (1, False)


async def test_a_caller_who_leaves_while_the_early_answer_is_on_its_way(serve: Serve) -> None:
    bookings = Bookings()
    served = await serve(bookings)
    client = await served.connect()
    await client.send(SLOW)
    incoming = await bookings.asked()
    (connection,) = served.listener._acceptor.everybody()  # type: ignore[union-attr]
    assert incoming.answer(PENDING)
    connection.abort()
    await until(lambda: not served.listener.open_connections)
    await until(lambda: not served.listener.inflight)

    assert served.listener.late == 1
    await ended(served, bookings)


async def test_a_stream_returned_late_is_let_go(serve: Serve) -> None:
    class Stream:
        closed = 0

        def __aiter__(self) -> AsyncIterator[bytes]:
            return self

        async def __anext__(self) -> bytes:
            raise AssertionError

        async def aclose(self) -> None:
            self.closed += 1
            raise RuntimeError("a bug")

    served, client, bookings = await answered_early(serve)
    stream = Stream()
    bookings.late = Reply(200, [], stream)
    await ended(served, bookings)
    await client.send(GET % 1)

    assert (await client.answer()).body == b"GET /1 "
    assert stream.closed == 1
    assert [str(report["exception"]) for report in served.reports] == ["a bug"]
    served.reports.clear()


async def test_a_handler_that_fails_late_is_reported_and_nothing_else(serve: Serve) -> None:
    served, client, bookings = await answered_early(serve)
    bookings.late = RuntimeError("a bug")
    await ended(served, bookings)
    await client.send(GET % 1)

    assert (await client.answer()).body == b"GET /1 "
    assert served.faults == []
    assert [str(report["exception"]) for report in served.reports] == ["a bug"]
    served.reports.clear()


async def test_a_drain_waits_for_late_handlers(serve: Serve) -> None:
    served, client, bookings = await answered_early(serve)
    draining = asyncio.ensure_future(served.listener.drain(30.0))
    assert await client.rest() == b"", "an idle connection is not held open for them"
    await until(lambda: not served.listener.open_connections)
    assert not draining.done()
    bookings.finish.set()

    assert await draining == 0
    assert (bookings.finished, bookings.cancelled) == (1, 0)


async def test_an_answer_given_early_during_a_drain_closes_its_connection(serve: Serve) -> None:
    bookings = Bookings()
    served = await serve(bookings, drain_idle=0.0)
    client = await served.connect()
    await client.send(SLOW)
    incoming = await bookings.asked()
    draining = asyncio.ensure_future(served.listener.drain(30.0))
    await until(lambda: not served.listener._servers)
    assert incoming.answer(PENDING)

    assert (await client.answer()).header("connection") == "close"
    assert await client.rest() == b""
    assert not draining.done()
    bookings.finish.set()
    assert await draining == 0


@pytest.mark.parametrize("left", [False, True])
async def test_late_handlers_that_outlast_the_grace_are_cut_but_not_counted(
    serve: Serve, left: bool
) -> None:
    served, client, bookings = await answered_early(serve)
    if left:
        client.abort()
        await until(lambda: not served.listener.open_connections)

    assert await served.listener.drain(0.02) == 0
    assert (bookings.cancelled, served.listener.late) == (1, 0)


async def test_a_late_handler_and_an_unanswered_one_are_cut_and_one_is_counted(
    serve: Serve,
) -> None:
    served, client, bookings = await answered_early(serve)
    await client.send(SLOW)
    await bookings.asked(2)

    assert await served.listener.drain(0.02) == 1
    assert bookings.cancelled == 2


async def test_a_drain_that_waits_for_late_handlers_can_be_hurried(serve: Serve) -> None:
    served, client, bookings = await answered_early(serve)
    draining = asyncio.ensure_future(served.listener.drain(30.0))
    assert await client.rest() == b""
    served.listener.hurry()

    assert await draining == 0
    assert (bookings.cancelled, served.listener.late) == (1, 0)


async def test_garbage_behind_a_request_answered_early_is_answered_in_its_turn(
    serve: Serve,
) -> None:
    served, client, bookings = await answered_early(serve)
    await client.send(b"nonsense\r\n\r\n")

    assert (await client.answer()).status == 400
    assert await client.rest() == b""
    await ended(served, bookings)


async def test_a_connection_that_is_idle_after_an_early_answer_is_closed_in_time(
    serve: Serve,
) -> None:
    bookings = Bookings()
    served = await serve(bookings, idle_timeout=0.03, head_timeout=30.0)
    client = await served.connect()
    await client.send(SLOW)
    assert (await bookings.asked()).answer(PENDING)
    assert (await client.answer()).body == b"pending"

    assert await client.rest() == b""
    await ended(served, bookings)


VARIABLE: ContextVar[str] = ContextVar("variable", default="nobody's")


async def test_an_early_answer_carries_no_context_from_whoever_asked_for_it(serve: Serve) -> None:
    """A sweep's timer belongs to the connection whose request armed it."""
    seen: list[str] = []
    bookings = Bookings()

    async def handler(incoming: Incoming) -> Reply:
        seen.append(VARIABLE.get())
        return await bookings(incoming)

    served = await serve(handler)
    client = await served.connect()
    await client.send(SLOW)
    incoming = await bookings.asked()
    token = VARIABLE.set("somebody else's")
    assert incoming.answer(PENDING)
    VARIABLE.reset(token)
    assert (await client.answer()).body == b"pending"
    await client.send(GET % 1)
    await client.answer()

    assert seen == ["nobody's", "nobody's"]
    await ended(served, bookings)
