"""The replay guard's rules, one by one, in the words of those who live with them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from proxy.core.dialects.kept import Kept
from proxy.core.model import Kind
from proxy.core.replay import HOLD, ReplayGuard, Step
from proxy.core.replay_store import OVERHEAD
from proxy.core.replay_values import MOST_IDS, Done, Full, Replay, Run, RunState, Wait

BOOK, CANCEL = b"book-monday-10am", b"cancel-monday-10"
MINUTES = 60.0


def answer(text: str, *, no: bool = False) -> Done:
    label = "business_no" if no else "success"
    return Done(Kept(Kind.FUNCTION, 200, (), text.encode(), label), not no)


BOOKED, TAKEN = answer("booked"), answer("that slot is taken", no=True)


class Desk:
    """One call's writes, on a clock of its own."""

    def __init__(self, **limits: float) -> None:
        self.guard = ReplayGuard(**limits)  # type: ignore[arg-type]
        self.now = 1000.0

    def ask(
        self,
        key: bytes = BOOK,
        tool_call_id: str | None = None,
        *,
        call: str = "call_1a",
        replay_for: float = 15 * MINUTES,
    ) -> Step:
        return self.guard.begin(
            key, call, tool="t", replay_for=replay_for, now=self.now, tool_call_id=tool_call_id
        )

    def run(
        self,
        key: bytes = BOOK,
        tool_call_id: str | None = None,
        *,
        call: str = "call_1a",
        replay_for: float = 15 * MINUTES,
    ) -> Run:
        run = self.ask(key, tool_call_id, call=call, replay_for=replay_for)
        assert isinstance(run, Run)
        return run

    def do(
        self,
        key: bytes = BOOK,
        tool_call_id: str | None = None,
        done: Done = BOOKED,
        *,
        call: str = "call_1a",
    ) -> Run:
        run = self.run(key, tool_call_id, call=call)
        assert self.guard.finished(run, done, self.now)
        return run


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_the_first_request_runs_and_its_twins_wait(desk: Desk) -> None:
    run = desk.run()

    assert (run.key, run.number, run.scope) == (BOOK, 1, "call_1a")
    assert desk.ask() == Wait(BOOK, unknown=False)
    assert desk.ask(tool_call_id="a") == Wait(BOOK, unknown=False)


def test_other_arguments_are_another_write(desk: Desk) -> None:
    desk.run(BOOK)
    assert isinstance(desk.ask(CANCEL), Run)


@pytest.mark.parametrize("tool_call_id", [None, "a", "b"])
def test_a_success_serves_every_repeat(desk: Desk, tool_call_id: str | None) -> None:
    """The agent that books again by itself hears of its booking."""
    desk.do(BOOK, "a")
    assert desk.ask(BOOK, tool_call_id) == Replay(BOOKED)


def test_after_its_time_an_answer_serves_nobody(desk: Desk) -> None:
    desk.do(BOOK, "a")
    desk.now += 15 * MINUTES

    assert desk.run(BOOK, "a").number == 2


def test_who_books_cancels_and_books_again_means_it(desk: Desk) -> None:
    first = desk.do(BOOK, "a")
    desk.do(CANCEL, "b")
    second = desk.run(BOOK, "c")

    assert second.number == 2
    assert second.idempotency != first.idempotency


def test_a_retry_of_the_first_booking_hears_of_that_one_still(desk: Desk) -> None:
    """Its tool call has its answer, whatever happened since: running, refused, or unknown."""
    desk.do(BOOK, "a")
    desk.do(CANCEL, "b")
    again = desk.run(BOOK, "c")
    assert desk.ask(BOOK, "a") == Replay(BOOKED)

    desk.guard.finished(again, TAKEN, desk.now)
    assert desk.ask(BOOK, "a") == Replay(BOOKED)
    assert desk.ask(BOOK, "c") == Replay(TAKEN)
    desk.now += 15 * MINUTES
    assert isinstance(desk.ask(BOOK, "a"), Run)


def test_without_ids_a_first_booking_is_forgotten_with_its_second_run(desk: Desk) -> None:
    desk.do(BOOK)
    desk.do(CANCEL)
    desk.do(BOOK, done=TAKEN)

    assert desk.run(BOOK).number == 3
    assert len(desk.guard.store) == 2


def test_a_refusal_or_a_doubt_in_between_changes_nothing(desk: Desk) -> None:
    desk.do(BOOK, "a")
    desk.do(CANCEL, "b", TAKEN)
    desk.guard.unknown(desk.run(b"something-else-x", "c"), desk.now)

    assert desk.ask(BOOK, "d") == Replay(BOOKED)


