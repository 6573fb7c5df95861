"""What is known of runs stays consistent, however they come and go."""

from __future__ import annotations

from proxy.core.dialects.kept import Kept
from proxy.core.model import Kind
from proxy.core.replay_store import OVERHEAD, SEARCH, SLACK, RunStore
from proxy.core.replay_values import Done, Run, RunState

HOLD = 1000.0


def store(most: int = 100, most_bytes: int = 10_000) -> RunStore:
    return RunStore(most=most, most_bytes=most_bytes, hold=HOLD)


def done(text: str = "booked") -> Done:
    return Done(Kept(Kind.FUNCTION, 200, (), text.encode(), "success"), True)


def begin(runs: RunStore, key: bytes, now: float, *ids: str, stay: float = 100.0) -> Run:
    last = runs.last.known.get(key)
    number = 1 if last is None else runs.follow(last, now)
    run = Run(key, number, f"call of {key!r}", "book", stay, now, HOLD, ids)
    assert runs.add(run, now)
    return run


def finish(
    runs: RunStore, key: bytes, now: float, *ids: str, stay: float = 100.0, answer: str = "booked"
) -> Run:
    run = begin(runs, key, now, *ids, stay=stay)
    assert runs.leave(run)
    runs.keep(run, done(answer), now)
    return run


def test_a_tool_calls_answer_is_the_newest_that_it_heard() -> None:
    """An earlier one that goes for good takes only its own with it."""
    runs = store()
    finish(runs, b"k", 0.0, "a", stay=100.0)
    newer = finish(runs, b"k", 50.0, "b", stay=900.0, answer="newer")
    newer.ids += ("a",)
    finish(runs, b"k", 150.0, "c", stay=900.0)
    assert runs.expire(160.0, 10) == 1

    assert runs.former.done(b"k", "a", 160.0) == newer.done
    assert runs.former.done(b"k", "b", 160.0) == newer.done
    assert runs.former.done(b"k", "c", 160.0) is None
    assert runs.former.done(b"k", "a", 950.0) is None


def test_what_is_gone_leaves_nothing_behind() -> None:
    runs = store()
    for n in range(20):
        finish(runs, b"%d" % (n % 7), float(n), "a", f"b{n}", stay=10.0 + n % 3)
    runs.expire(1e6, 100)

    assert len(runs) == 0
    assert runs.bytes == 0
    assert list(runs) == []
    assert runs.former.done(b"1", "b1", 1e6) is None


def test_an_answer_that_stays_long_does_not_hoard_those_that_went_after_it() -> None:
    """Answers are queued by age; behind one that stays, thousands of dead ones may wait."""
    runs = store(most=10_000, most_bytes=10**9)
    finish(runs, b"long", 0.0, stay=1e9)
    for n in range(1000):
        finish(runs, b"%d" % n, float(n))
        runs.drop(runs.last.known.get(b"%d" % n) or Run(b"", 0, "", "", 0.0), float(n))

    assert len(runs) == 1
    assert len(runs._queue) < 2 * SLACK


def test_the_oldest_finished_goes_whatever_its_stay() -> None:
    runs = store(most=2)
    finish(runs, b"1", 0.0, stay=900.0)
    finish(runs, b"2", 1.0, stay=100.0)
    begin(runs, b"3", 2.0)

    assert runs.last.known.get(b"1") is None
    assert runs.last.known.get(b"2") is not None
    assert runs.evicted == 1


def test_a_run_may_be_held_back_only_where_it_is_the_last() -> None:
    runs = store()
    run = begin(runs, b"k", 0.0)
    runs.drop(run, 1.0)
    assert run.state is RunState.LOST
    assert runs.leave(run)
    assert len(runs) == 1


def test_success_in_a_scope_is_that_of_the_last_one_known() -> None:
    runs = store()
    one, two = finish(runs, b"1", 0.0), begin(runs, b"2", 1.0)
    two.scope = one.scope
    assert runs.is_latest(one)
    runs.leave(two)
    runs.keep(two, done(), 1.0)
    assert runs.is_latest(two)
    assert not runs.is_latest(one)

    runs.drop(two, 2.0)
    assert not runs.is_latest(one)


def test_a_write_that_had_begun_before_is_no_answer_to_this_one_however_late_it_ends() -> None:
    """Two bookings, the first of which comes to light last: a repeat of either was made already."""
    runs = store()
    late, quick = begin(runs, b"1", 0.0), begin(runs, b"2", 1.0)
    late.scope = quick.scope
    for each in (quick, late):
        runs.leave(each)
        runs.keep(each, done(), 2.0)

    assert runs.is_latest(quick)
    assert runs.is_latest(late)


