from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator

import pytest

from proxy.adapters.channel import (
    MOST,
    Answer,
    Channel,
    Ended,
    Go,
    Lost,
    No,
    Offer,
    Place,
    Post,
    State,
    tell,
)
from tests.adapters.outbox_kit import event
from tests.handover_kit import BOOKED, pair, soon


@pytest.fixture
async def ends() -> AsyncIterator[tuple[Channel, Channel]]:
    one, other = pair()
    yield one, other
    one.close()
    other.close()


async def test_messages_arrive_whole_and_in_order(ends: tuple[Channel, Channel]) -> None:
    one, other = ends
    entry, letter = event()
    said = [
        State(b"x" * 3_000_000, [(b"k", 1)], [7], locked=False),
        Ended(b"k", 2, BOOKED, ran=True),
        Post(9, entry, letter, 1.5),
        Answer(1, done=BOOKED),
        Go(),
    ]
    for message in said:
        one.send(message)

    heard = [(await other.receive())[0] for _ in said]

    assert heard == said
    await one.flush()


async def test_both_ends_may_speak(ends: tuple[Channel, Channel]) -> None:
    one, other = ends
    one.send(No("a"))
    other.send(No("b"))

    assert (await one.receive())[0] == No("b")
    assert (await other.receive())[0] == No("a")


async def test_descriptors_come_with_their_message(ends: tuple[Channel, Channel]) -> None:
    """Whatever is said before and after, and however long the message is."""
    one, other = ends
    with socket.socket() as first, socket.socket() as second:
        inodes = [os.fstat(sock.fileno()).st_ino for sock in (first, second)]
        one.send(No("before"))
        places = [Place("callsplit", True, "a" * 500_000), Place("admin", False, "b")]
        one.send(Offer(places, 1), [first.fileno(), second.fileno()])
        one.send(State(b"x" * 600_000, [], [], locked=True), [first.fileno()])
    one.send(Go())

    heard = [await other.receive() for _ in range(4)]

    got = [[os.fstat(fd).st_ino for fd in fds] for _, fds in heard]
    assert got == [[], inodes, inodes[:1], []]
    for _, fds in heard:
        for fd in fds:
            os.close(fd)


async def test_what_was_said_before_the_end_is_heard(ends: tuple[Channel, Channel]) -> None:
    one, other = ends
    one.send(No("last words"))
    await one.flush()
    one.close()

    assert (await other.receive())[0] == No("last words")
    for _ in range(2):
        with pytest.raises(Lost):
            await other.receive()
    assert other.lost
    other.send(Go())  # Nobody hears it.
    await other.flush()


async def test_who_closes_hears_nothing_more(ends: tuple[Channel, Channel]) -> None:
    one, other = ends
    with socket.socket() as sock:
        one.send(Offer([Place("a", False, "")], 0), [sock.fileno()])
    await soon(lambda: not other._inbox.empty())
    other.close()
    other.close()

    with pytest.raises(Lost):
        await other.receive()


async def test_one_that_reads_nothing_is_not_waited_for(ends: tuple[Channel, Channel]) -> None:
    one, other = ends
    other._loop.remove_reader(other._sock.fileno())
    with socket.socket() as sock:
        for _ in range(50):
            one.send(State(b"x" * 100_000, [], [], locked=True), [sock.fileno()])
    one.close()

    await one.flush()


@pytest.mark.parametrize(
    "raw",
    [
        b"\x00\x00\x00\x01\x00\xc1",  # no MessagePack
        b"\x00\x00\x00\x01\x00\x01",  # no message
        (MOST + 1).to_bytes(4) + b"\x00",
    ],
)
async def test_what_makes_no_sense_ends_it(raw: bytes) -> None:
    ours, theirs = socket.socketpair()
    channel = Channel(ours)
    with theirs:
        theirs.sendall(raw)
        with pytest.raises(Lost):
            await channel.receive()
    channel.close()


async def test_an_end_that_is_reset_is_lost() -> None:
    ours, theirs = socket.socketpair()
    channel = Channel(ours)
    channel._loop.remove_reader(ours.fileno())
    theirs.close()
    channel.send(Go())

    assert channel.lost
    channel.close()


async def test_something_may_be_told_where_no_loop_runs() -> None:
    ours, theirs = socket.socketpair()
    channel = Channel(ours)
    tell(theirs, No("why"))
    theirs.close()

    assert (await channel.receive())[0] == No("why")
    channel.close()
    tell(theirs, No("nobody hears it"))