def test_a_success_of_another_call_changes_nothing(desk: Desk) -> None:
    desk.do(BOOK, "a")
    desk.do(CANCEL, "b", call="call_2b")

    assert desk.ask(BOOK, "c") == Replay(BOOKED)


def test_a_success_that_serves_no_repeats_counts_as_one_in_between(desk: Desk) -> None:
    desk.do(BOOK, "a")
    cancel = desk.run(CANCEL, "b", replay_for=0.0)
    assert desk.guard.finished(cancel, BOOKED, desk.now)

    assert desk.run(BOOK, "c").number == 2
    assert desk.run(CANCEL, "d").number == 2


def test_a_success_in_between_counts_longer_than_it_is_known(desk: Desk) -> None:
    desk.do(BOOK, "a")
    desk.guard.finished(desk.run(CANCEL, "b", replay_for=1.0), BOOKED, desk.now)
    desk.now += 2.0
    desk.guard.expire(desk.now)

    assert isinstance(desk.ask(BOOK, "c"), Run)


def test_a_no_serves_only_the_tool_call_that_heard_it(desk: Desk) -> None:
    """The slot may have become free: who asks anew means it."""
    desk.do(BOOK, "a", TAKEN)

    assert desk.ask(BOOK, "a") == Replay(TAKEN)
    assert desk.run(BOOK, "b").number == 2


def test_a_no_serves_nobody_whose_tool_call_is_unknown(desk: Desk) -> None:
    desk.do(BOOK, None, TAKEN)
    assert desk.run(BOOK, None).number == 2


def test_a_twin_that_heard_a_no_hears_it_again(desk: Desk) -> None:
    run = desk.run(BOOK, "a")
    desk.ask(BOOK, "b")
    desk.guard.finished(run, TAKEN, desk.now)

    assert desk.ask(BOOK, "b") == Replay(TAKEN)
    assert isinstance(desk.ask(BOOK, "c"), Run)


def test_a_tool_call_hears_for_ever_what_it_once_heard(desk: Desk) -> None:
    desk.do(BOOK, "a")
    assert desk.ask(BOOK, "b") == Replay(BOOKED)
    desk.do(CANCEL, "c")

    assert desk.ask(BOOK, "b") == Replay(BOOKED)
    assert isinstance(desk.ask(BOOK, "d"), Run)


def test_how_many_tool_calls_one_answer_remembers_is_bounded(desk: Desk) -> None:
    desk.do(BOOK, "a")
    for n in range(100):
        desk.ask(BOOK, f"id{n}")
    last = desk.guard.store.last.known.get(BOOK)

    assert last is not None
    assert len(last.ids) == MOST_IDS


def test_where_nothing_ran_nothing_is_remembered(desk: Desk) -> None:
    run = desk.run(BOOK, "a")
    assert desk.guard.not_run(run, desk.now)

    assert len(desk.guard.store) == 0
    again = desk.run(BOOK, "a")
    assert again.number == 1
    assert again.idempotency == run.idempotency


def test_a_second_run_that_did_not_happen_is_the_second_one_still(desk: Desk) -> None:
    desk.do(BOOK, None, TAKEN)
    desk.guard.not_run(desk.run(BOOK), desk.now)

    assert desk.run(BOOK).number == 2


@pytest.mark.parametrize("tool_call_id", [None, "a", "b"])
def test_what_may_have_run_does_not_run_again(desk: Desk, tool_call_id: str | None) -> None:
    desk.guard.unknown(desk.run(BOOK, "a"), desk.now)
    desk.do(CANCEL, "c")
    desk.now += HOLD - 1.0

    assert desk.ask(BOOK, tool_call_id) == Wait(BOOK, unknown=True)
    assert desk.guard.store.unknown == 1


def test_a_doubt_is_over_after_its_time(desk: Desk) -> None:
    desk.guard.unknown(desk.run(BOOK, "a"), desk.now)
    desk.now += HOLD

    assert desk.run(BOOK, "a").number == 2


def test_a_late_success_ends_the_doubt(desk: Desk) -> None:
    run = desk.run(BOOK, "a")
    desk.guard.unknown(run, desk.now)
    desk.ask(BOOK, "b")
    desk.now += 20.0
    assert desk.guard.finished(run, BOOKED, desk.now)

    assert desk.ask(BOOK, "c") == Replay(BOOKED)
    assert desk.guard.store.unknown == 0


