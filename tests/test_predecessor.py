"""A new process follows an old one: both sides real, in one loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from proxy import predecessor
from proxy.adapters.channel import (
    Channel,
    Ended,
    EventEnded,
    Go,
    No,
    Offer,
    Place,
    Ready,
    State,
)
from proxy.adapters.clock import LoopClock
from proxy.adapters.replay_file import ReplayFile
from proxy.adapters.state_dir import StateDir, StateHeld
from proxy.core.model import Ran
from proxy.core.replay_events import EventStep
from proxy.core.replay_values import Full, Replay, Wait
from proxy.errors import SettingsError
from proxy.inherited import Inherited
from proxy.once import Elsewhere, Heard, Heir, Ticket
from proxy.predecessor import Predecessor
from tests.adapters.outbox_kit import event
from tests.handover_kit import BOOKED, Side, answered_by, pair, soon, write


class Both:
    """Two processes; the second follows the first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sides: list[Side] = []
        self.before: list[Predecessor] = []

    async def first(self) -> Side:
        side = Side(self.folder, name=b"process 1")
        await side.open()
        self.sides.append(side)
        return side

    async def follow(self) -> Side:
        """One more process, that follows the last one."""
        old = self.sides[-1]
        side = Side(self.folder, name=b"process %d" % (len(self.sides) + 1))
        ours, theirs = socket.socketpair()
        offered = asyncio.ensure_future(old.handover.offer(theirs, own=True))
        before = await Predecessor.meet(Channel(ours), pid=1)
        state = before.state(str(self.folder))
        told = await before.take(state)
        replays = ReplayFile(state, clock=side.clock, log=side.log)
        replays.take_over(told.replays, side.once.guard, side.once.events)
        await before.go(side.once, told)
        before.serve(side.once, side.box, clock=side.clock, start=side.start)
        await side.open(state=state, source=Inherited(before=before))
        before.refuse()
        await offered
        self.sides.append(side)
        self.before.append(before)
        return side


@pytest.fixture
async def both(tmp_path: Path) -> AsyncIterator[Both]:
    both = Both(tmp_path / "state")
    yield both
    for side in both.sides:
        await side.close()
    for before in both.before:
        before.close()


def running(side: Side, asked: Elsewhere) -> Ticket:
    """A write or event that runs there."""
    step = side.once.take_up(asked, side.clock.now())
    assert isinstance(step, Ticket)
    return step


async def test_the_new_one_accepts_where_the_old_one_did(both: Both) -> None:
    old = await both.first()
    assert await answered_by(old.port) == b"process 1"
    new = await both.follow()

    assert await answered_by(new.port) == b"process 2"
    assert new.state.writable
    assert not old.state.writable


async def test_what_has_run_is_known(both: Both) -> None:
    old = await both.first()
    old.once.conclude(running(old, write()), BOOKED)
    new = await both.follow()

    step = new.once.take_up(write(tool_call_id="another"), new.clock.now())

    assert step == Replay(BOOKED)


@pytest.mark.parametrize(
    ("outcome", "heard"), [(BOOKED, BOOKED), (Ran.NO, Ran.NO), (Ran.UNKNOWN, Ran.UNKNOWN)]
)
async def test_what_runs_in_the_old_one_is_waited_for(
    both: Both, outcome: object, heard: object
) -> None:
    old = await both.first()
    ticket = running(old, write())
    new = await both.follow()
    step = new.once.take_up(write(), new.clock.now())
    assert step == Wait(write().key, unknown=True)
    waiting = asyncio.ensure_future(new.once.outcome(step, new.clock.now() + 20))
    await asyncio.sleep(0)

    old.once.conclude(ticket, outcome)  # type: ignore[arg-type]

    assert await waiting == heard
    again = new.once.take_up(write(), new.clock.now())
    kinds = {Ran.NO: Ticket, Ran.UNKNOWN: Wait}
    assert isinstance(again, kinds[heard] if isinstance(heard, Ran) else Replay)


