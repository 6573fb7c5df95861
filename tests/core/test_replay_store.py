"""What is known of runs stays consistent, however they come and go."""

from __future__ import annotations

from proxy.core.dialects.kept import Kept
from proxy.core.model import Kind
from proxy.core.replay_store import RunStore
from proxy.core.replay_values import Done, Run, RunState

HOLD = 1000.0


def store(most: int = 100, most_bytes: int = 10_000) -> RunStore:
    return RunStore(most=most, most_bytes=most_bytes, hold=HOLD)


def done(text: str = "booked") -> Done:
    return Done(Kept(Kind.FUNCTION, 200, (), text.encode(), "success"), True)


def finish(
    runs: RunStore, key: bytes, now: float, *ids: str, stay: float = 100.0, answer: str = "booked"
) -> Run:
    number = runs.follow(runs.last(key), key, now)
    run = Run(key, number, f"call of {key!r}", "book", stay, ids=ids)
    runs.add(run, now)
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

    assert runs.former(b"k", "a", 160.0) == newer.done
    assert runs.former(b"k", "b", 160.0) == newer.done
    assert runs.former(b"k", "c", 160.0) is None
    assert runs.former(b"k", None, 160.0) is None
    assert runs.former(b"k", "a", 950.0) is None


def test_what_is_gone_leaves_nothing_behind() -> None:
    runs = store()
    for n in range(20):
        finish(runs, b"%d" % (n % 7), float(n), "a", f"b{n}", stay=10.0 + n % 3)
    runs.expire(1e6, 100)

    assert len(runs) == 0
    assert runs.bytes == 0
    assert list(runs) == []
    assert runs.former(b"1", "b1", 1e6) is None


def test_an_answer_that_stays_long_does_not_hoard_those_that_went_after_it() -> None:
    """Answers are queued by age; behind one that stays, thousands of dead ones may wait."""
    runs = store(most=10_000, most_bytes=10**9)
    finish(runs, b"long", 0.0, stay=1e9)
    for n in range(1000):
        finish(runs, b"%d" % n, float(n))
        runs.drop(runs.last(b"%d" % n) or Run(b"", 0, "", "", 0.0), float(n))

    assert len(runs) == 1
    assert len(runs._answers) < 100


def test_the_oldest_finished_goes_whatever_its_stay() -> None:
    runs = store(most=2)
    finish(runs, b"1", 0.0, stay=900.0)
    finish(runs, b"2", 1.0, stay=100.0)
    assert runs.has_room(2.0)

    assert runs.last(b"1") is None
    assert runs.last(b"2") is not None
    assert runs.evicted == 1


def test_a_run_may_be_held_back_only_where_it_is_the_last() -> None:
    runs = store()
    run = Run(b"k", 1, "call_1a", "book", 100.0)
    runs.add(run, 0.0)
    runs.drop(run, 1.0)
    assert run.state is RunState.LOST
    assert runs.leave(run)
    assert runs.last(b"k") is run


def test_success_in_a_scope_is_that_of_the_last_one_known() -> None:
    runs = store()
    one, two = finish(runs, b"1", 0.0), finish(runs, b"2", 1.0)
    two.scope = one.scope
    runs.succeeded(one)
    assert runs.is_latest(one)
    runs.succeeded(two)
    assert runs.is_latest(two)
    assert not runs.is_latest(one)

    runs.drop(two, 2.0)
    assert not runs.is_latest(one)
