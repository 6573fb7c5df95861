"""One exchange on one connection: every way to be split, leaving, lingering."""

from __future__ import annotations

import asyncio
import socket
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.adapters.turn import Turn
from proxy.adapters.upstream.connection import Connection, Unsent
from proxy.core.model import Reply
from proxy.errors import UpstreamFailed
from tests.adapters.upstream.origin import (
    Asked,
    Client,
    Peer,
    answering,
    failing,
    ok,
    read,
    swallowing,
    until,
)

Origins = Any


# -- Leaving, lingering.


SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
BOOKED = b"data: booked\n\n"
IN_CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
LATE_ANSWERS = {
    "in one piece": ([ok(b"booked")], b"booked"),
    "head first": ([ok(b"booked")[:-6], b"booked"], b"booked"),
    "cut in its head": ([ok(b"booked")[:20], ok(b"booked")[20:]], b"booked"),
    "chunked": ([IN_CHUNKS, b"3\r\nboo\r\n", b"3\r\nked\r\n0\r\n\r\n"], b"booked"),
    "to the end": ([b"HTTP/1.1 200 OK\r\n\r\nboo", b"ked"], b"booked"),
    "events": ([SSE + b"Content-Length: %d\r\n\r\n" % len(BOOKED), BOOKED], BOOKED),
    "large": ([ok(b"x" * 300_000)[:-9], b"x" * 9], b"x" * 300_000),
}


class Slow:
    """An origin that sends `before`, is then `overdue`, and sends the rest when it may `finish`."""

    def __init__(self, client: Client, before: bytes, *after: bytes, then: bytes | None) -> None:
        self.overdue, self.finish = asyncio.Event(), asyncio.Event()
        self._client = client
        self._before, self._after, self._then = before, after, then

    async def __call__(self, peer: Peer) -> None:
        await peer.request()
        await peer.send(self._before)
        await self.overdue.wait()
        self._client.clock.ahead += 10.0
        await self.finish.wait()
        for piece in self._after:
            await peer.send(piece)
            await asyncio.sleep(0.002)
        if self._then is not None:
            await answering(then=self._then)(peer)


@pytest.mark.parametrize("begun", [False, True], ids=["nothing yet", "begun"])
@pytest.mark.parametrize(("pieces", "body"), LATE_ANSWERS.values(), ids=LATE_ANSWERS)
async def test_a_late_answer_comes_to_whoever_waits_on(
    origins: Origins, client: Client, pieces: list[bytes], body: bytes, begun: bool
) -> None:
    """However much of it is here: only a stream whose head is here is in time."""
    begun = begun and len(pieces) > 1
    before, after = (pieces[0], pieces[1:]) if begun else (b"", pieces)
    streams = begun and (len(body) > 100_000 or body == BOOKED)
    lasts = not pieces[0].startswith(b"HTTP/1.1 200 OK\r\n\r\n")
    slow = Slow(client, before, *after, then=ok() if lasts else None)
    upstream = client.upstream((await origins(slow)).port)
    asked = Asked()
    sending = asyncio.create_task(client.send(upstream, linger=30.0, late=asked))
    await until(lambda: sending.done() or not streams)
    slow.overdue.set()
    await until(lambda: asked.times == 1 or streams)
    slow.finish.set()
    reply = await sending
    assert (reply.status, await read(reply)) == (200, body)
    assert (asked.times, upstream.idle) == (not streams, lasts)
    if lasts:
        await client.send(upstream)
        assert upstream.opened_total == 1


async def test_a_late_answer_that_is_cut_half_way(origins: Origins, client: Client) -> None:
    slow = Slow(client, b"", ok(b"booked")[:-3], then=None)
    slow.overdue.set()
    upstream = client.upstream((await origins(slow)).port)
    asked = Asked()
    sending = asyncio.create_task(client.send(upstream, linger=30.0, late=asked))
    await until(lambda: asked.times == 1)
    slow.finish.set()
    failure = await failing(sending)
    assert (failure.why, failure.sent, upstream.busy) == ("reset", True, 0)