async def test_what_ran_in_one_that_died_stays_unknown(both: Both) -> None:
    old = await both.first()
    running(old, write())
    running(old, Elsewhere(event=7))
    new = await both.follow()
    step = new.once.take_up(write(), new.clock.now())
    assert isinstance(step, Wait)
    waiting = asyncio.ensure_future(new.once.outcome(step, new.clock.now() + 20))
    assert new.once.take_up(Elsewhere(event=7), new.clock.now()) == Heard(7, False)

    assert old.handover.successor is not None
    old.handover.successor.lose()

    assert await waiting is Ran.UNKNOWN
    # In doubt an event is delivered.
    assert isinstance(new.once.take_up(Elsewhere(event=7), new.clock.now()), Ticket)


async def test_the_old_one_asks_before_it_runs_anything(both: Both) -> None:
    old = await both.first()
    new = await both.follow()
    new.once.conclude(running(new, write(b"a" * 16)), BOOKED)

    repeat = await old.once.ask(write(b"a" * 16))
    fresh = await old.once.ask(write(b"b" * 16))

    assert repeat == Replay(BOOKED)
    assert isinstance(fresh, Ticket)
    assert fresh.far
    assert fresh.run is not None
    assert new.once.take_up(write(b"b" * 16), 0.0) == Wait(b"b" * 16, unknown=False)
    old.once.conclude(fresh, BOOKED)
    await soon(lambda: new.once.guard.store.finished == 2)
    assert new.once.take_up(write(b"b" * 16), new.clock.now()) == Replay(BOOKED)


async def test_a_twin_of_what_runs_in_the_new_one_hears_how_it_ends(both: Both) -> None:
    old = await both.first()
    new = await both.follow()
    ticket = running(new, write())
    asked = asyncio.ensure_future(old.once.ask(write()))
    await soon(lambda: write().key in new.once._runs)

    new.once.conclude(ticket, BOOKED)

    assert await asked == Replay(BOOKED)


async def test_a_twin_waits_no_longer_than_it_may(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predecessor, "TWIN", 0.01)
    old = await both.first()
    new = await both.follow()
    running(new, write())

    assert await old.once.ask(write()) == Wait(write().key, unknown=True)


async def test_twins_in_the_old_one_hear_each_other(both: Both) -> None:
    old = await both.first()
    await both.follow()
    first = await old.once.ask(write())
    assert isinstance(first, Ticket)
    waiting = asyncio.ensure_future(old.once.outcome(Wait(write().key, True), 1e12))
    await asyncio.sleep(0)

    old.once.conclude(first, BOOKED)

    assert await waiting == BOOKED


async def test_a_write_of_the_old_one_that_is_late_is_unknown_until_it_ends(both: Both) -> None:
    old = await both.first()
    new = await both.follow()
    ticket = await old.once.ask(write())
    assert isinstance(ticket, Ticket)
    old.once.doubt(ticket)
    old.once.conclude(ticket, BOOKED)

    await soon(lambda: new.once.guard.store.finished)


async def test_a_full_guard_runs_nothing(both: Both) -> None:
    old = await both.first()
    new = await both.follow()
    new.once.guard.store._most = 0

    assert isinstance(await old.once.ask(write()), Full)


async def test_events_are_asked_about_and_told(both: Both) -> None:
    old = await both.first()
    new = await both.follow()

    first = await old.once.ask(Elsewhere(event=5))
    twin = await old.once.ask(Elsewhere(event=5))
    assert isinstance(first, Ticket)
    assert twin == Heard(5, False)
    old.once.conclude(first, None, taken=True)
    await soon(lambda: new.once.take_up(Elsewhere(event=5), 0.0) == Heard(5, True))

    assert await old.once.ask(Elsewhere(event=5)) == Heard(5, True)
    assert new.once.events.begin(6, 0.0) is EventStep.DELIVER