def test_a_late_no_answers_those_who_waited_and_lets_others_try(desk: Desk) -> None:
    run = desk.run(BOOK, "a")
    desk.guard.unknown(run, desk.now)
    desk.ask(BOOK, "b")
    assert desk.guard.finished(run, TAKEN, desk.now)

    assert desk.ask(BOOK, "a") == Replay(TAKEN)
    assert desk.ask(BOOK, "b") == Replay(TAKEN)
    assert desk.run(BOOK, "c").number == 2


def test_a_late_word_that_nothing_ran_lets_it_run(desk: Desk) -> None:
    run = desk.run(BOOK, "a")
    desk.guard.unknown(run, desk.now)
    assert desk.guard.not_run(run, desk.now)

    assert desk.run(BOOK, "a").number == 1


def settled(guard: ReplayGuard, run: Run, now: float) -> list[bool]:
    return [
        guard.unknown(run, now),
        guard.finished(run, TAKEN, now),
        guard.not_run(run, now),
    ]


@pytest.mark.parametrize(
    "settle",
    [
        lambda guard, run, now: guard.finished(run, BOOKED, now),
        lambda guard, run, now: guard.not_run(run, now),
    ],
)
def test_what_is_settled_stays_so(
    desk: Desk, settle: Callable[[ReplayGuard, Run, float], bool]
) -> None:
    run = desk.run(BOOK, "a")
    assert settle(desk.guard, run, desk.now)

    assert settled(desk.guard, run, desk.now) == [False, False, False]


def test_a_word_about_a_run_that_another_has_followed_is_void(desk: Desk) -> None:
    first = desk.run(BOOK, "a")
    desk.guard.unknown(first, desk.now)
    desk.guard.release(BOOK, desk.now)
    desk.run(BOOK, "b")

    assert settled(desk.guard, first, desk.now) == [False, False, False]
    assert desk.ask(BOOK, "a") == Wait(BOOK, unknown=False)


def test_an_operators_release_lets_it_run_again(desk: Desk) -> None:
    desk.guard.unknown(desk.run(BOOK, "a"), desk.now)

    assert desk.guard.release(BOOK, desk.now) is RunState.UNKNOWN
    assert desk.run(BOOK, "a").number == 2


def test_a_finished_run_can_be_released_too(desk: Desk) -> None:
    """As after a booking was taken out by hand."""
    desk.do(BOOK, "a")

    assert desk.guard.release(BOOK, desk.now) is RunState.DONE
    assert desk.run(BOOK, "a").number == 2


def test_the_truth_outranks_a_release_until_the_next_run_begins(desk: Desk) -> None:
    """Or the operator's haste would book twice."""
    run = desk.run(BOOK, "a")
    desk.guard.unknown(run, desk.now)
    desk.guard.release(BOOK, desk.now)
    assert desk.guard.finished(run, BOOKED, desk.now)

    assert desk.ask(BOOK, "b") == Replay(BOOKED)


def test_that_nothing_ran_is_heard_after_a_release_too(desk: Desk) -> None:
    run = desk.run(BOOK, "a")
    desk.guard.unknown(run, desk.now)
    desk.guard.release(BOOK, desk.now)
    assert desk.guard.not_run(run, desk.now)

    assert desk.run(BOOK, "b").number == 1


def test_what_runs_or_was_never_heard_of_cannot_be_released(desk: Desk) -> None:
    desk.run(BOOK)
    with pytest.raises(ValueError, match="running"):
        desk.guard.release(BOOK, desk.now)
    with pytest.raises(KeyError):
        desk.guard.release(CANCEL, desk.now)


def test_a_run_that_nobody_settles_is_not_held_for_ever(desk: Desk) -> None:
    lost = desk.run(BOOK, "a")
    desk.now += HOLD

    assert desk.run(BOOK, "a").number == 2
    assert not desk.guard.finished(lost, BOOKED, desk.now)


def test_the_count_goes_on_after_an_answer_has_expired(desk: Desk) -> None:
    desk.do(BOOK, "a")
    desk.now += 15 * MINUTES
    assert desk.guard.expire(desk.now) == 1
    assert len(desk.guard.store) == 0

    assert desk.run(BOOK, "b").number == 2


def test_expiry_goes_in_steps(desk: Desk) -> None:
    for n in range(5):
        desk.do(b"%d" % n, "a")
    desk.now += 15 * MINUTES

    assert desk.guard.expire(desk.now, 3) == 3
    assert desk.guard.expire(desk.now, 3) == 2
    assert desk.guard.expire(desk.now, 3) == 0


