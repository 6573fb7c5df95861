"""Room for clients and for bodies: who is turned away, who is let go, and who never is."""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.adapters.listener import Options
from proxy.adapters.listener.room import DONE, FREE, OWES, PART, SPARE, Arriving, Entry, Room
from proxy.core.addresses import Networks
from proxy.core.model import Reply
from proxy.errors import ClientGone, Refused
from proxy.ports import Incoming
from tests.adapters.listener.raw import Client as Caller
from tests.adapters.listener.raw import Serve, Served, echo, post, refusing

GET = b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n"


class Waiting:
    """A connection as the room sees it."""

    def __init__(self, due: float, rank: int | None = OWES) -> None:
        self.rank = None if rank is None else (rank, due)
        self.evicted = False

    def evict(self) -> None:
        self.evicted = True


def of(most: int, **bounds: Any) -> Room:
    room = Room(most)
    room.resize(most, **bounds)
    return room


def addresses() -> Iterator[str]:
    return (f"192.0.2.{n}" for n in range(256))


def test_up_to_its_bound_everybody_is_welcome_then_some_hear_why_and_the_rest_nothing() -> None:
    room = Room(3)

    entries = [room.enter(peer) for peer, _ in zip(addresses(), range(3 + SPARE + 2), strict=False)]

    assert entries == [Entry.WELCOME] * 3 + [Entry.TURNED_AWAY] * SPARE + [Entry.CUT] * 2
    assert room.refused == {"full": SPARE + 2, "address": 0}


def test_who_leaves_makes_room() -> None:
    room = Room(1)
    room.enter("192.0.2.1")
    assert room.enter("192.0.2.2") is Entry.TURNED_AWAY
    room.leave("192.0.2.2")
    room.leave("192.0.2.1")

    assert room.enter("192.0.2.3") is Entry.WELCOME
    assert room.open == 1


def test_one_address_has_its_share_and_leaves_the_rest_to_others() -> None:
    room = of(100, per_address=2)

    assert [room.enter("192.0.2.1") for _ in range(3)] == [
        Entry.WELCOME, Entry.WELCOME, Entry.TURNED_AWAY,
    ]  # fmt: skip
    assert room.enter("192.0.2.2") is Entry.WELCOME
    assert room.refused == {"full": 0, "address": 1}


def test_addresses_of_one_subscriber_share_their_share() -> None:
    room = of(100, per_address=1)
    room.enter("2001:db8::1")

    assert room.enter("2001:db8::2") is Entry.TURNED_AWAY
    assert room.enter("2001:db8:0:1::1") is Entry.WELCOME


def test_a_trusted_proxy_brings_as_many_as_it_has() -> None:
    """Its address is not that of its clients."""
    room = of(5, per_address=1, trusted=Networks.of(["10.0.0.0/8"]))

    assert [room.enter("10.1.2.3") for _ in range(6)] == [Entry.WELCOME] * 5 + [Entry.TURNED_AWAY]


def test_clients_of_a_unix_socket_have_no_address() -> None:
    room = of(10, per_address=1)

    assert [room.enter("") for _ in range(3)] == [Entry.WELCOME] * 3
    room.leave("")
    assert room.open == 2


def test_other_bounds_hold_for_whoever_comes_next() -> None:
    room = Room(1)
    room.enter("192.0.2.1")
    room.resize(3, per_address=2)

    assert room.enter("192.0.2.1") is Entry.WELCOME
    assert room.enter("192.0.2.1") is Entry.TURNED_AWAY


@given(st.lists(st.sampled_from(["192.0.2.1", "192.0.2.2", "2001:db8::1", ""]), max_size=60))
def test_when_all_have_left_nobody_is_remembered(peers: list[str]) -> None:
    room = of(5, per_address=2)
    for peer in peers:
        room.enter(peer)
    for peer in reversed(peers):
        room.leave(peer)

    assert (room.open, room._by_address) == (0, {})


def filled(most: int, *clients: Waiting) -> Room:
    """One with so many in it, of whom these are waited for or not."""
    room = Room(most, clients=lambda: clients)
    for _ in range(most):
        room.enter("")
    return room


def test_while_there_is_room_nobody_is_let_go() -> None:
    client = Waiting(0.0)
    room = filled(10, client)

    assert (client.evicted, room.let_go) == (False, 0)


