from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from proxy.adapters import courier as module
from proxy.adapters.courier import Courier
from proxy.adapters.outbox import OutboxTerms
from proxy.adapters.outbox_watch import OutboxWatch
from proxy.core.model import Verdict
from proxy.core.outbox import Entry, Letter, State
from proxy.core.outbox_retry import Patience, Tried
from proxy.core.verdict import BREAKER_OPEN, BUSINESS_NO, FAILED_STATUS, SUCCESS
from proxy.errors import StoreFailed
from tests.adapters.outbox_kit import settle
from tests.adapters.test_outbox import Boxed

TERMS = OutboxTerms(True, Patience(2.0, 300.0, 3600.0), most=99_999, most_bytes=2**40, parallel=2)


class Arm:
    """Takes what it is handed as it is told to; fits `Post`."""

    def __init__(self) -> None:
        self.taken: list[int] = []
        self.bodies: list[bytes] = []
        self.verdict: Callable[[Entry], Verdict] = lambda _: SUCCESS
        self.is_open = False
        self.gate: asyncio.Event | None = None
        self.at_once = 0
        self.looks = 0
        self._busy = 0

    def shut(self, entry: Entry) -> Tried | None:
        self.looks += 1
        return Tried("webhook", BREAKER_OPEN) if self.is_open else None

    async def hand(self, entry: Entry, letter: Letter) -> Tried:
        self._busy += 1
        self.at_once = max(self.at_once, self._busy)
        try:
            if self.gate is not None:
                await self.gate.wait()
            self.taken.append(entry.id)
            self.bodies.append(letter.body)
            verdict = self.verdict(entry)
            return Tried("webhook", verdict, 200 if verdict is SUCCESS else 500)
        finally:
            self._busy -= 1


class Round(Boxed):
    """An outbox with its courier."""

    def __init__(self) -> None:
        super().__init__()
        self.box.terms = TERMS
        self.arm = Arm()
        self.courier = Courier(
            self.box,
            self.arm,
            clock=self.clock,
            watch=OutboxWatch(self.metrics.outbox, self.log, self.clock),
            start=self.tasks.start,
            jitter=lambda: 1.0,
        )
        self.running = self.tasks.start(self.courier.run(), "courier")

    async def queue(self, *calls: str | None) -> None:
        for number, call_id in enumerate(calls, 1):
            assert await self.take(number, call_id) == 200

    async def pass_(self, seconds: float) -> None:
        """Let time go by, and whatever is due then happen."""
        self.clock.advance(seconds)
        self.box.changes.set()
        await settle(60)

    def outcomes(self, outcome: str) -> float | None:
        return self.metrics.registry.get_sample_value(
            "t_outbox_deliveries_total", {"outcome": outcome}
        )


@pytest.fixture
async def round_() -> AsyncIterator[Round]:
    one = Round()
    yield one
    await one.courier.stop(0.0)
    await one.tasks.aclose()


async def test_what_waits_goes_out_in_the_order_of_its_call(round_: Round) -> None:
    await round_.queue("a", "b", "a", "a", "b")
    await round_.pass_(2.0)

    assert [id for id in round_.arm.taken if id in (1, 3, 4)] == [1, 3, 4]
    assert [id for id in round_.arm.taken if id in (2, 5)] == [2, 5]
    assert not len(round_.box.lines)
    assert not round_.store.kept
    assert round_.outcomes("delivered") == 5


async def test_of_one_call_one_at_a_time_and_of_all_as_many_as_the_rules_say(round_: Round) -> None:
    round_.arm.gate = asyncio.Event()
    await round_.queue("a", "a", "b", "c", None)
    await round_.pass_(2.0)

    assert round_.courier.under_way == 2
    assert round_.arm.at_once == 2
    round_.arm.gate.set()
    await settle(100)

    assert sorted(round_.arm.taken) == [1, 2, 3, 4, 5]
    assert round_.arm.at_once == 2


async def test_who_fails_is_tried_again_with_growing_pauses(round_: Round) -> None:
    round_.arm.verdict = lambda _: FAILED_STATUS
    await round_.queue("a", "a")
    tried_at = []
    for second in range(40):
        before = len(round_.arm.taken)
        await round_.pass_(1.0)
        tried_at += [second + 1] * (len(round_.arm.taken) - before)

    assert round_.arm.taken == [1] * len(tried_at)
    assert tried_at == [2, 4, 8, 16, 32]
    assert round_.store.kept[1][0].tries == 5
    assert round_.outcomes("failed") == 5


async def test_a_poisoned_event_dies_and_its_call_goes_on(round_: Round) -> None:
    round_.arm.verdict = lambda entry: BUSINESS_NO if entry.id == 1 else SUCCESS
    await round_.queue("a", "a")
    await round_.pass_(2.0)

    assert round_.arm.taken == [1, 2]
    (dead,) = round_.box.lines
    assert dead.state is State.DEAD
    assert round_.store.kept[1][0] == dead
    assert "outbox_gave_up" in round_.events
    assert round_.outcomes("dead") == 1


async def test_an_open_breaker_is_not_knocked_at_and_costs_no_try(round_: Round) -> None:
    round_.arm.is_open = True
    await round_.queue("a", "b", "c")
    for _ in range(5):
        await round_.pass_(1.0)

    assert not round_.arm.taken
    assert all(entry.tries == 0 for entry in round_.box.lines)

    round_.arm.is_open = False
    await round_.pass_(1.0)
    assert sorted(round_.arm.taken) == [1, 2, 3]