def test_for_a_new_run_the_oldest_finished_one_goes() -> None:
    desk = Desk(most=3)
    desk.guard.unknown(desk.run(b"1", "a", call="c1"), desk.now)
    for n in (2, 3):
        desk.now += 1.0
        desk.do(b"%d" % n, "a", call=f"c{n}")
    desk.do(b"4", "a", call="c4")

    assert desk.ask(b"1", call="c1") == Wait(b"1", unknown=True)
    assert desk.ask(b"3", call="c3") == Replay(BOOKED)
    assert desk.ask(b"4", call="c4") == Replay(BOOKED)
    assert desk.guard.store.evicted == 1
    assert desk.run(b"2", call="c2").number == 2


def test_what_had_to_go_anyway_was_not_evicted() -> None:
    desk = Desk(most=1)
    desk.do(b"1")
    desk.now += 15 * MINUTES
    desk.do(b"2")

    assert desk.guard.store.evicted == 0


def test_with_nothing_finished_a_new_write_does_not_run() -> None:
    desk = Desk(most=2)
    desk.run(b"1")
    doubt = desk.run(b"2")
    desk.guard.unknown(doubt, desk.now)

    assert isinstance(desk.ask(b"3"), Full)
    assert isinstance(desk.ask(b"1"), Wait)
    desk.now += HOLD
    assert isinstance(desk.ask(b"3"), Run)


def test_a_run_that_was_given_up_comes_back_only_where_there_is_room() -> None:
    desk = Desk(most=1)
    run = desk.run(b"1")
    desk.guard.unknown(run, desk.now)
    desk.guard.release(b"1", desk.now)
    desk.run(b"2")

    assert not desk.guard.finished(run, BOOKED, desk.now)


def test_a_run_that_was_given_up_and_forgotten_stays_forgotten(desk: Desk) -> None:
    run = desk.run(BOOK)
    desk.guard.unknown(run, desk.now)
    desk.guard.release(BOOK, desk.now)
    desk.guard.expire(desk.now + 2 * HOLD)

    assert not desk.guard.finished(run, BOOKED, desk.now + 2 * HOLD)


def test_of_too_many_bytes_the_oldest_answers_go_but_not_that_they_were_done() -> None:
    """Whoever repeats that booking hears that it is done, and books nothing."""
    big = answer("x" * 1000)
    desk = Desk(most_bytes=2 * (1000 + OVERHEAD))
    for n in (1, 2, 3):
        desk.do(b"%d" % n, "a", big, call=f"c{n}")

    assert desk.ask(b"1", call="c1") == Replay(Done(None, success=True))
    assert desk.ask(b"3", call="c3") == Replay(big)
    assert desk.guard.store.stripped == 1
    assert desk.guard.store.bytes == 2 * (1000 + OVERHEAD)


def test_an_answer_too_large_to_keep_is_done_without_words() -> None:
    desk = Desk(most_bytes=500)
    desk.do(BOOK, "a", answer("x" * 500))

    assert desk.ask(BOOK, "b") == Replay(Done(None, success=True))
    assert desk.guard.store.bytes == 0


def test_an_answer_that_could_not_be_kept_is_done_without_words(desk: Desk) -> None:
    desk.do(BOOK, "a", Done(None, success=True))
    assert desk.ask(BOOK, "b") == Replay(Done(None, success=True))


def test_operators_see_what_is_held_and_nothing_that_was_said(desk: Desk) -> None:
    desk.do(CANCEL, "a", call="call_3c")
    desk.run(b"running", call="call_2b")
    desk.guard.unknown(desk.run(BOOK, "secret"), desk.now)
    desk.now += 5.0
    shown = desk.guard.records(desk.now, states=set(RunState))

    assert [(r.call_id, r.state, r.run, r.age) for r in shown] == [
        ("call_1a", "unknown", 1, 5.0),
        ("call_2b", "in_flight", 1, 5.0),
        ("call_3c", "done", 1, 5.0),
    ]
    assert shown[0].id == BOOK.hex()
    assert "secret" not in repr(shown)
    assert "booked" not in repr(shown)
    assert len(desk.guard.records(desk.now, states=set(RunState), most=2)) == 2
    assert [r.state for r in desk.guard.records(desk.now, states={RunState.DONE})] == ["done"]
    of_one = desk.guard.records(desk.now, states=set(RunState), scope="call_2b")
    assert [r.call_id for r in of_one] == ["call_2b"]