@pytest.mark.parametrize("room", [True, False])
async def test_events_that_wait_are_kept_by_the_new_one(both: Both, room: bool) -> None:
    old = await both.first()
    new = await both.follow()
    new.box.room = room
    entry, letter = event()
    assert old.handover.successor is not None

    kept = await old.handover.successor.post(entry, letter, until=old.clock.now() + 20)

    assert kept is room
    assert new.box.kept == ([entry] if room else [])


async def test_three_in_a_row_know_what_the_first_one_runs(both: Both) -> None:
    """The middle one hands on what it hears, and asks for who asks it."""
    first = await both.first()
    ticket = running(first, write(b"a" * 16))
    middle = await both.follow()
    last = await both.follow()

    fresh = await first.once.ask(write(b"b" * 16))
    assert isinstance(fresh, Ticket)
    first.once.conclude(ticket, BOOKED)
    first.once.conclude(fresh, BOOKED)

    await soon(lambda: last.once.guard.store.finished == 2)
    for key in (b"a" * 16, b"b" * 16):
        assert last.once.take_up(write(key), last.clock.now()) == Replay(BOOKED)
    assert middle.once.heir is not None


class Slow:
    """The last one of three, as the middle one sees it: it answers when a test says so."""

    def __init__(self, heir: Heir) -> None:
        self._heir = heir
        self.asked, self.go = asyncio.Event(), asyncio.Event()

    async def begin(self, asked: Elsewhere) -> object:
        self.asked.set()
        await self.go.wait()
        return await self._heir.begin(asked)

    async def begin_event(self, key: int) -> object:
        self.asked.set()
        await self.go.wait()
        return await self._heir.begin_event(key)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._heir, name)


@pytest.mark.parametrize("asked", [write(), Elsewhere(event=5)])
async def test_leave_for_one_that_died_meanwhile_is_given_back(
    both: Both, asked: Elsewhere
) -> None:
    """Nobody would tell how the write ended: it would count as running for good."""
    first = await both.first()
    middle = await both.follow()
    last = await both.follow()
    assert middle.once.heir is not None
    slow = Slow(middle.once.heir)
    middle.once.heir = slow  # type: ignore[assignment]
    asking = asyncio.ensure_future(first.once.ask(asked))
    await slow.asked.wait()
    assert first.handover.successor is not None
    first.handover.successor.lose()
    await asking
    await both.before[0].ended(20.0)

    slow.go.set()
    (begun,) = (task for task in middle.tasks if task.get_name().startswith("write of"))
    await begun

    def given_back() -> bool:
        return isinstance(last.once.take_up(asked, last.clock.now()), Ticket)

    await soon(given_back)


async def test_an_old_one_whose_follower_died_runs_no_write_and_tells_what_it_knows(
    both: Both,
) -> None:
    """Never that nothing has run: the other may have begun it."""
    old = await both.first()
    old.once.conclude(running(old, write(b"a" * 16)), BOOKED)
    running(old, write(b"b" * 16))
    await both.follow()
    both.before[-1].close()
    await soon(lambda: old.tasks[0].done())

    assert await old.once.ask(write(b"a" * 16)) == Replay(BOOKED)
    assert await old.once.ask(write(b"b" * 16)) == Wait(b"b" * 16, unknown=False)
    assert await old.once.ask(write(b"c" * 16)) == Wait(b"c" * 16, unknown=True)
    assert isinstance(await old.once.ask(Elsewhere(event=3)), Ticket)  # in doubt
    entry, letter = event()
    assert old.handover.successor is not None
    assert not await old.handover.successor.post(entry, letter, until=old.clock.now() + 20)


async def test_the_old_one_is_waited_for(both: Both) -> None:
    old = await both.first()
    await both.follow()
    before = both.before[-1]
    await before.ended(0.01)  # It is still there.

    await old.handover.close()
    await before.ended(20.0)

    assert before._serving is not None
    assert before._serving.done()


# -- What comes to nothing.