def test_for_one_too_many_those_go_who_were_to_go_first() -> None:
    """A client who said nothing has 10 s, a good one's kept connection 75: so it goes last."""
    silent, kept, slow = Waiting(8.0), Waiting(70.0), Waiting(3.0)
    answered = Waiting(math.inf, None)
    room = filled(20, kept, answered, silent, slow)

    assert room.enter("192.0.2.1") is Entry.WELCOME
    assert [one.evicted for one in (slow, silent, kept, answered)] == [True, True, False, False]
    assert room.let_go == 20 * PART


def test_who_has_all_it_asked_for_goes_before_anybody_who_is_waited_for() -> None:
    silent, kept, done = Waiting(1.0), Waiting(70.0), Waiting(5.0, DONE)
    room = filled(10, silent, kept, done)

    for expected in ([done], [done, silent], [done, silent, kept]):
        assert room.enter("") is Entry.WELCOME
        assert {one for one in (silent, kept, done) if one.evicted} == set(expected)


def test_as_many_make_room_as_there_are_too_many() -> None:
    """Those who were turned away, and are here still, keep nobody out."""
    room = Room(10, clients=lambda: clients)
    clients: list[Waiting] = []
    for _ in range(15):
        room.enter("")
    clients += [Waiting(float(n)) for n in range(7)]
    room.look_again()

    assert room.enter("") is Entry.WELCOME
    assert room.let_go == 6


def test_who_was_let_go_takes_no_room_while_it_leaves() -> None:
    clients = [Waiting(float(n)) for n in range(3)]
    room = filled(10, *clients)
    assert room.enter("") is Entry.WELCOME
    assert room.enter("") is Entry.WELCOME
    room.leave("", clients[0])
    room.leave("", clients[1])

    assert (room.open, room.let_go) == (10, 2)
    assert not room._leaving


def test_nobody_goes_whose_request_is_being_answered() -> None:
    working = [Waiting(math.inf, None) for _ in range(5)]
    room = filled(5, *working)

    assert room.enter("") is Entry.TURNED_AWAY
    assert not any(one.evicted for one in working)


def test_in_vain_is_not_searched_again_for_each_who_comes() -> None:
    """A look at ten thousand connections takes milliseconds."""
    looks = 0

    def clients() -> list[Waiting]:
        nonlocal looks
        looks += 1
        return [late] if looks == 2 else []

    late, room = Waiting(1.0), Room(10, clients=clients)
    for _ in range(10 + 50):
        room.enter("")
    assert looks == 1
    room.leave("")
    room.look_again()

    assert room.enter("") is Entry.TURNED_AWAY
    assert (looks, late.evicted) == (2, True)


def test_nobody_makes_room_for_an_address_that_has_its_share() -> None:
    silent = Waiting(1.0)
    room = Room(10, clients=lambda: [silent])
    room.resize(10, per_address=1)
    room.enter("192.0.2.1")

    assert room.enter("192.0.2.1") is Entry.TURNED_AWAY
    assert not silent.evicted


def test_bodies_share_what_there_is() -> None:
    arriving = Arriving(100)

    assert [arriving.grow(60), arriving.grow(40), arriving.grow(1)] == [True, True, False]


def test_without_a_bound_any_body_has_room() -> None:
    assert Arriving().grow(10**12)


# -- On the wire.


async def silent(served: Served, count: int) -> list[Caller]:
    """Connections that are here and say nothing."""
    clients = [await served.connect() for _ in range(count)]
    while served.listener.open_connections < len(served.clients):
        await asyncio.sleep(0)
    return clients


class Busy:
    """A handler whose requests all wait."""

    def __init__(self) -> None:
        self.go = asyncio.Event()

    async def __call__(self, incoming: Incoming) -> Reply:
        await self.go.wait()
        return await echo(incoming)

    async def fill(self, served: Served, count: int) -> list[Caller]:
        clients = [await served.connect() for _ in range(count)]
        for client in clients:
            await client.send(post(b"b"))
        while served.listener.inflight < count:
            await asyncio.sleep(0)
        return clients


@pytest.mark.row("L10")
async def test_one_too_many_hears_503_and_is_closed(serve: Serve) -> None:
    busy = Busy()
    served = await serve(busy, connections=2)
    clients = await busy.fill(served, 2)
    late = await served.connect()
    await late.send(post(b"a"))
    answer = await late.answer()

    assert (answer.status, answer.header("connection")) == (503, "close")
    assert await late.rest() == b""
    assert served.faults == [503]
    busy.go.set()
    assert [(await client.answer()).body for client in clients] == [b"POST /retell b"] * 2


