"""Who may answer instead, and how long one arm may try."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.model import Counts, Effect, Kind, Ran, Verdict
from proxy.core.rescue import (
    SLACK,
    attempt_deadline,
    combine,
    coverable,
    in_time,
    is_safe,
    may_rescue,
    rescue_reason,
    says_pending,
    way_back,
)
from proxy.core.verdict import (
    BREAKER_OPEN,
    BUSINESS_NO,
    BUSY,
    CUT,
    FAILED_BODY,
    FAILED_STATUS,
    REDIRECT,
    REFUSED,
    SUCCESS,
)

NOT_SENT = Verdict("not_sent", Ran.NO, Counts.FAILURE, "connect")


@pytest.mark.parametrize(
    ("verdict", "write", "otherwise"),
    [
        (SUCCESS, False, False),
        (BUSINESS_NO, False, False),
        (REDIRECT, False, False),
        (CUT, False, False),
        (BREAKER_OPEN, True, True),
        (NOT_SENT, True, True),
        (REFUSED, True, True),
        (BUSY, False, True),
        (FAILED_STATUS, False, True),
        (FAILED_BODY, False, True),
    ],
    ids=lambda value: value.label if isinstance(value, Verdict) else None,
)
def test_a_rescue_never_runs_a_write_twice(verdict: Verdict, write: bool, otherwise: bool) -> None:
    assert may_rescue(verdict, Effect.WRITE, Kind.FUNCTION) is write
    assert may_rescue(verdict, Effect.WRITE, Kind.ALERT) is write
    assert may_rescue(verdict, Effect.READ, Kind.MCP) is otherwise
    assert may_rescue(verdict, Effect.IDEMPOTENT, Kind.TOOLS) is otherwise
    assert may_rescue(verdict, Effect.WRITE, Kind.EVENT) is otherwise
    assert may_rescue(verdict, Effect.WRITE, Kind.INBOUND) is otherwise


def test_what_is_safe_to_try_with() -> None:
    safe = {(e, k) for e, k in product(Effect, Kind) if is_safe(e, k)}

    assert {k for e, k in safe if e is Effect.WRITE} == {Kind.EVENT, Kind.INBOUND}
    assert {e for e, k in safe if k is Kind.FUNCTION} == {Effect.READ, Effect.IDEMPOTENT}


def usable(arm: str, kind: Kind = Kind.FUNCTION, **but: Any) -> bool:
    rules: dict[str, Any] = {
        "otherwise": "webhook",
        "takes": frozenset({Kind.FUNCTION}),
        "enabled": True,
        "both_ways": False,
    }
    now: dict[str, Any] = {"percent": 50.0, "cap": 100.0, "kill": False}
    rules |= {name: value for name, value in but.items() if name in rules}
    now |= {name: value for name, value in but.items() if name in now}
    return kind in coverable(arm, **rules) and (arm != "webhook" or way_back(**now))


@pytest.mark.parametrize("both_ways", [False, True])
@pytest.mark.parametrize("but", [{}, {"percent": 0.0}, {"cap": 0.0}, {"kill": True}], ids=str)
def test_the_share_s_arm_can_always_be_rescued(but: dict[str, Any], both_ways: bool) -> None:
    assert usable("mcp", both_ways=both_ways, **but)


def test_an_arm_that_left_the_split_can_still_be_rescued() -> None:
    assert usable("former", percent=0.0)


def test_the_other_arm_is_rescued_only_both_ways() -> None:
    assert not usable("webhook")
    assert usable("webhook", both_ways=True)


@pytest.mark.parametrize("but", [{"percent": 0.0}, {"cap": 0.0}, {"kill": True}], ids=str)
def test_nobody_reaches_an_arm_that_nobody_is_to_reach(but: dict[str, Any]) -> None:
    assert not usable("webhook", both_ways=True, **but)


@pytest.mark.parametrize("arm", ["mcp", "webhook"])
@pytest.mark.parametrize("but", [{"enabled": False}, {"takes": frozenset()}], ids=str)
def test_no_rescue_if_switched_off_or_of_a_kind_not_taken(arm: str, but: dict[str, Any]) -> None:
    assert not usable(arm, both_ways=True, **but)


# Time.


def deadline(*, now: float = 0.0, timeout: float = 30.0, **how: Any) -> float:
    rules: dict[str, Any] = {
        "budget_ends": 5.0,
        "min_attempt": 0.3,
        "last": False,
        "hard": False,
    }
    return attempt_deadline(now, timeout=timeout, **{**rules, **how})


def test_a_first_attempt_that_times_out_leaves_time_for_a_rescue() -> None:
    """A deadline at the budget's very end would make every rescue after a time-out too late."""
    until = deadline()

    assert until == pytest.approx(4.6)
    assert in_time(until + SLACK - 1e-6, budget_ends=5.0, min_attempt=0.3)