async def met(*places: Place, state_dir: int = 0) -> tuple[Predecessor, Channel]:
    """A predecessor that a test plays."""
    ours, theirs = pair()
    with socket.socket() as sock:
        theirs.send(Offer(list(places), state_dir), [sock.fileno()] * len(places))
    return await Predecessor.meet(ours, pid=1), theirs


async def test_one_that_refuses_is_quoted() -> None:
    ours, theirs = pair()
    theirs.send(No("it is Monday"))
    with pytest.raises(SettingsError, match="Monday"):
        await Predecessor.meet(ours, pid=1)
    theirs.send(Go())
    with pytest.raises(SettingsError, match="offers nothing"):
        await Predecessor.meet(ours, pid=1)
    theirs.close()
    with pytest.raises(SettingsError, match="does not answer"):
        await Predecessor.meet(ours, pid=1)
    ours.close()


async def test_an_offer_without_its_sockets_is_none() -> None:
    ours, theirs = pair()
    for count in (0, 2):
        with socket.socket() as sock:
            theirs.send(Offer([Place("callsplit", True, "")], 0), [sock.fileno()] * count)
        with pytest.raises(SettingsError, match="offers nothing"):
            await Predecessor.meet(ours, pid=1)
    ours.close()
    theirs.close()


async def test_sockets_are_claimed_by_address_or_because_they_were_given() -> None:
    before, theirs = await met(
        Place("callsplit", True, "127.0.0.1:1"), Place("admin", False, "127.0.0.1:2")
    )
    assert before.given("callsplit")
    assert not before.given("admin")
    assert before.claim("admin", "127.0.0.1:3") == []
    assert before.claim("observe", "127.0.0.1:2") == []
    found = before.claim("callsplit", "127.0.0.1:9") + before.claim("admin", "127.0.0.1:2")
    assert len(found) == 2
    assert before.claim("callsplit", "127.0.0.1:1") == []
    for sock in found:
        sock.close()
    await before.fail("never mind")
    theirs.close()


async def test_a_state_dir_is_awaited_only_if_it_is_the_old_ones(tmp_path: Path) -> None:
    held = StateDir.open(tmp_path / "a")
    before, theirs = await met(state_dir=held.number)
    assert before.state(str(tmp_path / "a")).readable
    own = before.state(str(tmp_path / "b"))
    assert own.writable
    other, others = await met(state_dir=own.number)
    with pytest.raises(StateHeld):
        other.state(str(tmp_path / "a"))
    for each in (held, own):
        each.close()
    for channel in (theirs, others):
        channel.close()
    before.close()
    other.close()


async def test_one_that_does_not_let_go_is_not_followed(tmp_path: Path) -> None:
    held = StateDir.open(tmp_path)
    before, theirs = await met(state_dir=held.number)
    state = before.state(str(tmp_path))
    for answer in (No("not today"), Go(), State(b"", [], [], locked=False)):
        theirs.send(answer)
        with pytest.raises(SettingsError):
            await before.take(state)
    theirs.close()
    with pytest.raises(SettingsError, match="did not let go"):
        await before.take(state)
    before.close()
    held.close()


async def test_a_lock_of_another_directory_is_let_go(tmp_path: Path) -> None:
    held, own = StateDir.open(tmp_path / "a"), StateDir.open(tmp_path / "b")
    before, theirs = await met()
    assert held.lock is not None
    theirs.send(State(b"", [], [], locked=True), [held.lock])

    told = await before.take(own)

    assert told.locked
    held.close()
    StateDir.open(tmp_path / "a").close()
    own.close()
    before.close()
    theirs.close()


async def test_what_it_says_of_things_unknown_is_passed_over(tmp_path: Path) -> None:
    before, theirs = await met()
    side = Side(tmp_path)
    before.serve(side.once, side.box, clock=LoopClock(), start=side.start)
    for message in (Ended(b"x", 1, None, ran=False), EventEnded(3, True), Ready()):
        theirs.send(message)
    theirs.close()

    await before.ended(20.0)

    before.close()