@pytest.mark.parametrize("before", [b"", ok(b"booked")[:-3]], ids=["nothing", "half of it"])
async def test_waiting_for_a_late_answer_has_an_end(
    origins: Origins, client: Client, before: bytes
) -> None:
    gone = asyncio.Event()

    async def silent(peer: Peer) -> None:
        await peer.request()
        await peer.send(before)
        client.clock.ahead += 10.0
        await peer.gone()
        gone.set()

    upstream = client.upstream((await origins(silent)).port)
    asked = Asked()
    sending = asyncio.create_task(client.send(upstream, linger=30.0, late=asked))
    await until(lambda: asked.times == 1)
    client.clock.ahead += 31.0
    failure = await failing(sending)
    assert (failure.why, failure.sent, upstream.busy) == ("timeout", True, 0)
    assert asked.times == 1
    await gone.wait()


@pytest.mark.parametrize("asked", [Asked(False), None], ids=["no", "absent"])
async def test_who_will_not_wait_on_hears_of_the_timeout_and_the_upstream_may_finish(
    origins: Origins, client: Client, asked: Asked | None
) -> None:
    slow = Slow(client, b"", ok(b"booked"), then=ok())
    slow.overdue.set()
    upstream = client.upstream((await origins(slow)).port)
    failure = await failing(client.send(upstream, linger=30.0, late=asked))
    assert (failure.why, failure.sent, upstream.busy) == ("timeout", True, 1)
    assert asked is None or asked.times > 0
    slow.finish.set()
    await until(lambda: upstream.idle == 1)
    await client.send(upstream)
    assert upstream.opened_total == 1


async def test_a_late_answer_that_nobody_waits_for_is_not_kept(
    origins: Origins, client: Client
) -> None:
    slow = Slow(client, b"", ok(b"a" * 3000)[:-1000], b"a" * 1000, then=ok())
    slow.overdue.set()
    upstream = client.upstream((await origins(slow)).port)
    await failing(client.send(upstream, linger=30.0, buffer=1500))
    slow.finish.set()
    await until(lambda: upstream.idle == 1)


async def test_lingering_for_nobody_has_an_end(origins: Origins, client: Client) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        client.clock.ahead += 10.0
        await peer.gone()

    upstream = client.upstream((await origins(script)).port)
    await failing(client.send(upstream, linger=30.0))
    assert upstream.busy == 1
    client.clock.ahead += 31.0
    await until(lambda: upstream.busy == 0)


async def test_without_lingering_nobody_is_asked(origins: Origins, client: Client) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        client.clock.ahead += 10.0
        await peer.gone()

    upstream = client.upstream((await origins(script)).port)
    asked = Asked()
    failure = await failing(client.send(upstream, late=asked))
    assert (failure.why, asked.times, upstream.busy) == ("timeout", 0, 0)


async def test_who_leaves_while_a_late_answer_is_awaited_lets_it_come(
    origins: Origins, client: Client
) -> None:
    slow = Slow(client, b"", ok(b"booked"), then=ok())
    slow.overdue.set()
    upstream = client.upstream((await origins(slow)).port)
    asked = Asked()
    sending = asyncio.create_task(client.send(upstream, linger=30.0, late=asked))
    await until(lambda: asked.times == 1)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert upstream.busy == 1
    slow.finish.set()
    await until(lambda: upstream.idle == 1)


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
    late = Asked()
    task = asyncio.create_task(client.send(upstream, linger=30.0, late=late))
    await asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    client.clock.ahead += 20.0  # Past the deadline, within deadline + linger.
    await asyncio.sleep(0.02)
    assert upstream.busy == 1
    finish.set()
    await until(lambda: upstream.idle == 1)
    assert late.times == 0


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


# -- Without a network: every segmentation, every crossing.


class Wire:
    """A transport that remembers; its socket is one end of a pair, for the kernel to be asked."""

    def __init__(self) -> None:
        self.socket, self.other = socket.socketpair()
        self.written: list[bytes] = []
        self.unsent = 0
        self.aborted = False
        self.flow: list[str] = []

    def get_extra_info(self, name: str) -> Any:
        return self.socket

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def writelines(self, data: Iterable[bytes]) -> None:
        self.written.extend(data)

    def is_closing(self) -> bool:
        return self.aborted

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def abort(self) -> None:
        self.aborted = True

    def pause_reading(self) -> None:
        self.flow.append("pause")

    def resume_reading(self) -> None:
        self.flow.append("resume")

    def close(self) -> None:
        self.socket.close()
        self.other.close()