async def test_thousands_that_wait_for_an_arm_are_not_all_looked_at_at_once(
    round_: Round, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop belongs to live calls."""
    monkeypatch.setattr(module, "LOOKS", 10)
    round_.arm.is_open = True
    await round_.queue(*(f"call_{n}" for n in range(50)))
    await round_.pass_(2.0)
    assert round_.arm.looks == 10

    await round_.pass_(0.5)
    assert round_.arm.looks == 10
    await round_.pass_(0.5)
    assert round_.arm.looks == 20


async def test_an_arm_that_is_well_again_gets_everything_at_once(round_: Round) -> None:
    """Nobody's pause outlasts the outage."""
    round_.arm.verdict = lambda _: FAILED_STATUS
    await round_.queue("a", "b")
    for _ in range(20):
        await round_.pass_(1.0)
    failed = len(round_.arm.taken)
    round_.arm.verdict = lambda _: SUCCESS

    round_.courier.hasten()
    await settle(60)

    assert sorted(round_.arm.taken[failed:]) == [1, 2]


async def test_an_arm_whose_leave_is_taken_meanwhile_rests_for_a_moment(round_: Round) -> None:
    """Half open, it lends one permit at a time: that is no failure of the others'."""
    round_.arm.verdict = lambda _: BREAKER_OPEN
    await round_.queue("a", "b", "c")
    await round_.pass_(2.0)
    assert len(round_.arm.taken) == 2, "as many as go out at once"
    assert round_.outcomes("failed") == 0

    round_.arm.verdict = lambda _: SUCCESS
    await round_.pass_(1.0)
    assert sorted(round_.arm.taken[2:]) == [1, 2, 3]


async def test_what_was_never_tried_is_given_up_too(round_: Round) -> None:
    round_.arm.is_open = True
    await round_.queue("a")
    await round_.pass_(3600.0)

    (dead,) = round_.box.lines
    assert (dead.state, dead.tries) == (State.DEAD, 0)
    assert dead.reason == "webhook was not asked: its breaker is open"


async def test_a_letter_that_is_gone_is_dead(round_: Round) -> None:
    await round_.queue("a", "a")
    entry, _ = round_.store.kept.pop(1)
    round_.store.kept[1] = entry, None  # type: ignore[assignment]
    await round_.pass_(2.0)

    assert round_.arm.taken == [2]
    (dead,) = round_.box.lines
    assert dead.reason == "its stored bytes cannot be read"


async def test_a_store_that_cannot_be_read_is_waited_for(round_: Round) -> None:
    await round_.queue("a", "b")
    round_.store.fault = StoreFailed("disk I/O error")
    await round_.pass_(2.0)
    assert not round_.arm.taken
    assert "outbox_store_failed" in round_.events

    round_.store.fault = None
    await round_.pass_(1.0)
    assert sorted(round_.arm.taken) == [1, 2]


async def test_a_bug_does_not_turn_in_circles(round_: Round) -> None:
    def buggy(_: Entry) -> Verdict:
        raise KeyError("a bug")

    round_.arm.verdict = buggy
    await round_.queue("a")
    await round_.pass_(2.0)
    assert len(round_.crashes) == 1

    round_.crashes.clear()
    round_.arm.verdict = lambda _: SUCCESS
    await round_.pass_(1.0)
    assert round_.arm.taken == [1, 1]
    assert not round_.store.kept


async def test_who_does_not_lead_delivers_nothing(round_: Round) -> None:
    round_.store.leading = False
    await round_.queue("a")
    await round_.pass_(5.0)
    assert not round_.arm.taken

    round_.store.leading = True
    await round_.pass_(0.0)
    assert round_.arm.taken == [1]


async def test_an_event_that_is_dropped_while_it_goes_out_is_not_brought_back(
    round_: Round,
) -> None:
    round_.arm.gate = asyncio.Event()
    round_.arm.verdict = lambda _: FAILED_STATUS
    await round_.queue("a")
    await round_.pass_(2.0)
    await round_.box.drop(1)

    round_.arm.gate.set()
    await settle(60)

    assert not len(round_.box.lines)
    assert not round_.store.kept


async def test_a_stop_waits_for_what_is_under_way_and_begins_nothing(round_: Round) -> None:
    round_.arm.gate = asyncio.Event()
    await round_.queue("a", "a")
    await round_.pass_(2.0)
    stopping = asyncio.ensure_future(round_.courier.stop(20.0))
    await settle()
    assert not stopping.done()

    round_.arm.gate.set()
    await stopping

    assert round_.arm.taken == [1]
    assert list(round_.store.kept) == [2]
    await round_.running


async def test_what_a_stop_cuts_is_still_there(round_: Round) -> None:
    round_.arm.gate = asyncio.Event()
    await round_.queue("a")
    await round_.pass_(2.0)

    await round_.courier.stop(0.0)

    assert not round_.arm.taken
    assert list(round_.store.kept) == [1]
    assert round_.courier.under_way == 0


async def test_it_looks_now_and_then_without_being_told(
    round_: Round, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What nobody announces (a lease, a clock) must not be waited for."""
    monkeypatch.setattr(module, "MOST_REST", 0.001)
    round_.store.leading = False
    await round_.queue("a")
    round_.clock.advance(2.0)
    round_.box.changes.set()
    await settle()
    round_.store.leading = True

    async with asyncio.timeout(10):
        while not round_.arm.taken:
            await asyncio.sleep(0.001)
    assert round_.arm.bodies == [b'{"n":1,"pad":""}']
