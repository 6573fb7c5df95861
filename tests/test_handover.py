"""The old process lets another follow, or goes on as if nothing had been."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy import handover
from proxy.adapters.channel import (
    VERSION,
    Answer,
    Channel,
    Go,
    Hello,
    Lost,
    Message,
    No,
    Offer,
    Post,
    Ready,
    State,
    Taken,
)
from proxy.adapters.rendezvous import visit
from proxy.adapters.sockets import inode
from proxy.adapters.state_dir import StateDir
from proxy.core.replay_values import Run
from proxy.handover import Refusal
from proxy.once import Elsewhere, Ticket
from tests.adapters.outbox_kit import event
from tests.handover_kit import BOOKED, Side, answered_by, soon, write


@pytest.fixture
async def old(tmp_path: Path) -> AsyncIterator[Side]:
    side = Side(tmp_path / "state")
    await side.open()
    yield side
    await side.close()


class Newcomer:
    """A new process that says what a test wants."""

    def __init__(self, old: Side, *, own: bool = True) -> None:
        ours, theirs = socket.socketpair()
        self.channel = Channel(ours)
        self.offered = asyncio.ensure_future(old.handover.offer(theirs, own=own))

    async def hear(self) -> tuple[Message, list[int]]:
        async with asyncio.timeout(20):
            return await self.channel.receive()

    async def meet(self, listener: int = 0) -> Message:
        self.channel.send(Hello(VERSION, 77, listener))
        message, fds = await self.hear()
        for fd in fds:
            socket.socket(fileno=fd).close()
        return message

    async def learn(self) -> tuple[State, list[int]]:
        assert isinstance(await self.meet(), Offer)
        self.channel.send(Ready())
        message, fds = await self.hear()
        assert isinstance(message, State)
        return message, fds

    async def why_not(self) -> str:
        with pytest.raises(Refusal) as refusal:
            await self.offered
        self.channel.close()
        return str(refusal.value)


async def test_step_by_step(old: Side) -> None:
    ran = old.once.take_up(write(b"a" * 16), 0.0)
    runs = old.once.take_up(write(b"b" * 16), 0.0)
    told = old.once.take_up(Elsewhere(event=9), 0.0)
    assert all(isinstance(ticket, Ticket) for ticket in (runs, told))
    assert isinstance(ran, Ticket)
    old.once.conclude(ran, BOOKED)
    newcomer = Newcomer(old)

    state, (lock,) = await newcomer.learn()

    assert (state.runs, state.events, state.locked) == ([(b"b" * 16, 1)], [9], True)
    assert b"booked" in state.replays
    assert old.box.done == ["rest", "stop"]
    assert old.once.heir is old.box.heir is not None
    newcomer.channel.send(Taken())
    assert isinstance((await newcomer.hear())[0], Go)
    assert await newcomer.offered == 77
    assert old.handover.successor is not None
    assert old.handover.followed.is_set()
    # The lock is the new one's alone, and so is the place where others knock.
    assert not old.state.writable
    assert visit(old.folder) is None
    mine = StateDir.awaited(old.folder)
    mine.adopt(lock)
    assert mine.writable
    mine.close()
    assert old.doors.places()[0][1].fileno() == -1
    newcomer.channel.close()


@pytest.mark.parametrize("step", ["hello", "ready", "taken"])
@pytest.mark.parametrize("way", ["gone", "no", "nonsense"])
async def test_whatever_fails_leaves_all_as_it_was(old: Side, step: str, way: str) -> None:
    newcomer = Newcomer(old)
    if step == "ready":
        await newcomer.meet()
    elif step == "taken":
        _, fds = await newcomer.learn()
        for fd in fds:
            StateDir(old.folder, fd).close()
    if way == "gone":
        await newcomer.channel.flush()
        newcomer.channel.close()
    else:
        newcomer.channel.send(No("it is Monday") if way == "no" else Go())

    why = await newcomer.why_not()

    assert ("Monday" in why) == (way == "no")
    assert old.once.heir is old.box.heir is old.handover.successor is None
    assert old.state.writable
    assert await answered_by(old.port) == b"one"
    assert old.box.done == (["rest", "stop", "start"] if step == "taken" else [])
    assert isinstance(old.once.take_up(write(), 0.0), Ticket)


@pytest.mark.parametrize("part", ["outbox", "pages", "lock"])
async def test_one_that_cannot_let_go_serves_on(
    old: Side, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """For want of a descriptor, say."""
    once = OSError(24, "Too many open files")

    async def fails(*_: object) -> None:
        monkeypatch.undo()
        raise once

    def fails_now(*_: object) -> None:
        raise once

    if part == "lock":
        monkeypatch.setattr(old.handover, "_tell", fails_now)
    else:
        where, name = (old.box, "stop") if part == "outbox" else (old.listener, "shut")
        monkeypatch.setattr(where, name, fails)
    newcomer = Newcomer(old)
    assert isinstance(await newcomer.meet(), Offer)
    newcomer.channel.send(Ready())

    assert "Too many open files" in await newcomer.why_not()
    assert old.once.heir is old.box.heir is old.handover.successor is None
    assert old.box.done == ["rest", "stop", "start"]
    assert [await answered_by(old.port) for _ in range(3)] == [b"one"] * 3


async def test_one_that_is_too_slow_does_not_follow(
    old: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handover, "STARTING", 0.01)
    newcomer = Newcomer(old)
    await newcomer.meet()

    assert "did not say that it was ready" in await newcomer.why_not()


async def test_what_was_asked_meanwhile_is_decided_here_after_all(old: Side) -> None:
    """A request that came between the snapshot and the failure."""
    newcomer = Newcomer(old)
    _, fds = await newcomer.learn()
    StateDir(old.folder, fds[0]).close()
    asked = asyncio.ensure_future(old.once.ask(write()))
    await asyncio.sleep(0)
    newcomer.channel.close()

    step = await asked

    assert isinstance(step, Ticket)
    assert isinstance(step.run, Run)
    assert not step.far
    await newcomer.why_not()


@pytest.mark.parametrize("follows", [True, False])
async def test_an_event_that_comes_while_the_outbox_is_put_down_is_kept(
    old: Side, monkeypatch: pytest.MonkeyPatch, follows: bool
) -> None:
    """By the new process, once that has heard what it must hear first."""
    asked: list[asyncio.Future[bool]] = []
    entry, letter = event()
    stop = old.box.stop

    async def stops(grace: float) -> None:
        if old.box.heir is not None:
            until = old.clock.now() + 600.0
            asked.append(asyncio.ensure_future(old.box.heir.post(entry, letter, until=until)))
            await asyncio.sleep(0)
        await stop(grace)

    monkeypatch.setattr(old.box, "stop", stops)
    newcomer = Newcomer(old)
    _, fds = await newcomer.learn()
    post, _ = await newcomer.hear()
    assert isinstance(post, Post)
    assert post.entry == entry
    newcomer.channel.send(Taken() if follows else No("it is Monday"))
    if follows:
        assert isinstance((await newcomer.hear())[0], Go)
        newcomer.channel.send(Answer(post.id, yes=True))
    else:
        await newcomer.why_not()

    assert [await each for each in asked] == [follows]
    StateDir(old.folder, fds[0]).close()
    newcomer.channel.close()
    await asyncio.wait({newcomer.offered})


async def test_another_version_does_not_follow(old: Side) -> None:
    newcomer = Newcomer(old)
    newcomer.channel.send(Hello(VERSION + 1, 77))

    assert "another version" in await newcomer.why_not()


async def test_one_follows_at_a_time(old: Side) -> None:
    first = Newcomer(old)
    await first.meet()
    second = Newcomer(old)

    assert "already" in await second.why_not()
    first.channel.close()
    await first.why_not()


async def test_a_second_one_follows_the_first_not_this_one(old: Side) -> None:
    first = Newcomer(old)
    _, fds = await first.learn()
    first.channel.send(Taken())
    await first.offered
    second = Newcomer(old)
    second.channel.send(Hello(VERSION, 78))

    assert "followed already" in await second.why_not()
    StateDir(old.folder, fds[0]).close()
    first.channel.close()


async def test_only_who_shares_the_socket_is_no_stranger(old: Side) -> None:
    stranger = Newcomer(old, own=False)
    heard = await stranger.meet(listener=12345)
    assert isinstance(heard, No)
    assert "is in use by process" in await stranger.why_not()

    (_, sock), *_ = old.doors.places()
    kin = Newcomer(old, own=False)
    assert isinstance(await kin.meet(listener=inode(sock)), Offer)
    kin.channel.close()
    await kin.why_not()


async def test_from_one_that_ends_anyway_everybody_takes_over(old: Side) -> None:
    old.ending = True
    newcomer = Newcomer(old, own=False)
    _, fds = await newcomer.learn()
    newcomer.channel.close()
    await newcomer.why_not()

    assert old.box.done == ["rest", "stop"]  # It does not begin anew.
    StateDir(old.folder, fds[0]).close()


async def test_a_visitor_is_heard_and_a_refusal_told(old: Side) -> None:
    sock = visit(old.folder)
    assert sock is not None
    channel = Channel(sock)
    channel.send(Hello(VERSION, 77))

    async with asyncio.timeout(20):
        message, _ = await channel.receive()

    assert isinstance(message, No)
    await soon(lambda: "handover_refused" in old.events)
    channel.close()


async def test_without_a_place_to_meet_it_serves_all_the_same(tmp_path: Path) -> None:
    side = Side(tmp_path / "state")
    (tmp_path / "state" / "handover").mkdir(parents=True)
    await side.open()

    assert side.events == ["handover_unavailable"]
    assert await answered_by(side.port) == b"one"
    await side.close()


@pytest.mark.parametrize("step", ["silent", "offered"])
@pytest.mark.parametrize("way", ["no grace", "hurry"])
async def test_who_only_might_follow_holds_up_no_end(old: Side, step: str, way: str) -> None:
    newcomer = Newcomer(old)
    if step == "offered":
        await newcomer.meet()
    await soon(lambda: old.handover._met)
    closing = asyncio.ensure_future(old.handover.close(600.0 if way == "hurry" else 0.0))
    if way == "hurry":
        await asyncio.sleep(0)
        old.handover.hurry()

    async with asyncio.timeout(20):
        await closing

    assert await newcomer.hear() == (No(handover.ENDED), [])
    assert await newcomer.why_not() == handover.ENDED
    assert old.box.done == []


@pytest.mark.parametrize("step", ["before", "silent", "offered", "taken"])
async def test_whom_this_one_has_started_does_not_outlive_its_end(old: Side, step: str) -> None:
    """Until the last word; from then on the other one is who serves."""
    if step == "before":
        old.handover.call_off()
    newcomer = Newcomer(old)
    if step == "offered":
        await newcomer.meet()
    elif step == "taken":
        _, fds = await newcomer.learn()
        for fd in fds:
            StateDir(old.folder, fd).close()
    if step in ("silent", "offered"):
        await soon(lambda: old.handover._met)
    old.handover.call_off()
    if step == "taken":
        newcomer.channel.send(Taken())

    if step == "taken":
        with pytest.raises(Lost):
            await newcomer.hear()
    else:
        assert await newcomer.hear() == (No(handover.ENDED), [])
    assert await newcomer.why_not() == handover.ENDED
    assert old.handover.successor is None
    assert not old.handover.followed.is_set()
    assert await answered_by(old.port) == b"one"


async def test_a_stranger_may_follow_whose_own_successor_was_called_off(old: Side) -> None:
    """A supervisor ends this one, and starts the next."""
    old.handover.call_off()
    stranger = Newcomer(old, own=False)

    assert isinstance(await stranger.meet(inode(old.doors.places()[0][1])), Offer)
    stranger.channel.send(No("enough"))
    assert "enough" in await stranger.why_not()


async def test_who_comes_after_the_end_is_told_so(old: Side) -> None:
    await old.handover.close()

    assert await Newcomer(old).why_not() == handover.ENDED


async def test_who_is_about_to_follow_has_the_grace_to_do_so(old: Side) -> None:
    """It was started right after this one was told to end."""
    newcomer = Newcomer(old)
    await newcomer.meet()
    closing = asyncio.ensure_future(old.handover.close(600.0))
    await asyncio.sleep(0)
    newcomer.channel.send(Ready())
    _, fds = await newcomer.hear()
    old.handover.hurry()  # It has let go already.
    newcomer.channel.send(Taken())

    assert isinstance((await newcomer.hear())[0], Go)
    assert await newcomer.offered == 77
    await closing
    StateDir(old.folder, fds[0]).close()
    newcomer.channel.close()


async def test_where_nothing_is_kept_nothing_is_locked(tmp_path: Path) -> None:
    side = Side(tmp_path / "state")
    await side.open(state=StateDir(tmp_path / "state", None, "read-only"))
    newcomer = Newcomer(side)

    state, fds = await newcomer.learn()

    assert (state.locked, fds) == (False, [])
    newcomer.channel.close()
    await newcomer.why_not()
    await side.close()
