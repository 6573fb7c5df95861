from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.retry_budget import MINIMUM, WINDOW, RetryBudget


def given_out(budget: RetryBudget, now: float, ratio: float = 0.2, tries: int = 1000) -> int:
    return sum(budget.take(now, ratio) for _ in range(tries))


def test_a_fifth_of_what_was_asked_may_be_asked_again() -> None:
    budget = RetryBudget()
    for n in range(1000):
        budget.asked(100.0 + n / 200)

    assert given_out(budget, 105.0) == 200
    assert given_out(budget, 105.0) == 0


def test_a_quiet_arm_may_be_asked_again_all_the_same() -> None:
    budget = RetryBudget()
    budget.asked(5.0)

    assert given_out(budget, 5.0) == MINIMUM
    assert given_out(RetryBudget(), 0.0) == MINIMUM


def test_at_nought_nothing_is_asked_again() -> None:
    budget = RetryBudget()
    for _ in range(1000):
        budget.asked(1.0)

    assert given_out(budget, 1.0, ratio=0.0) == 0


@pytest.mark.parametrize("seconds", [WINDOW, WINDOW + 1, 1e6])
def test_what_is_long_past_neither_gives_nor_takes(seconds: float) -> None:
    budget = RetryBudget()
    for _ in range(1000):
        budget.asked(3.0)
    assert given_out(budget, 3.0) == 200

    assert given_out(budget, 3.0 + seconds) == MINIMUM


def test_the_budget_slides_and_does_not_jump() -> None:
    """What was given out comes back when its own second leaves the window, not before."""
    budget = RetryBudget()
    for second in range(WINDOW):
        for _ in range(100):
            budget.asked(float(second))
    assert given_out(budget, WINDOW - 1.0) == 200
    for second in range(WINDOW, 2 * WINDOW - 1):
        for _ in range(100):
            budget.asked(float(second))
        assert given_out(budget, float(second)) == 0

    assert given_out(budget, 2.0 * WINDOW - 1) == 180  # this second asked nobody yet


@given(
    st.lists(st.tuples(st.floats(0, 3), st.integers(0, 40), st.integers(0, 40)), max_size=60),
    st.sampled_from([0.0, 0.05, 0.2, 1.0]),
)
def test_in_no_window_more_is_given_out_than_its_part(
    steps: list[tuple[float, int, int]], ratio: float
) -> None:
    """Against a list of everything that ever happened."""
    budget, now = RetryBudget(), 0.0
    asked: list[int] = []
    again: list[int] = []
    for wait, first, second in steps:
        now += wait
        for _ in range(first):
            budget.asked(now)
            asked.append(int(now))
        for _ in range(second):
            since = int(now) - WINDOW
            recent = sum(slot > since for slot in asked)
            given = sum(slot > since for slot in again)
            wanted = ratio > 0 and given < max(MINIMUM, ratio * recent)
            assert budget.take(now, ratio) is wanted
            again += [int(now)] * wanted
