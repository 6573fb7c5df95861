from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proxy.core.replay_lanes import Lanes
from proxy.core.replay_values import Run


def run() -> Run:
    return Run(b"k", 1, "call_1a", "book", 900.0)


def test_an_empty_one_has_neither_a_first_nor_a_due_one() -> None:
    lanes = Lanes()

    assert lanes.first() is None
    assert lanes.due(1e9) is None
    assert len(lanes) == 0


def test_a_short_stay_is_over_before_a_long_one_that_began_earlier() -> None:
    lanes, long, short = Lanes(), run(), run()
    lanes.put(long, 0.0, 100.0)
    lanes.put(short, 10.0, 20.0)

    assert lanes.first() is long
    assert lanes.due(29.9) is None
    assert lanes.due(30.0) is short


@given(st.lists(st.tuples(st.sampled_from([5.0, 10.0, 60.0]), st.floats(0, 5), st.booleans())))
def test_the_first_and_the_due_are_what_a_full_search_finds(
    steps: list[tuple[float, float, bool]],
) -> None:
    lanes, inside, now = Lanes(), list[Run](), 0.0
    for stay, pause, drops in steps:
        now += pause
        inside.append(run())
        lanes.put(inside[-1], now, stay)
        if drops:
            lanes.drop(inside.pop(len(inside) // 2))
        first, due = lanes.first(), lanes.due(now)

        assert len(lanes) == len(inside)
        assert set(lanes) == set(inside)
        assert (first.since if first else None) == min((r.since for r in inside), default=None)
        assert (due is not None) is any(not r.holds(now) for r in inside)
        assert due is None or not due.holds(now)