def test_successes_of_forgotten_scopes_do_not_gather() -> None:
    runs = store(most=4)
    for n in range(1000):
        finish(runs, b"%d" % n, float(n)).scope = f"c{n}"
        runs.succeeded(f"c{n}", runs.steps)

    assert len(runs.newest) <= 2 * 4 + SLACK + 1


def test_what_is_due_behind_a_long_stay_goes_with_the_next_search() -> None:
    runs = store()
    runs.expire(0.0, 10)
    finish(runs, b"long", 0.0, stay=900.0)
    finish(runs, b"short", 0.0, stay=10.0)

    assert runs.expire(10.0, 10) == 0
    assert runs.expire(SEARCH, 10) == 1
    assert [run.key for run in runs] == [b"long"]


def test_a_search_goes_on_until_all_are_found() -> None:
    runs = store()
    finish(runs, b"long", 0.0, stay=9000.0)
    for n in range(5):
        finish(runs, b"%d" % n, 0.0, stay=10.0)

    assert [runs.expire(SEARCH, 2) for _ in range(4)] == [2, 2, 1, 0]


def test_a_run_that_nobody_settles_goes_after_its_time() -> None:
    runs = store()
    begin(runs, b"k", 0.0)

    assert runs.expire(HOLD - 1.0, 10) == 0
    assert runs.expire(HOLD + SEARCH, 10) == 1
    assert (len(runs), runs.in_flight) == (0, 0)


def test_an_earlier_run_that_makes_room_for_the_next_one_leaves_nothing_behind() -> None:
    runs = store(most=1)
    for n in range(3):
        finish(runs, b"k", float(n), "a", f"b{n}")

    assert len(runs) == 1
    assert runs.evicted == 2
    assert runs.former.done(b"k", "b0", 3.0) is None


def test_runs_are_counted_by_state() -> None:
    runs = store()
    finish(runs, b"1", 0.0, "a")
    finish(runs, b"1", 1.0, "b")
    begin(runs, b"1", 2.0, "c")
    doubt = begin(runs, b"2", 3.0)
    runs.leave(doubt)
    runs.hold(doubt, 4.0)

    assert (len(runs), runs.in_flight, runs.unknown, runs.finished) == (4, 1, 1, 2)
    assert len(list(runs)) == 4
    runs.drop(doubt, 5.0)
    assert (len(runs), runs.in_flight, runs.unknown, runs.finished) == (3, 1, 0, 2)


def test_room_is_made_of_what_went_out_of_turn_only_once() -> None:
    """It stands in its place still, but is passed over."""
    runs = store(most=3)
    for n in range(3):
        finish(runs, b"%d" % n, float(n))
    runs.drop(runs.last.known[b"1"], 3.0)
    for n in range(3, 6):
        finish(runs, b"%d" % n, float(n))

    assert [run.key for run in runs] == [b"3", b"4", b"5"]
    assert runs.evicted == 2


def test_of_too_many_bytes_the_oldest_answers_go_and_later_the_oldest_runs() -> None:
    runs = store(most=4, most_bytes=2 * OVERHEAD + 20)
    mute = begin(runs, b"mute", 0.0)
    runs.leave(mute)
    runs.keep(mute, Done(None, True), 0.0)
    for n in range(3):
        finish(runs, b"%d" % n, float(n))
    assert [(run.key, run.size > 0) for run in runs] == [
        (b"mute", False), (b"0", False), (b"1", True), (b"2", True)]  # fmt: skip
    assert runs.stripped == 1

    begin(runs, b"3", 3.0)
    begin(runs, b"4", 4.0)
    assert [run.key for run in runs] == [b"3", b"4", b"1", b"2"]


def test_of_too_many_bytes_none_are_sought_where_a_run_went_out_of_turn() -> None:
    runs = store(most_bytes=2 * (OVERHEAD + 6))
    for n in range(2):
        finish(runs, b"%d" % n, float(n))
    finish(runs, b"2", 2.0)
    assert runs.stripped == 1
    runs.drop(runs.last.known[b"1"], 3.0)
    for n in (3, 4):
        finish(runs, b"%d" % n, float(n))

    assert [(run.key, run.size > 0) for run in runs] == [
        (b"0", False),
        (b"2", False),
        (b"3", True),
        (b"4", True),
    ]


def test_the_last_success_of_a_scope_is_forgotten_with_the_oldest_run() -> None:
    """Whatever of the scope is known still has ended after that."""
    runs = store(most=2)
    for n in range(100):
        finish(runs, b"%d" % n, float(n))

    assert len(runs.newest) == 2
