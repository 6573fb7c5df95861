"""What probes say of an arm, over time."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.health import Health, HealthConfig


def heard(health: Health, *results: bool) -> list[bool]:
    return [health.heard(ok, 0.0, jitter=0.5) for ok in results]


def fresh(*, jitter: float = 0.0, **config: Any) -> Health:
    return Health(HealthConfig(**config), 100.0, jitter=jitter)


@pytest.mark.parametrize(
    ("every", "jitter", "due_at"),
    [(10.0, 0.0, 100.0), (10.0, 0.5, 105.0), (4.0, 1.0, 104.0), (600.0, 1.0, 110.0)],
)
def test_the_first_probes_of_replicas_that_start_together_are_spread(
    every: float, jitter: float, due_at: float
) -> None:
    assert fresh(every=every, jitter=jitter).due_at == due_at


def test_the_first_good_probe_is_believed() -> None:
    health = fresh(healthy_after=2)

    assert heard(health, True) == [True]
    assert health.well is True


def test_one_bad_probe_makes_nobody_unwell() -> None:
    health = fresh(unhealthy_after=3)

    assert heard(health, False, False) == [False, False]
    assert health.well is None
    assert heard(health, False, False) == [True, False]
    assert health.well is False


def test_an_arm_that_was_unwell_must_prove_itself() -> None:
    health = fresh(healthy_after=2, unhealthy_after=1)

    assert heard(health, False, True, False, True, True) == [True, False, False, False, True]


def test_a_run_is_broken_by_its_opposite() -> None:
    health = fresh(unhealthy_after=2)

    assert heard(health, True, False, True, False) == [True, False, False, False]
    assert health.well is True


@given(st.floats(0, 1))
def test_the_next_probe_comes_at_about_the_interval(jitter: float) -> None:
    health = fresh(every=10.0)
    health.heard(True, 200.0, jitter=jitter)

    assert 209.0 <= health.due_at <= 211.0


def test_jitter_spreads_both_ways() -> None:
    health = fresh(every=10.0)

    health.heard(True, 0.0, jitter=0.0)
    assert health.due_at == 9.0
    health.heard(True, 0.0, jitter=1.0)
    assert health.due_at == 11.0


def test_a_probe_that_could_say_nothing_is_made_up_for_later() -> None:
    health = fresh(every=10.0, unhealthy_after=2)
    heard(health, False)

    health.postpone(200.0, jitter=0.5)

    assert health.due_at == 210.0
    assert health.well is None
    assert heard(health, False) == [True]


def test_new_rules_keep_what_is_known_and_bring_the_next_probe_nearer() -> None:
    health = fresh(every=600.0, unhealthy_after=1)
    health.heard(False, 100.0, jitter=0.5)

    health.configure(HealthConfig(every=10.0), 150.0, jitter=1.0)

    assert health.well is False
    assert health.due_at == 160.0
    health.configure(HealthConfig(every=600.0), 151.0, jitter=1.0)
    assert health.due_at == 160.0


def test_replicas_that_reload_together_do_not_probe_together() -> None:
    health = fresh(every=600.0)
    health.heard(True, 100.0, jitter=0.5)

    health.configure(HealthConfig(every=10.0), 150.0, jitter=0.3)

    assert health.due_at == 153.0


def test_a_reload_without_a_new_interval_moves_no_probe() -> None:
    """Or else a file that is written every few seconds would probe as often."""
    health = fresh(every=10.0)
    health.heard(True, 100.0, jitter=0.5)

    health.configure(HealthConfig(every=10.0, healthy_after=5), 101.0, jitter=0.0)

    assert health.due_at == 110.0


@pytest.mark.parametrize("wrong", [{"every": 0}, {"healthy_after": 0}, {"unhealthy_after": 0}])
def test_rules_that_could_never_work_cannot_be_built(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        HealthConfig(**wrong)
