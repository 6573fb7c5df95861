from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proxy.core.replay_numbers import RunNumbers

A, B, C = b"a", b"b", b"c"


def test_what_never_ran_has_no_number() -> None:
    assert RunNumbers(keep=100.0).last(A) == 0


def test_the_last_number_counts() -> None:
    numbers = RunNumbers(keep=100.0)
    numbers.note(A, 1, 1000.0)
    numbers.note(A, 2, 1001.0)

    assert numbers.last(A) == 2
    assert list(numbers.items()) == [(A, 2)]


def test_a_number_that_was_taken_back_is_no_earlier_one() -> None:
    numbers = RunNumbers(keep=100.0)
    numbers.note(A, 1, 1000.0)
    numbers.note(B, 1, 1050.0)
    numbers.note(A, 0, 1051.0)

    assert numbers.last(A) == 0
    assert list(numbers.items()) == [(B, 1), (A, 0)]


def test_a_number_stays_for_half_of_the_time_and_goes_after_all_of_it() -> None:
    numbers = RunNumbers(keep=100.0)
    numbers.note(A, 1, 1000.0)
    numbers.note(B, 1, 1049.0)
    numbers.note(C, 1, 1051.0)
    assert numbers.last(A) == 1

    numbers.turn(1101.0)
    assert (numbers.last(A), numbers.last(B), numbers.last(C)) == (0, 0, 1)
    assert len(numbers) == 1


def test_after_a_long_silence_nothing_is_left() -> None:
    numbers = RunNumbers(keep=100.0)
    numbers.note(A, 1, 1000.0)
    numbers.turn(1100.0)
    assert numbers.last(A) == 0


@given(st.lists(st.tuples(st.integers(0, 50), st.floats(0, 40)), max_size=80))
def test_their_number_is_bounded_and_the_newest_stay(
    notes: list[tuple[int, float]],
) -> None:
    numbers, now, told = RunNumbers(keep=100.0, most=10), 0.0, dict[bytes, int]()
    for key, pause in notes:
        now += pause
        told[b"%d" % key] = told.get(b"%d" % key, 0) + 1
        numbers.note(b"%d" % key, told[b"%d" % key], now)
        assert len(numbers) <= 10
        assert numbers.last(b"%d" % key) == told[b"%d" % key]
    assert dict(numbers.items()).items() <= told.items()
