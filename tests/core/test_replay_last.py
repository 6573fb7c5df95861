from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proxy.core.replay_last import LastRuns
from proxy.core.replay_values import Run

A, B, C = b"a", b"b", b"c"


def begun(runs: LastRuns, key: bytes, number: int = 1) -> Run:
    run = runs.known[key] = Run(key, number, "call_1a", "book", 900.0)
    return run


def forgotten(runs: LastRuns, key: bytes, now: float, number: int = 1) -> Run:
    run = begun(runs, key, number)
    runs.forget(run, now)
    return run


def test_of_a_forgotten_run_nothing_is_known_but_its_number() -> None:
    runs = LastRuns(keep=100.0)
    forgotten(runs, A, 1000.0, number=3)

    assert runs.known == {}
    assert (runs.number(A), runs.number(B)) == (3, 0)
    assert list(runs.numbers()) == [(A, 3)]


def test_a_number_stays_for_its_time_and_for_as_long_again_at_most() -> None:
    runs = LastRuns(keep=100.0)
    for key, now in ((A, 1000.0), (B, 1050.0)):
        forgotten(runs, key, now)
    runs.expire(1099.0)
    runs.expire(1100.0)
    forgotten(runs, C, 1149.0)
    assert [runs.number(each) for each in (A, B, C)] == [1, 1, 1]

    runs.expire(1150.0)
    assert [runs.number(each) for each in (A, B, C)] == [0, 0, 1]
    runs.expire(1249.0)
    assert runs.number(C) == 0


def test_after_a_long_rest_all_numbers_go_at_once() -> None:
    runs = LastRuns(keep=100.0)
    forgotten(runs, A, 1000.0)
    runs.expire(1200.0)

    assert list(runs.numbers()) == []


def test_a_run_that_another_has_followed_takes_nothing_from_it() -> None:
    runs = LastRuns(keep=100.0)
    first = begun(runs, A)
    second = begun(runs, A, 2)
    runs.forget(first, 1000.0)

    assert runs.known == {A: second}
    assert runs.number(A) == 0


def test_numbers_are_told_only_of_what_is_forgotten() -> None:
    runs = LastRuns(keep=100.0)
    forgotten(runs, A, 1000.0)
    forgotten(runs, B, 1000.0)
    begun(runs, A, 2)

    assert list(runs.numbers()) == [(B, 1)]


def test_the_younger_number_of_a_key_counts_even_if_it_is_lower() -> None:
    runs = LastRuns(keep=100.0)
    runs.remember(A, 1, 1000.0)
    runs.expire(1100.0)
    runs.remember(A, 0, 1100.0)

    assert runs.number(A) == 0


@given(st.lists(st.tuples(st.integers(0, 50), st.floats(0, 40)), max_size=80))
def test_they_are_bounded_and_the_newest_stay(steps: list[tuple[int, float]]) -> None:
    runs, now = LastRuns(keep=1e6, most=5), 0.0
    newest: dict[bytes, int] = {}
    for n, (key, pause) in enumerate(steps, 1):
        now += pause
        forgotten(runs, b"%d" % key, now, n)
        newest.pop(b"%d" % key, None)
        newest[b"%d" % key] = n
        assert len(list(runs.numbers())) <= 2 * 5
        for known, number in list(newest.items())[-5:]:
            assert runs.number(known) == number
