from __future__ import annotations

import pytest

from proxy.core.lag import Lag


def after(*ticks: float) -> float:
    lag = Lag()
    for late in ticks:
        lag.tick(late)
    return lag.seconds


def test_in_the_beginning_the_loop_is_in_time() -> None:
    assert Lag().seconds == 0.0


@pytest.mark.parametrize("ticks", [(3.0,), (3.0, 3.0), (0.0, 3.0, 0.0, 3.0, 0.0), (3.0, 0, 0, 0)])
def test_a_pause_or_two_are_no_overload(ticks: tuple[float, ...]) -> None:
    assert after(*ticks) == 0.0


def test_late_three_times_is_late() -> None:
    assert after(0.3, 0.5, 0.4) == 0.3
    assert after(0.3, 0.5, 0.4, 0.4, 0.6) == 0.4


def test_in_time_three_times_is_in_time() -> None:
    assert after(*[0.5] * 20, 0.0, 0.0) == 0.5
    assert after(*[0.5] * 20, 0.0, 0.0, 0.0) == 0.0


def test_an_early_tick_is_not_less_than_in_time() -> None:
    assert after(-0.1, -0.2, -0.3, -0.4, -0.5) == 0.0
