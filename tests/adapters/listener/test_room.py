"""Room for clients and for bodies: who is turned away, who is let go, and who never is."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.adapters.listener.room import CROWDED, FREE, SPARE, Arriving, Entry, Room
from proxy.core.addresses import Networks
from proxy.core.model import Reply
from proxy.errors import ClientGone, Refused
from proxy.ports import Incoming
from tests.adapters.listener.raw import Client as Caller
from tests.adapters.listener.raw import Serve, Served, echo, post, refusing

GET = b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n"


class Waiting:
    """A connection as the room sees it."""

    def __init__(self, due: float, *, owes: bool = True) -> None:
        self.due, self.owes, self.expired = due, owes, False

    def expire(self) -> None:
        self.expired = True


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
    room = Room(100, per_address=2)

    assert [room.enter("192.0.2.1") for _ in range(3)] == [
        Entry.WELCOME, Entry.WELCOME, Entry.TURNED_AWAY,
    ]  # fmt: skip
    assert room.enter("192.0.2.2") is Entry.WELCOME
    assert room.refused == {"full": 0, "address": 1}


def test_addresses_of_one_subscriber_share_their_share() -> None:
    room = Room(100, per_address=1)
    room.enter("2001:db8::1")

    assert room.enter("2001:db8::2") is Entry.TURNED_AWAY
    assert room.enter("2001:db8:0:1::1") is Entry.WELCOME


def test_a_trusted_proxy_brings_as_many_as_it_has() -> None:
    """Its address is not that of its clients."""
    room = Room(5, per_address=1, trusted=Networks.of(["10.0.0.0/8"]))

    assert [room.enter("10.1.2.3") for _ in range(6)] == [Entry.WELCOME] * 5 + [Entry.TURNED_AWAY]


def test_clients_of_a_unix_socket_have_no_address() -> None:
    room = Room(10, per_address=1)

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
    room = Room(5, per_address=2)
    for peer in peers:
        room.enter(peer)
    for peer in reversed(peers):
        room.leave(peer)

    assert (room.open, room._by_address) == (0, {})


def test_while_there_is_room_nobody_is_let_go() -> None:
    room, client = Room(100), Waiting(0.0)
    for _ in range(int(100 * CROWDED)):
        room.enter("")
    room.make_room([client])

    assert (client.expired, room.let_go) == (False, 0)


def test_when_it_is_crowded_those_go_who_were_to_go_first() -> None:
    """A client who said nothing has 10 s, a good one's kept connection 75: so it goes last."""
    room = Room(10)
    silent, kept, slow = Waiting(8.0), Waiting(70.0), Waiting(3.0)
    answered = Waiting(math.inf, owes=False)
    for _ in range(11):
        room.enter("")

    room.make_room([kept, answered, silent, slow])

    assert [one.expired for one in (slow, silent, kept, answered)] == [True, True, False, False]
    assert room.let_go == 2


def test_nobody_goes_whose_request_is_being_answered() -> None:
    room, working = Room(1), [Waiting(math.inf, owes=False) for _ in range(5)]
    for _ in working:
        room.enter("")
    room.make_room(working)

    assert not any(one.expired for one in working)


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


@pytest.mark.row("L10")
async def test_one_too_many_hears_503_and_is_closed(serve: Serve) -> None:
    served = await serve(connections=2, tick=60)
    (first, _) = await silent(served, 2)
    late = await served.connect()
    await late.send(post(b"a"))
    answer = await late.answer()

    assert (answer.status, answer.header("connection")) == (503, "close")
    assert await late.rest() == b""
    assert served.faults == [503]
    await first.send(post(b"b"))
    assert (await first.answer()).body == b"POST /retell b"


async def test_far_too_many_hear_nothing_and_cost_no_answer(serve: Serve) -> None:
    served = await serve(connections=1, tick=60)
    await silent(served, 1)
    for _ in range(SPARE):
        client = await served.connect()
        await client.head()
    cut = await served.connect()

    assert await cut.rest() == b""
    assert served.faults == [503] * SPARE
    room = served.listener.room
    assert room is not None
    assert room.refused["full"] == SPARE + 1


async def test_who_says_nothing_gives_way_to_who_does(serve: Serve) -> None:
    """Ten silent ones would hold all the room until their head is due."""
    served = await serve(connections=10, head_timeout=60, tick=0.01)
    for client in await silent(served, 10):
        if len(served.clients) % 2:
            await client.send(b"GET / HT")
    while served.listener.open_connections > 9:
        await asyncio.sleep(0.01)

    assert (await served.ask(post(b"a"))).body == b"POST /retell a"
    room = served.listener.room
    assert room is not None
    assert room.let_go >= 1
    assert room.refused["full"] == 0


async def test_a_body_that_comes_slowly_gives_way_too(serve: Serve) -> None:
    served = await serve(refusing, connections=4, tick=60)
    slow = await served.connect()
    await slow.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n{")
    while served.listener.arriving == 0:
        await asyncio.sleep(0)
    await silent(served, 3)
    acceptor = served.listener._acceptor
    assert acceptor is not None
    acceptor.room.make_room(acceptor.everybody())

    assert (await slow.answer()).status == 408
    assert (acceptor.room.let_go, served.listener.arriving) == (1, 0)


async def test_a_request_that_is_being_answered_keeps_its_place(serve: Serve) -> None:
    go = asyncio.Event()

    async def handler(incoming: Incoming) -> Reply:
        await go.wait()
        return await echo(incoming)

    served = await serve(handler, connections=2)
    clients = [await served.connect() for _ in range(2)]
    for client in clients:
        await client.send(post(b"a"))
    while served.listener.inflight < 2:
        await asyncio.sleep(0)
    await asyncio.sleep(0.05)
    go.set()

    assert [(await client.answer()).status for client in clients] == [200, 200]


async def test_other_limits_hold_from_now_on_without_a_restart(serve: Serve) -> None:
    served = await serve(connections=1, tick=60)
    await silent(served, 1)
    listener = served.listener
    acceptor = listener._acceptor
    assert acceptor is not None
    options = acceptor.options.__class__(connections=2, tick=60, idle_timeout=0.0)
    listener.use(options)

    assert (await served.ask(post(b"a"))).status == 200
    assert acceptor.options is options


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
