"""The rules about rates."""

from __future__ import annotations

from proxy.core.breaker_values import BreakerConfig, Figures
from proxy.core.rates import Rates

FAILING = BreakerConfig(window=40.0, min_volume=4, failure_rate=50.0)
SLOW = BreakerConfig(window=40.0, min_volume=4, slow=1.0, slow_rate=75.0)


def rates(config: BreakerConfig) -> Rates:
    made = Rates.of(config)
    assert made is not None
    return made


def heard(it: Rates, attempts: str, now: float = 0.0) -> list[str | None]:
    """`.` good, `F` failed, `s` slow, `S` failed and slow."""
    return [it.hear(now, 2.0 if each in "sS" else 1.0, each in "FS") for each in attempts]


def test_without_a_rule_nothing_is_kept() -> None:
    assert Rates.of(BreakerConfig(window=40.0, min_volume=4)) is None
    assert Rates.of(BreakerConfig(), rates(FAILING)) is None


def test_too_many_failures_break_the_rule_at_its_limit() -> None:
    assert heard(rates(FAILING), "..F.F") == [None] * 5
    assert heard(rates(FAILING), "..FF") == [None, None, None, "failure_rate"]


def test_too_few_attempts_say_nothing() -> None:
    assert heard(rates(FAILING), "FFF") == [None] * 3


def test_a_good_attempt_breaks_no_rule_even_if_it_makes_the_numbers_full() -> None:
    """What opens a breaker is a failure, not the news that there were enough of them before."""
    assert heard(rates(FAILING), "FFF.F") == [None, None, None, None, "failure_rate"]


def test_slow_is_what_takes_longer_whatever_came_of_it() -> None:
    assert heard(rates(SLOW), ".sss") == [None, None, None, "slow_rate"]
    assert heard(rates(SLOW), ".ssS") == [None, None, None, "slow_rate"]
    assert heard(rates(SLOW), "..ssss")[:4] == [None] * 4


def test_a_rate_that_nobody_asks_for_opens_nothing() -> None:
    assert set(heard(rates(FAILING), "s" * 20)) == {None}
    assert set(heard(rates(SLOW), "F" * 20)) == {None}


def test_a_failure_that_was_not_slow_breaks_no_rule_about_slowness() -> None:
    assert heard(rates(SLOW), "sssF") == [None] * 4


def test_failures_are_told_before_slowness() -> None:
    both = BreakerConfig(window=40.0, min_volume=2, failure_rate=50.0, slow=1.0, slow_rate=50.0)

    assert heard(rates(both), "SS")[-1] == "failure_rate"


def test_what_was_long_ago_counts_no_more() -> None:
    it = rates(FAILING)
    heard(it, "FFF", now=0.0)

    assert heard(it, "F...F", now=40.0) == [None] * 5


def test_after_a_clearing_everything_begins_anew() -> None:
    it = rates(FAILING)
    heard(it, "FFF")
    it.clear()

    assert heard(it, "FFF") == [None] * 3


def test_changed_limits_keep_the_window_and_changed_measures_do_not() -> None:
    it = rates(FAILING)
    heard(it, "FFF")

    stricter = BreakerConfig(window=40.0, min_volume=3, failure_rate=10.0)
    assert Rates.of(stricter, it) is it
    assert heard(it, "F") == ["failure_rate"]
    longer = Rates.of(BreakerConfig(window=80.0, failure_rate=10.0), it)
    assert longer is not None
    assert longer.figures(0.0).volume == 0
    assert Rates.of(SLOW, it) is not it


def test_operators_see_percent_and_only_what_the_rules_ask_for() -> None:
    failing, slow = rates(FAILING), rates(SLOW)
    assert failing.figures(0.0) == Figures(0, 0.0, None)
    heard(failing, "...F")
    heard(slow, "...s....")

    assert failing.figures(0.0) == Figures(4, 25.0, None)
    assert slow.figures(0.0) == Figures(8, None, 12.5)
