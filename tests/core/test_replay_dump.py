from __future__ import annotations

import msgspec
import pytest

from proxy.core.dialects.kept import Kept
from proxy.core.model import Kind
from proxy.core.replay import HOLD, ReplayGuard
from proxy.core.replay_dump import VERSION, Saved, dump, load
from proxy.core.replay_events import EventGuard, EventStep
from proxy.core.replay_values import Done, Replay, Run, RunState, Wait

WALL = 1_767_225_600_000
BOOKED = Done(
    Kept(Kind.FUNCTION, 200, ((b"content-type", b"text/plain"),), b"booked\xff", "success"), True
)
REFUSED = Done(Kept(Kind.MCP, 200, (), b"no", "business_no"), False)


def begin(guard: ReplayGuard, key: bytes, tool_call_id: str | None, now: float) -> object:
    return guard.begin(
        key, "call_1a", tool="book", replay_for=900.0, now=now, tool_call_id=tool_call_id
    )


def run(guard: ReplayGuard, key: bytes, tool_call_id: str | None, now: float) -> Run:
    began = begin(guard, key, tool_call_id, now)
    assert isinstance(began, Run)
    return began


def reborn(
    guard: ReplayGuard,
    *,
    now: float,
    away: float = 0.0,
    started: float = 5.0,
    events: EventGuard | None = None,
) -> tuple[ReplayGuard, EventGuard]:
    """The guards of a process that started `away` seconds later, with a clock of its own."""
    saved = dump(guard, events or EventGuard(), now=now, wall_ms=WALL)
    text = msgspec.msgpack.encode(saved)
    other, other_events = ReplayGuard(), EventGuard()
    load(
        msgspec.msgpack.decode(text, type=Saved),
        other,
        other_events,
        now=started,
        wall_ms=WALL + round(away * 1000),
    )
    return other, other_events


def test_an_answer_serves_repeats_of_the_next_process() -> None:
    guard = ReplayGuard()
    guard.finished(run(guard, b"k", "a", 100.0), BOOKED, 100.0)
    other, _ = reborn(guard, now=160.0)

    assert begin(other, b"k", "b", 5.0) == Replay(BOOKED)
    assert begin(other, b"k", "a", 5.0 + 839.0) == Replay(BOOKED)
    assert run(other, b"k", "a", 5.0 + 840.0).number == 2


def test_time_passes_between_two_processes_too() -> None:
    guard = ReplayGuard()
    guard.finished(run(guard, b"k", "a", 100.0), BOOKED, 100.0)
    other, _ = reborn(guard, now=100.0, away=900.0)

    assert len(other.store) == 0
    assert run(other, b"k", "a", 5.0).number == 2


def test_a_clock_that_was_set_back_makes_nothing_younger() -> None:
    guard = ReplayGuard()
    guard.finished(run(guard, b"k", "a", 100.0), BOOKED, 100.0)
    other, _ = reborn(guard, now=100.0, away=-3600.0)

    assert begin(other, b"k", "a", 5.0 + 899.0) == Replay(BOOKED)
    assert isinstance(begin(other, b"k", "a", 5.0 + 900.0), Run)


def test_what_was_in_flight_reads_unknown() -> None:
    guard = ReplayGuard()
    run(guard, b"k", "a", 100.0)
    other, _ = reborn(guard, now=130.0)

    assert begin(other, b"k", "a", 5.0) == Wait(b"k", unknown=True)
    assert other.store.unknown == 1
    assert other.release(b"k", 5.0) is RunState.UNKNOWN
    assert run(other, b"k", "a", 5.0).number == 2


def test_a_doubt_is_no_longer_held_than_it_would_have_been() -> None:
    guard = ReplayGuard()
    guard.unknown(run(guard, b"k", "a", 100.0), 100.0)
    other, _ = reborn(guard, now=100.0, away=HOLD - 1.0)

    assert begin(other, b"k", "a", 5.0) == Wait(b"k", unknown=True)
    assert isinstance(begin(other, b"k", "a", 6.0), Run)


