from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proxy.core.replay_last import LastRuns
from proxy.core.replay_values import Run, RunState

A, B, C = b"a", b"b", b"c"


def begun(runs: LastRuns, key: bytes, number: int = 1) -> Run:
    run = runs.of[key] = Run(key, number, "call_1a", "book", 900.0)
    return run


def over(runs: LastRuns, key: bytes, now: float, number: int = 1) -> Run:
    run = begun(runs, key, number)
    run.state = RunState.OVER
    runs.lay_bare(run, now)
    return run


def test_of_a_bare_run_nothing_is_known_but_its_number() -> None:
    runs = LastRuns(keep=100.0)
    lost = begun(runs, A, 3)
    assert runs.known(A) is lost
    lost.state = RunState.LOST
    runs.lay_bare(lost, 1000.0)

    assert runs.known(A) is None
    assert runs.known(B) is None
    assert runs.of[A].number == 3
    assert not runs.of[A].holds(1000.0)
    assert list(runs.numbers()) == [(A, 3)]


def test_a_number_stays_for_its_time_and_goes_in_steps() -> None:
    runs = LastRuns(keep=100.0)
    for key, now in ((A, 1000.0), (B, 1001.0), (C, 1050.0)):
        over(runs, key, now)
    runs.expire(1099.0, 10)
    assert set(runs.of) == {A, B, C}

    runs.expire(1149.0, 1)
    assert set(runs.of) == {B, C}
    runs.expire(1149.0, 10)
    assert set(runs.of) == {C}
    runs.expire(1150.0, 10)
    assert runs.of == {}


def test_a_run_that_another_has_followed_takes_nothing_from_it() -> None:
    runs = LastRuns(keep=100.0)
    over(runs, A, 1000.0)
    second = begun(runs, A, 2)
    assert list(runs.numbers()) == []
    runs.expire(2000.0, 10)

    assert runs.known(A) is second


def test_a_run_that_was_lost_and_came_to_light_stays() -> None:
    runs = LastRuns(keep=100.0)
    run = over(runs, A, 1000.0)
    run.state = RunState.DONE
    runs.expire(2000.0, 10)

    assert runs.known(A) is run


def test_a_number_can_be_told() -> None:
    runs = LastRuns(keep=100.0)
    runs.remember(A, 7, 1000.0)

    assert list(runs.numbers()) == [(A, 7)]
    assert runs.known(A) is None


@given(st.lists(st.tuples(st.integers(0, 50), st.floats(0, 40)), max_size=80))
def test_they_are_bounded_and_the_newest_stay(steps: list[tuple[int, float]]) -> None:
    runs, now = LastRuns(keep=1e6, most=10), 0.0
    for n, (key, pause) in enumerate(steps):
        now += pause
        over(runs, b"%d" % key, now, n)
        assert len(runs.of) <= 10
        assert (b"%d" % key, n) in list(runs.numbers())