class Pool:
    """What a connection tells its owner."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def released(self, connection: Connection) -> None:
        self.told.append("released")

    def dropped(self, connection: Connection) -> None:
        self.told.append("dropped")

    def lost(self, connection: Connection) -> None:
        self.told.append("lost")


class Line:
    """A connection with everything around it."""

    def __init__(self) -> None:
        self.wire, self.pool, self.asked = Wire(), Pool(), Asked()
        self.connection = Connection(
            self.pool, (socket.AF_INET, ("192.0.2.1", 80)), stall=60.0, turn=Turn()
        )
        self.connection.connection_made(self.wire)  # type: ignore[arg-type]

    def wait(self, **options: Any) -> asyncio.Future[Reply]:
        """Begin an exchange whose request waits for the end of the turn."""
        settings = {"bodiless": False, "limit": 1000, "deadline": 10.0, "linger": 0.0, "late": None}
        return self.connection.start(b"HEAD", b"", **{**settings, **options})

    def start(self, **options: Any) -> asyncio.Future[Reply]:
        waiter = self.wait(**options)
        self.connection.write_out()
        return waiter

    def feed(self, *segments: bytes) -> None:
        for segment in segments:
            self.connection.data_received(segment)


@pytest.fixture
def line() -> Iterator[Callable[[], Line]]:
    made: list[Line] = []

    def make() -> Line:
        made.append(Line())
        return made[-1]

    yield make
    for one in made:
        one.wire.close()


BODY = b"hello\r\n\r\n0\r\n"
LEGAL = [
    (ok(BODY, b"X-A: b", b"X-a:c"), False),
    (ok(), False),
    (b"HTTP/1.1 204 No Content\r\n\r\n", False),
    (ok(BODY)[: -len(BODY)], True),
    (b"HTTP/1.1 100 \r\nX: y\r\n\r\nHTTP/1.1 103\r\n\r\n" + ok(BODY), False),
    (
        b"HTTP/1.1 500 Oh\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"5\r\nhello\r\n9;x=y\r\n\r\n\r\n0\r\n!!\r\n0\r\nT: u\r\n\r\n",
        False,
    ),
]


@pytest.mark.parametrize(("answer", "bodiless"), LEGAL)
async def test_an_answer_is_the_same_however_it_is_cut(
    line: Callable[[], Line], answer: bytes, bodiless: bool
) -> None:
    """Every pair of cuts, and every byte by itself."""

    def outcome(*segments: bytes) -> tuple[Reply, list[str]]:
        one = line()
        waiter = one.start(bodiless=bodiless)
        one.feed(*segments)
        one.wire.close()
        return waiter.result(), one.pool.told

    whole = outcome(answer)
    assert whole[1] == ["released"]
    assert outcome(*[answer[at : at + 1] for at in range(len(answer))]) == whole
    for first in range(1, len(answer)):
        for second in range(first + 1, len(answer), 3):
            assert outcome(answer[:first], answer[first:second], answer[second:]) == whole


@given(
    st.lists(st.tuples(st.from_regex(rb"\AX-[a-z]{0,5}\Z"), st.from_regex(rb"\A[ -~]{0,9}\Z"))),
    st.lists(st.binary(min_size=1, max_size=50), max_size=4),
    st.booleans(),
    st.data(),
)
async def test_any_legal_answer_cut_anywhere_is_read_back(
    fields: list[tuple[bytes, bytes]], pieces: list[bytes], chunked: bool, data: st.DataObject
) -> None:
    body = b"".join(pieces)
    lines = [b"HTTP/1.1 200 OK", *[b": ".join(field) for field in fields]]
    if chunked:
        lines.append(b"Transfer-Encoding: chunked")
        body_wire = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
        body_wire += b"0\r\n\r\n"
    else:
        lines.append(b"Content-Length: %d" % len(body))
        body_wire = body
    wire = b"\r\n".join(lines) + b"\r\n\r\n" + body_wire
    cuts = sorted(data.draw(st.sets(st.integers(1, len(wire) - 1), max_size=6)))
    one = Line()
    waiter = one.start()
    one.feed(*[wire[a:b] for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True)])
    one.wire.close()
    expected = [(name, value.strip(b" ")) for name, value in fields]
    assert waiter.result() == Reply(200, expected, body, None, b"OK")
    assert one.pool.told == ["released"]


async def test_a_large_body_is_not_copied_behind_its_head(line: Callable[[], Line]) -> None:
    one = line()
    body = b"x" * 65_537
    one.connection.start(
        b"HEAD", body, bodiless=False, limit=1, deadline=1.0, linger=0.0, late=None
    )
    one.connection.write_out()
    assert one.wire.written == [b"HEAD", body]
    assert one.wire.written[1] is body


async def test_a_request_is_written_when_the_turn_is_over(line: Callable[[], Line]) -> None:
    one = line()
    one.wait()
    assert one.wire.written == []

    await asyncio.sleep(0)

    assert one.wire.written == [b"HEAD"]
    one.connection.write_out()
    assert one.wire.written == [b"HEAD"]


def unseen_bytes(one: Line) -> None:
    one.wire.other.send(b"x")


def unseen_end(one: Line) -> None:
    one.wire.other.close()


def seen_bytes(one: Line) -> None:
    one.connection.data_received(b"HTTP/1.1 408 Request Timeout\r\n\r\n")


def seen_end(one: Line) -> None:
    one.connection.eof_received()


def lost(one: Line) -> None:
    one.wire.aborted = True
    one.connection.connection_lost(None)


@pytest.mark.parametrize("happens", [unseen_bytes, unseen_end, seen_bytes, seen_end, lost])
async def test_a_request_is_not_written_where_something_has_happened(
    line: Callable[[], Line], happens: Callable[[Line], None]
) -> None:
    """Between its choice and its write; whoever sends it may take another connection."""
    one = line()
    one.connection.expires = 5.0  # It has been idle.
    assert one.connection.quiet()
    waiter = one.wait(linger=30.0, late=one.asked)

    happens(one)
    one.connection.write_out()

    assert isinstance(waiter.exception(), Unsent)
    assert one.wire.written == []
    assert one.connection.gone
    assert one.pool.told[0] == "dropped"
    assert one.asked.times == 0


async def test_what_is_given_up_before_its_write_is_never_written(
    line: Callable[[], Line],
) -> None:
    one = line()
    waiter = one.wait(linger=30.0, late=one.asked)

    waiter.cancel()
    one.connection.leave(waiter)
    one.connection.write_out()

    assert (one.wire.written, one.pool.told, one.asked.times) == ([], ["dropped"], 0)


async def test_a_cancelled_request_whose_other_end_has_gone_is_forgotten(
    line: Callable[[], Line],
) -> None:
    one = line()
    waiter = one.wait()
    waiter.cancel()

    seen_end(one)

    assert one.pool.told == ["dropped"]


async def test_what_ends_before_its_write_has_not_been_sent(line: Callable[[], Line]) -> None:
    ended = []
    for deadline_passes in (True, False):
        one = line()
        waiter = one.wait(linger=30.0)
        if deadline_passes:
            one.connection.overdue(11.0)
        else:
            one.connection.close()
        failure = waiter.exception()
        assert isinstance(failure, UpstreamFailed)
        ended.append((failure.why, failure.sent, one.wire.written))

    assert ended == [("timeout", False, []), ("reset", False, [])]


async def test_a_new_connection_may_have_something_to_say(line: Callable[[], Line]) -> None:
    """TLS 1.3 sends its tickets after the handshake."""
    one = line()
    one.wire.other.send(b"ticket")

    one.start()

    assert one.wire.written == [b"HEAD"]


async def test_an_answer_that_overtakes_its_request_ends_the_connection(
    line: Callable[[], Line],
) -> None:
    one = line()
    waiter = one.start()
    one.wire.unsent = 1
    one.feed(ok(b"early"))
    assert waiter.result().body == b"early"
    assert one.pool.told == ["dropped"]


async def test_an_answer_that_crosses_a_cancellation_leaves_the_connection_of_use(
    line: Callable[[], Line],
) -> None:
    """The task is cancelled, but has not run yet."""
    one = line()
    waiter = one.start(linger=30.0, late=one.asked)
    waiter.cancel()
    one.feed(ok(b"booked"))
    one.connection.leave(waiter)
    assert one.pool.told == ["released"]


async def test_a_large_answer_that_crosses_a_cancellation_is_dropped(
    line: Callable[[], Line],
) -> None:
    one = line()
    waiter = one.start()
    waiter.cancel()
    one.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n", b"x" * 2000)
    assert one.pool.told == []
    one.connection.leave(waiter)
    assert one.pool.told == ["dropped"]


async def test_a_deadline_that_crosses_a_cancellation_starts_the_lingering(
    line: Callable[[], Line],
) -> None:
    one = line()
    waiter = one.start(linger=30.0, late=one.asked)
    waiter.cancel()
    one.connection.overdue(11.0)
    one.connection.leave(waiter)
    assert (one.connection.deadline, one.asked.times) == (40.0, 0)
    one.feed(ok(b"booked"))
    assert one.pool.told == ["released"]


async def test_a_cut_that_crosses_a_cancellation_is_nothing_more(line: Callable[[], Line]) -> None:
    one = line()
    waiter = one.start(linger=30.0, late=one.asked)
    waiter.cancel()
    one.connection.connection_lost(None)
    one.connection.leave(waiter)
    assert one.pool.told == ["dropped", "lost"]


async def test_the_deadline_that_lateness_moves_is_not_moved_again(
    line: Callable[[], Line],
) -> None:
    one = line()
    waiter = one.start(linger=30.0, late=one.asked)
    one.connection.overdue(11.0)
    assert (one.connection.deadline, waiter.done()) == (40.0, False)
    waiter.cancel()
    one.connection.leave(waiter)
    assert (one.connection.deadline, one.pool.told) == (40.0, [])
    one.connection.overdue(40.0)
    assert (one.asked.times, one.pool.told) == (1, ["dropped"])


async def test_a_sweep_that_comes_after_all_of_the_time_ends_it(line: Callable[[], Line]) -> None:
    one = line()
    waiter = one.start(linger=30.0, late=one.asked)
    one.connection.overdue(40.0)
    assert isinstance(waiter.exception(), UpstreamFailed)
    assert (one.asked.times, one.pool.told) == (0, ["dropped"])


async def test_a_hook_that_fails_reads_no(line: Callable[[], Line]) -> None:
    def fails() -> bool:
        raise RuntimeError("a bug")

    one = line()
    waiter = one.start(linger=30.0, late=fails)
    with pytest.raises(RuntimeError):
        one.connection.overdue(11.0)
    one.connection.overdue(11.1)
    assert isinstance(waiter.exception(), UpstreamFailed)
    assert one.connection.deadline == 40.0


async def test_an_exchange_that_is_over_holds_its_hook_no_more(line: Callable[[], Line]) -> None:
    for limit in (1000, 0):
        one, asked = line(), Asked()
        held = weakref.ref(asked)
        waiter = one.start(limit=limit, linger=30.0, late=asked)
        del asked
        one.feed(ok(b"booked"))
        assert waiter.done()
        assert held() is None


async def test_nobody_need_hear_how_it_ended(line: Callable[[], Line]) -> None:
    for end in (ok(b"x"), b"garbage"):
        one = line()
        waiter = one.start(linger=30.0)
        one.connection.overdue(11.0)
        assert isinstance(waiter.exception(), UpstreamFailed)
        one.feed(end)
        assert len(one.pool.told) == 1


async def test_what_is_over_stays_over(line: Callable[[], Line]) -> None:
    one = line()
    one.connection.close()
    for again in (one.connection.close, one.connection.drop, one.connection.eof_received):
        again()
    one.feed(ok())
    one.connection.connection_lost(None)
    assert one.pool.told == ["dropped", "lost"]
    assert one.connection.gone


async def test_reading_goes_on_when_a_stream_ends_while_its_reader_is_behind(
    line: Callable[[], Line],
) -> None:
    """The idle connection must hear its end."""
    one = line()
    waiter = one.start()
    body = b"x" * 100_000
    answer = ok(body)
    one.feed(answer[:-1])
    stream: Any = waiter.result().body
    assert one.wire.flow == ["pause"]
    one.connection.overdue(100.0)  # Being behind is no silence.
    assert one.connection.deadline == 160.0
    one.feed(answer[-1:])
    assert one.wire.flow == ["pause", "resume"]
    assert one.pool.told == ["released"]
    assert b"".join([chunk async for chunk in stream]) == body


async def test_a_stream_let_go_of_after_its_end_leaves_the_connection_alone(
    line: Callable[[], Line],
) -> None:
    one = line()
    waiter = one.start(limit=0)
    one.feed(ok(b"all"))
    assert one.pool.told == ["released"]
    del waiter
    assert one.pool.told == ["released"]