def test_booking_cancelling_and_booking_again_works_across_a_restart() -> None:
    guard = ReplayGuard()
    guard.finished(run(guard, b"book", "a", 100.0), BOOKED, 100.0)
    guard.finished(run(guard, b"cancel", "b", 101.0), BOOKED, 101.0)
    other, _ = reborn(guard, now=102.0)
    again = run(other, b"book", "c", 6.0)

    assert again.number == 2
    assert begin(other, b"book", "a", 6.0) == Replay(BOOKED)
    assert begin(other, b"cancel", "d", 6.0) == Replay(BOOKED)


def test_an_earlier_answer_still_serves_its_own_tool_call() -> None:
    guard = ReplayGuard()
    guard.finished(run(guard, b"book", "a", 100.0), REFUSED, 100.0)
    guard.finished(run(guard, b"book", "b", 200.0), BOOKED, 200.0)
    other, _ = reborn(guard, now=300.0)

    assert begin(other, b"book", "a", 5.0) == Replay(REFUSED)
    assert begin(other, b"book", "b", 5.0) == Replay(BOOKED)


def test_an_earlier_answer_that_has_expired_takes_nothing_from_the_last_one() -> None:
    guard = ReplayGuard()
    guard.finished(run(guard, b"book", "a", 100.0), REFUSED, 100.0)
    guard.finished(run(guard, b"book", "b", 200.0), REFUSED, 200.0)
    other, _ = reborn(guard, now=200.0, away=850.0)

    assert run(other, b"book", "a", 5.0).number == 3


def test_counts_go_on_across_a_restart() -> None:
    guard = ReplayGuard()
    guard.finished(run(guard, b"k", "a", 100.0), BOOKED, 100.0)
    guard.release(b"k", 101.0)
    other, _ = reborn(guard, now=102.0)

    assert run(other, b"k", "a", 5.0).number == 2


def test_a_done_run_whose_answer_was_too_large_stays_one() -> None:
    guard = ReplayGuard()
    guard.finished(run(guard, b"k", "a", 100.0), Done(None, success=True), 100.0)
    other, _ = reborn(guard, now=102.0)

    assert begin(other, b"k", "a", 5.0) == Replay(Done(None, success=True))


def test_an_event_that_was_taken_stays_so() -> None:
    events = EventGuard()
    events.begin(7, 100.0)
    events.ended(7, 100.0, delivered=True)
    _, others = reborn(ReplayGuard(), now=102.0, events=events, away=86_000.0)

    assert others.begin(7, 5.0) is EventStep.DELIVERED
    assert others.begin(7, 900.0) is EventStep.DELIVER


def test_an_event_that_was_under_way_is_delivered_again() -> None:
    """In doubt: a lost one is worse than a repeated one."""
    events = EventGuard()
    events.begin(7, 100.0)
    _, others = reborn(ReplayGuard(), now=102.0, events=events)

    assert others.begin(7, 5.0) is EventStep.DELIVER


def test_what_does_not_fit_any_more_is_the_oldest() -> None:
    guard = ReplayGuard()
    for now, stay in ((1.0, 900.0), (2.0, 500.0), (3.0, 900.0)):
        key = b"%d" % now
        began = guard.begin(key, "c", tool="book", replay_for=stay, now=now)
        assert isinstance(began, Run)
        guard.finished(began, BOOKED, now)
    saved = dump(guard, EventGuard(), now=4.0, wall_ms=WALL)
    small = ReplayGuard(most_bytes=guard.store.bytes - 1)
    load(saved, small, EventGuard(), now=4.0, wall_ms=WALL)

    answered = {run.key for run in small.store if run.done == BOOKED}
    assert answered == {b"2", b"3"}


def test_another_version_is_refused() -> None:
    saved = Saved(VERSION + 1, [], [], [])
    with pytest.raises(ValueError, match=f"version {VERSION + 1}"):
        load(saved, ReplayGuard(), EventGuard(), now=5.0, wall_ms=WALL)
