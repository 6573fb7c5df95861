"""The breaker's words and the limits of its rules."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.core.breaker_values import BreakerConfig, Permit, Role, State


@pytest.mark.parametrize(
    "wrong",
    [
        {"failures": 0},
        {"half_open": 0},
        {"last_resort": -1},
        {"open_for": 0},
        {"open_max": -1},
        {"probe_lease": 0},
        {"window": 0},
        {"min_volume": 0},
        {"slow": 0},
        {"slow_rate": 0},
        {"failure_rate": 0},
        {"failure_rate": 100.1},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_breaker_that_could_never_work_cannot_be_built(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        BreakerConfig(**wrong)


def test_the_defaults_are_those_of_the_rules() -> None:
    config = BreakerConfig()

    assert (config.failures, config.open_for, config.half_open) == (5, 60.0, 3)
    assert (config.last_resort, config.open_max) == (10, 600.0)


def test_only_a_rule_about_a_rate_needs_a_window() -> None:
    assert not BreakerConfig(window=5.0, min_volume=1, slow_rate=1.0).rated
    assert BreakerConfig(failure_rate=50.0).rated
    assert BreakerConfig(slow=1.0).rated


def test_a_breaker_that_is_switched_off_only_counts() -> None:
    assert BreakerConfig().resting is State.CLOSED
    assert BreakerConfig(enabled=False).resting is State.METRICS_ONLY


def test_two_permits_of_one_era_are_still_two() -> None:
    """Slots are freed by identity: an equal permit must not free another's."""
    assert Permit(1, Role.TRIAL) != Permit(1, Role.TRIAL)