def test_an_arms_own_shorter_timeout_stands() -> None:
    assert deadline(timeout=2.0) == 2.0


@pytest.mark.parametrize("now", [0.0, 4.9])
def test_the_last_usable_arm_runs_under_its_own_timeout(now: float) -> None:
    assert deadline(now=now, last=True) == now + 30.0


def test_a_hard_budget_bounds_the_rescue_too() -> None:
    assert deadline(now=3.0, last=True, hard=True) == 5.0
    assert deadline(now=3.0, timeout=1.0, last=True, hard=True) == 4.0


def test_a_budget_too_small_for_two_attempts_goes_to_the_first() -> None:
    assert deadline(budget_ends=0.5) == 0.5


@given(
    timeout=st.floats(0.01, 100),
    budget=st.floats(0.01, 100),
    min_attempt=st.floats(0.01, 5),
    last=st.booleans(),
    hard=st.booleans(),
)
def test_an_attempt_is_never_longer_than_its_limits(
    timeout: float, budget: float, min_attempt: float, last: bool, hard: bool
) -> None:
    until = attempt_deadline(
        7.0,
        timeout=timeout,
        budget_ends=7.0 + budget,
        min_attempt=min_attempt,
        last=last,
        hard=hard,
    )

    assert 7.0 < until <= 7.0 + timeout
    assert until <= 7.0 + budget or (last and not hard)


def test_a_rescue_starts_only_with_enough_of_the_budget_left() -> None:
    assert in_time(4.5, budget_ends=5.0, min_attempt=0.5)
    assert not in_time(4.6, budget_ends=5.0, min_attempt=0.5)


# What is known afterwards.


def test_two_attempts_are_known_not_to_have_run_only_if_both_are() -> None:
    assert combine(Ran.NO, Ran.NO) is Ran.NO
    for one, other in product(Ran, Ran):
        assert combine(one, other) is combine(other, one)
        assert (combine(one, other) is Ran.NO) is (one is other is Ran.NO)
        assert (combine(one, other) is Ran.YES) is (Ran.YES in (one, other))


def test_the_last_answer_warns_only_of_what_may_have_changed_something() -> None:
    warned = {(r, e) for r, e in product(Ran, Effect) if says_pending(r, e)}

    assert warned == set(product((Ran.UNKNOWN, Ran.YES), (Effect.WRITE, Effect.IDEMPOTENT)))


@pytest.mark.parametrize("why", ["open", "full", "connect", "timeout", "reset", "status", "config"])
def test_a_rescue_is_named_by_what_failed(why: str) -> None:
    assert rescue_reason(Verdict("failed", Ran.NO, Counts.FAILURE, why)) == f"rescue_{why}"


def test_a_rescue_after_a_failure_without_a_name_of_ours_has_one_all_the_same() -> None:
    """Reasons are a closed set: they are labels."""
    assert rescue_reason(Verdict("failed", Ran.NO, Counts.FAILURE, "quota")) == "rescue_body"