async def test_far_too_many_hear_nothing_and_cost_no_answer(serve: Serve) -> None:
    busy = Busy()
    served = await serve(busy, connections=1, tick=60)
    await busy.fill(served, 1)
    for _ in range(SPARE):
        client = await served.connect()
        await client.head()
    cut = await served.connect()

    assert await cut.rest() == b""
    assert served.faults == [503] * SPARE
    assert room_of(served).refused["full"] == SPARE + 1
    busy.go.set()


def room_of(served: Served) -> Room:
    room = served.listener.room
    assert room is not None
    return room


@pytest.mark.parametrize("said", [b"", b"GET / HT"], ids=["nothing", "half a head"])
async def test_who_says_nothing_gives_way_at_once_to_who_does(serve: Serve, said: bytes) -> None:
    served = await serve(connections=10, head_timeout=60, tick=60)
    for client in await silent(served, 10):
        await client.send(said)

    for number in range(15):
        assert (await served.ask(post(b"%d" % number))).body == b"POST /retell %d" % number
    assert room_of(served).refused["full"] == 0
    assert room_of(served).let_go == 15


async def test_a_body_that_comes_slowly_gives_way_too(serve: Serve) -> None:
    served = await serve(refusing_or_gone, connections=4, tick=60)
    slow = await served.connect()
    await slow.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n{")
    while served.listener.arriving == 0:
        await asyncio.sleep(0)
    await silent(served, 3)
    await served.connect()
    with pytest.raises(ConnectionResetError):
        await slow.rest()

    while served.listener.arriving:
        await asyncio.sleep(0)
    assert room_of(served).let_go == 1
    assert served.listener.open_connections == 4


async def test_who_was_refused_and_stays_makes_room(serve: Serve) -> None:
    """What it still sends is thrown away: its answer is there."""
    served = await serve(connections=3, linger=60, tick=60)
    for _ in range(3):
        refused = await served.connect()
        await refused.send(b"GET  / HTTP/1.1\r\n\r\n")
        assert (await refused.answer()).status == 400

    assert (await served.ask(post(b"a"))).status == 200
    assert room_of(served).let_go == 1


async def sized(incoming: Incoming) -> Reply:
    """As many bytes as its target says, whole or as a stream."""
    *_, sort, size = incoming.target.split("/")
    body = b"x" * int(size)
    return Reply(200, [], parts(body) if sort == "streamed" else body, length=int(size))


async def parts(body: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(body), 100_000):
        yield body[at : at + 100_000]


def get(target: str, *fields: bytes) -> bytes:
    return post(b"", *fields, target=target.encode())


async def unread(served: Served, said: bytes, state: str, *, send_buffer: int = 0) -> Caller:
    """A client who takes none of its answers, from when `state` holds of its connection."""
    acceptor = served.listener._acceptor
    assert acceptor is not None
    others, client = set(acceptor.everybody()), await served.connect()
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    while not (new := set(acceptor.everybody()) - others):
        await asyncio.sleep(0)
    (connection,) = new
    if send_buffer:
        ours = connection._wire.get_extra_info("socket")
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    await client.send(said)
    loop = asyncio.get_running_loop()
    while not getattr(connection, state) or loop.time() <= connection._since:
        await asyncio.sleep(0)
    return client


@pytest.mark.row("L9")
async def test_who_does_not_take_its_answer_makes_room(serve: Serve) -> None:
    served = await serve(sized, connections=3, tick=60, patience=0, pace=math.inf)
    kept = await served.connect()
    await kept.send(get("/whole/1"))
    assert (await kept.answer()).status == 200
    for _ in range(2):
        await unread(served, get("/whole/1000000"), "_flushing", send_buffer=65_536)

    for _ in range(2):
        assert (await served.ask(get("/whole/1"))).status == 200
    assert room_of(served).let_go == 2
    await kept.send(get("/whole/1"))
    assert (await kept.answer()).status == 200


async def test_who_was_refused_and_takes_no_answer_makes_room_too(serve: Serve) -> None:
    served = await serve(sized, connections=2, tick=60, linger=60, patience=0, pace=math.inf)
    for _ in range(2):
        said = get("/whole/60000") + b"GET  /\r\n\r\n"
        await unread(served, said, "_discarding", send_buffer=4096)

    assert (await served.ask(get("/whole/1"))).status == 200
    assert room_of(served).let_go == 1


@pytest.mark.parametrize(
    ("target", "options"),
    [
        ("/whole/1000000", {"patience": 60.0}),
        ("/streamed/1000000", {"patience": 0.0, "pace": math.inf}),
    ],
    ids=["has just begun", "comes from an arm"],
)
async def test_whose_answer_is_on_its_way_keeps_its_place(
    serve: Serve, target: str, options: dict[str, float]
) -> None:
    served = await serve(sized, connections=1, tick=60, **options)
    client = await unread(served, get(target), "_flushing", send_buffer=65_536)
    assert (await served.ask(get("/whole/1"))).status == 503

    assert (room_of(served).let_go, served.listener.inflight) == (0, 1)
    client.abort()


async def test_who_asks_on_and_on_and_reads_nothing_makes_room(serve: Serve) -> None:
    """Between two of its requests, before anything waits for it."""
    served = await serve(sized, connections=1, tick=60, patience=60)
    client = await served.connect()
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    acceptor = served.listener._acceptor
    assert acceptor is not None
    while not acceptor.everybody():
        await asyncio.sleep(0)
    (connection,) = acceptor.everybody()
    client.writer.write(get("/whole/30000") * 200)
    while not (connection._left() > 100_000 and connection._messages):
        assert not connection._flushing
        await asyncio.sleep(0)

    assert acceptor.room.enter("") is Entry.WELCOME
    acceptor.room.leave("")
    assert acceptor.room.let_go == 1


async def test_who_takes_its_answer_at_a_fair_pace_keeps_its_place(serve: Serve) -> None:
    served = await serve(sized, connections=1, tick=60, patience=0, pace=1)
    client = await unread(served, get("/whole/20000000"), "_flushing")
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    acceptor = served.listener._acceptor
    assert acceptor is not None
    (connection,) = acceptor.everybody()
    client.writer.transport.resume_reading()  # type: ignore[attr-defined]
    while connection._left() > connection._unsent - 1000:
        await client.reader.readexactly(1000)
    assert connection._flushing

    assert (await served.ask(get("/whole/1"))).status == 503
    assert room_of(served).let_go == 0
    client.abort()


async def refusing_or_gone(incoming: Incoming) -> Reply:
    try:
        return await refusing(incoming)
    except ClientGone:
        return Reply(499)


async def test_a_request_that_is_being_answered_keeps_its_place(serve: Serve) -> None:
    busy = Busy()
    served = await serve(busy, connections=3)
    clients = await busy.fill(served, 2)
    for _ in range(5):
        await served.connect()
    while served.listener.open_connections > 3:
        await asyncio.sleep(0)
    busy.go.set()

    assert [(await client.answer()).status for client in clients] == [200, 200]


async def test_other_limits_hold_from_now_on_without_a_restart(serve: Serve) -> None:
    served = await serve(connections=1, tick=60)
    await silent(served, 1)
    served.listener.use(Options(connections=2, tick=60))

    assert (await served.ask(post(b"a"))).status == 200
    assert room_of(served).let_go == 0


async def receive_all(incoming: Incoming) -> Reply:
    """The size of a body, or why it was not taken."""
    try:
        body = await incoming.read(10**7, asyncio.get_running_loop().time() + 10)
    except Refused as refused:
        return Reply(refused.status, [], refused.code.encode(), close=refused.close)
    except ClientGone:
        return Reply(499)
    return Reply(200, [], b"%d" % len(body))


@pytest.mark.row("L2")
async def test_bodies_on_their_way_in_have_a_bound_together(serve: Serve) -> None:
    """Whoever may not ask can still send: a signature is checked over the whole body."""
    served = await serve(receive_all, arriving=100_000)
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n"
    one, other = await served.connect(), await served.connect()
    await one.send(head + b"x" * (80_000 + FREE))
    acceptor = served.listener._acceptor
    assert acceptor is not None
    while acceptor.arriving.held < 80_000:
        await asyncio.sleep(0)
    await other.send(head + b"x" * (20_001 + FREE))
    answer = await other.answer()

    assert (answer.status, answer.header("connection")) == (503, "close")
    await one.send(b"x" * (20_000))
    while acceptor.arriving.held < 100_000:
        await asyncio.sleep(0)
    small = await served.ask(post(b"x" * 10))
    assert (small.status, small.body) == (200, b"10")
    one.abort()
    while acceptor.arriving.bodies:
        await asyncio.sleep(0)
    assert acceptor.arriving.held == 0
    whole = await served.ask(post(b"x" * (90_000 + FREE)))
    assert (whole.status, acceptor.arriving.held) == (200, 0)
