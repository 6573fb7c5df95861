"""How long an open breaker rests."""

from __future__ import annotations

import pytest

from proxy.core.breaker_values import BreakerConfig
from proxy.core.rest import SPREAD, Rest, calm

CONFIG = BreakerConfig(open_for=60.0, open_max=600.0)


def rests(rest: Rest, times: int, config: BreakerConfig = CONFIG) -> list[float]:
    """The lengths of so many rests, each after a half-open that failed."""
    return [rest.begin(0.0, config, closed_for=None) for _ in range(times)]


def test_the_first_rest_is_the_shortest() -> None:
    assert Rest(calm).begin(100.0, CONFIG, closed_for=5.0) == 160.0


def test_each_setback_doubles_it_up_to_the_longest() -> None:
    assert rests(Rest(calm), 6) == [120.0, 240.0, 480.0, 600.0, 600.0, 600.0]


def test_a_first_rest_longer_than_the_longest_is_kept() -> None:
    """`open_max` has a default; whoever asks for 15 minutes means them."""
    config = BreakerConfig(open_for=900.0, open_max=600.0)

    assert rests(Rest(calm), 2, config) == [900.0, 900.0]


def test_no_number_of_setbacks_is_too_large() -> None:
    rest = Rest(calm)
    rest.setbacks = 5000

    assert rests(rest, 1) == [600.0]


def test_an_arm_that_fails_soon_after_it_closed_rests_as_long_as_before() -> None:
    rest = Rest(calm)
    rests(rest, 2)

    assert rest.begin(0.0, CONFIG, closed_for=239.0) == 240.0


def test_setbacks_are_forgiven_once_it_stayed_closed_for_as_long_as_it_rested() -> None:
    rest = Rest(calm)
    rests(rest, 2)

    assert rest.begin(0.0, CONFIG, closed_for=240.0) == 60.0
    assert rest.setbacks == 0


def test_an_operator_forgives_at_once() -> None:
    rest = Rest(calm)
    rests(rest, 3)
    rest.forgive()

    assert rest.begin(0.0, CONFIG, closed_for=0.0) == 60.0


@pytest.mark.parametrize("jitter", [0.0, 0.5, 1.0])
def test_chance_only_ever_adds_a_little(jitter: float) -> None:
    rest = Rest(lambda: jitter)

    assert rest.begin(0.0, CONFIG, closed_for=9.0) == pytest.approx(60.0 * (1 + SPREAD * jitter))


def test_what_the_arm_asked_for_is_spread_too_but_never_cut_short() -> None:
    """Every replica got the same Retry-After: they must not all come back in one moment."""
    rest = Rest(lambda: 1.0)
    rest.ask(0.0, 300.0, CONFIG)

    assert rest.begin(0.0, CONFIG, closed_for=9.0) == pytest.approx(330.0)


def test_the_longest_that_any_failure_asked_for_counts_within_limits() -> None:
    rest = Rest(calm)

    assert rest.ask(0.0, None, CONFIG) == 0.0
    assert rest.ask(0.0, 300.0, CONFIG) == 300.0
    assert rest.ask(10.0, 5.0, CONFIG) == 300.0
    assert rest.ask(10.0, 1e9, CONFIG) == 610.0
    rest.withdraw()
    assert rest.begin(10.0, CONFIG, closed_for=9.0) == 70.0
