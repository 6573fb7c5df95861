"""The sliding window, against a list of everything that ever happened."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proxy.core.window import BUCKETS, Totals, Window

WIDTH = 4.0
"""Seconds of a bucket; a power of two, so that the naive sum below rounds nowhere."""

STEPS = st.lists(
    st.tuples(st.sampled_from([0.0, 0.0, 0.5, 3.5, 4.0, 17.0, 39.5, 500.0]), st.booleans(),
              st.booleans()),
    max_size=60,
)  # fmt: skip


def window() -> Window:
    return Window(WIDTH * BUCKETS)


def count(it: Window, now: float, failed: bool, slow: bool) -> None:
    if failed or slow:
        it.count_bad(now, failed=failed, slow=slow)
    else:
        it.count(now)


def test_what_it_has_not_seen_is_nothing() -> None:
    assert window().totals(1000.0) == Totals(0, 0, 0)


def test_an_attempt_can_be_failed_and_slow_at_once() -> None:
    it = window()
    it.count(1000.0)
    it.count_bad(1001.0, failed=True, slow=False)
    it.count_bad(1002.0, failed=False, slow=True)
    it.count_bad(1003.0, failed=True, slow=True)

    assert it.totals(1003.0) == Totals(4, 2, 2)


def test_it_sees_nine_to_ten_tenths_of_its_length() -> None:
    it = window()
    it.count(1000.0)
    it.count(1003.9)

    assert it.totals(1039.9).volume == 2
    assert it.totals(1040.0).volume == 0


def test_looking_changes_nothing() -> None:
    """Operators and scrapes ask at any time; a later look must not see less of an earlier time."""
    it = window()
    it.count(1000.0)

    assert it.totals(5000.0).volume == 0
    assert it.totals(1001.0).volume == 1


@given(STEPS)
def test_it_holds_what_a_list_of_all_attempts_would_show(
    steps: list[tuple[float, bool, bool]],
) -> None:
    it, now, seen = window(), 1000.0, list[tuple[float, bool, bool]]()
    for wait, failed, slow in steps:
        now += wait
        count(it, now, failed, slow)
        seen.append((now, failed, slow))
        held = [one for one in seen if one[0] // WIDTH > now // WIDTH - BUCKETS]

        assert it.totals(now) == (len(held), sum(x[1] for x in held), sum(x[2] for x in held))


@given(STEPS)
def test_it_never_grows(steps: list[tuple[float, bool, bool]]) -> None:
    it, now = window(), 1000.0
    for wait, failed, slow in steps * 3:
        now += wait
        count(it, now, failed, slow)

        assert len(it._buckets) <= BUCKETS
