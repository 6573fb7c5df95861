"""The slots of a half-open era."""

from __future__ import annotations

from proxy.core.breaker_values import Permit, Role
from proxy.core.trials import Trials


def trials(*, probed: bool = True) -> Trials:
    fresh = Trials(7, 100.0, probe_lease=10.0, patience=60.0)
    if probed:
        assert fresh.probe_due(100.0)
        fresh.probe_passed(100.0)
    return fresh


def test_no_real_exchange_is_tried_before_the_probe_passed() -> None:
    fresh = trials(probed=False)

    assert fresh.admit(1000.0, safe=True) is None


def test_the_probe_belongs_to_its_era() -> None:
    probe = trials(probed=False).probe_due(100.0)

    assert probe is not None
    assert (probe.era, probe.role) == (7, Role.PROBE)


def test_one_probe_at_a_time_until_its_lease_ends() -> None:
    fresh = trials(probed=False)
    first = fresh.probe_due(100.0)
    assert first

    assert fresh.probe_due(109.9) is None
    assert fresh.probe_at == 110.0
    second = fresh.probe_due(110.0)

    assert second
    assert fresh.is_current(second)
    assert not fresh.is_current(first)


def test_a_slow_probe_counts_if_none_replaced_it() -> None:
    """Else an arm whose probe takes longer than the lease could never come back."""
    fresh = trials(probed=False)
    probe = fresh.probe_due(100.0)
    assert probe

    assert fresh.is_current(probe)
    fresh.probe_passed(500.0)
    assert not fresh.is_current(probe)


def test_after_the_probe_no_further_one_is_due() -> None:
    assert trials().probe_due(10_000.0) is None


def test_real_exchanges_come_one_by_one() -> None:
    era = trials()
    first = era.admit(101.0, safe=True)
    assert first
    assert first.role is Role.TRIAL

    assert era.admit(102.0, safe=True) is None
    era.release(first)

    assert era.admit(103.0, safe=True)


def test_a_lost_trial_makes_room_and_cannot_free_the_next_ones_slot() -> None:
    era = trials()
    lost = era.admit(101.0, safe=True)
    assert lost
    assert era.admit(160.9, safe=True) is None

    second = era.admit(161.0, safe=True)
    era.release(lost)

    assert second
    assert era.admit(162.0, safe=True) is None


def test_a_write_waits_until_nothing_safer_came_for_the_patience() -> None:
    era = trials()

    assert era.admit(159.9, safe=False) is None
    assert era.admit(160.0, safe=False)


def test_a_safe_exchange_that_found_no_room_still_makes_writes_wait() -> None:
    era = trials()
    held = era.admit(101.0, safe=True)
    assert held
    assert era.admit(150.0, safe=True) is None
    era.release(held)

    assert era.admit(200.0, safe=False) is None
    assert era.admit(210.0, safe=False)


def test_a_strangers_permit_frees_nothing() -> None:
    era = trials()
    era.admit(101.0, safe=True)

    era.release(Permit(7, Role.TRIAL))

    assert era.admit(102.0, safe=True) is None
