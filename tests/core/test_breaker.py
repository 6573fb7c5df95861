"""The breaker by example; `test_breaker_model.py` compares it with a model."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from proxy.core.breaker import Breaker, BreakerConfig, Permit, Role, State, Transition
from proxy.core.model import Counts

GOOD, BAD, NOTHING = Counts.SUCCESS, Counts.FAILURE, Counts.NOTHING


def breaker(**config: float) -> Breaker:
    return Breaker(BreakerConfig(**config))  # type: ignore[arg-type]


def admitted(it: Breaker, now: float, *, safe: bool = True, covered: bool = True) -> Permit:
    permit = it.admit(now, safe=safe, covered=covered)
    assert permit is not None
    return permit


def hear(it: Breaker, counts: Counts, now: float, **how: bool) -> Transition | None:
    return it.record(admitted(it, now, **how), counts, now)


def opened(now: float = 0.0, **config: float) -> Breaker:
    it = breaker(**config)
    while it.state is State.CLOSED:
        hear(it, BAD, now)
    return it


def half_open(now: float = 60.0, *, probed: bool = True, **config: float) -> Breaker:
    it = opened(**config)
    assert it.tick(now)
    if probed:
        probe = it.probe_due(now)
        assert probe
        assert it.probe_ended(probe, True, now) is None
    return it


# Closed.


def test_the_fifth_failure_in_a_row_opens_it() -> None:
    it = breaker()

    assert [hear(it, BAD, 1.0) for _ in range(4)] == [None] * 4
    assert hear(it, BAD, 2.0) == Transition(State.CLOSED, State.OPEN, "failures", 2.0)
    assert it.admit(2.0, safe=True, covered=True) is None


def test_a_success_ends_the_run_of_failures() -> None:
    it = breaker()
    for counts in [BAD] * 4 + [GOOD] + [BAD] * 4:
        assert hear(it, counts, 1.0) is None

    assert it.state is State.CLOSED


def test_what_counts_nothing_neither_adds_to_a_run_nor_ends_it() -> None:
    it = breaker()
    for counts in [BAD] * 4 + [NOTHING] * 10:
        assert hear(it, counts, 1.0) is None

    assert hear(it, BAD, 1.0)


def test_a_closed_breaker_allocates_no_permit_per_exchange() -> None:
    it = breaker()

    assert admitted(it, 1.0) is admitted(it, 2.0, safe=False, covered=False)


# Eras.


def test_a_straggler_cannot_close_an_open_breaker() -> None:
    """A success that began before the trip says nothing about now."""
    it = breaker(failures=1, half_open=1)
    early, failing = admitted(it, 0.0), admitted(it, 0.0)
    it.record(failing, BAD, 1.0)

    assert it.record(early, GOOD, 2.0) is None
    assert it.state is State.OPEN


def test_a_straggler_cannot_open_a_half_open_breaker() -> None:
    it = breaker(failures=1)
    early, failing = admitted(it, 0.0), admitted(it, 0.0)
    it.record(failing, BAD, 1.0)
    assert it.tick(61.0)

    assert it.record(early, BAD, 62.0) is None
    assert it.state is State.HALF_OPEN


def test_a_straggler_from_the_trials_cannot_count_once_it_closed() -> None:
    it = half_open(failures=1, half_open=1)
    lost = admitted(it, 61.0)
    assert hear(it, GOOD, 200.0)

    assert it.record(lost, BAD, 201.0) is None
    assert it.state is State.CLOSED


# Open.


def test_it_stays_open_for_its_time() -> None:
    it = opened(now=10.0)

    assert it.tick(69.9) is None
    assert it.probe_at() == 70.0
    assert it.tick(70.0) == Transition(State.OPEN, State.HALF_OPEN, "time_up", 70.0)
    assert it.tick(70.0) is None


@pytest.mark.parametrize(
    ("asked", "rest"),
    [(None, 60.0), (5.0, 60.0), (300.0, 300.0), (86_400.0, 600.0)],
    ids=["not asked", "shorter", "longer", "absurd"],
)
def test_it_rests_as_long_as_the_arm_asked_within_limits(asked: float | None, rest: float) -> None:
    it = breaker(failures=1)
    it.record(admitted(it, 0.0), BAD, 1000.0, retry_after=asked)

    assert it.snapshot(1000.0).reopens_in == rest


def test_any_failure_of_the_run_may_have_asked_for_the_rest() -> None:
    it = breaker(failures=2)
    it.record(admitted(it, 0.0), BAD, 100.0, retry_after=300.0)
    it.record(admitted(it, 0.0), BAD, 110.0)

    assert it.probe_at() == 400.0


def test_an_arm_that_answered_well_since_asks_for_nothing() -> None:
    it = breaker(failures=2)
    it.record(admitted(it, 0.0), BAD, 0.0, retry_after=300.0)
    for counts in (GOOD, BAD, BAD):
        hear(it, counts, 1.0)

    assert it.probe_at() == 61.0


# Half open.


def test_nothing_real_is_admitted_before_the_probe_passed() -> None:
    it = half_open(probed=False)

    assert it.admit(60.0, safe=True, covered=True) is None


def test_fifty_at_once_in_half_open_give_exactly_one() -> None:
    it = half_open()

    permits = [it.admit(60.0, safe=True, covered=True) for _ in range(50)]

    assert [permit.role for permit in permits if permit] == [Role.TRIAL]


def test_three_good_trials_one_after_another_close_it() -> None:
    it = half_open()

    assert hear(it, GOOD, 61.0) is None
    assert hear(it, GOOD, 62.0) is None
    assert hear(it, GOOD, 63.0) == Transition(State.HALF_OPEN, State.CLOSED, "trials_passed", 63.0)


def test_one_bad_trial_opens_it_again() -> None:
    it = half_open()
    hear(it, GOOD, 61.0)
    hear(it, GOOD, 62.0)

    assert hear(it, BAD, 63.0) == Transition(State.HALF_OPEN, State.OPEN, "trial_failed", 63.0)
    assert it.probe_at() == 183.0, "one setback: twice the rest"


def test_a_trial_that_shows_nothing_makes_room_for_the_next() -> None:
    """A refusal or a cut attempt must never wedge a half-open breaker."""
    it = half_open()
    for _ in range(20):
        assert hear(it, NOTHING, 61.0) is None

    assert it.state is State.HALF_OPEN
    assert it.snapshot(61.0).successes == 0


def test_a_write_is_tried_only_if_nothing_safer_came() -> None:
    it = half_open()

    assert it.admit(61.0, safe=False, covered=True) is None
    assert it.admit(120.0, safe=False, covered=True)


def test_a_failed_probe_opens_it_again() -> None:
    it = half_open(probed=False)
    probe = it.probe_due(60.0)
    assert probe

    change = it.probe_ended(probe, False, 61.0)

    assert change == Transition(State.HALF_OPEN, State.OPEN, "probe_failed", 61.0)
    assert it.probe_at() == 181.0, "one setback: twice the rest"


def test_a_lost_probe_does_not_wedge_it() -> None:
    it = half_open(probed=False)
    lost = it.probe_due(60.0)
    assert lost
    assert it.probe_due(69.9) is None
    assert it.probe_at() == 70.0

    found = it.probe_due(70.0)
    assert found

    assert it.probe_ended(lost, False, 71.0) is None
    assert it.probe_ended(found, True, 72.0) is None
    assert it.snapshot(72.0).probed
    assert it.probe_at() is None


def test_a_probe_of_an_earlier_era_says_nothing() -> None:
    it = half_open(probed=False)
    probe = it.probe_due(60.0)
    assert probe
    it.reset(61.0)

    assert it.probe_ended(probe, False, 62.0) is None
    assert it.state is State.CLOSED


@pytest.mark.parametrize("make", [breaker, opened], ids=["closed", "open"])
def test_no_probe_is_due_unless_half_open(make: Callable[[], Breaker]) -> None:
    assert make().probe_due(1000.0) is None


# Last resorts.


@pytest.mark.parametrize("make", [opened, half_open], ids=["open", "half open"])
def test_ten_at_a_time_reach_an_arm_that_nobody_can_stand_in_for(
    make: Callable[[], Breaker],
) -> None:
    it = make()

    permits = [it.admit(61.0, safe=False, covered=False) for _ in range(15)]

    given = [permit for permit in permits if permit]
    assert [permit.role for permit in given] == [Role.LAST_RESORT] * 10
    it.record(given[0], NOTHING, 62.0)
    assert it.admit(63.0, safe=False, covered=False)


def test_three_good_last_resorts_close_an_open_breaker() -> None:
    it = opened()
    for _ in range(2):
        assert hear(it, GOOD, 1.0, covered=False, safe=False) is None

    assert hear(it, GOOD, 2.0, covered=False, safe=False) == Transition(
        State.OPEN, State.CLOSED, "last_resort", 2.0
    )


def test_good_last_resorts_must_come_in_a_row() -> None:
    it = opened()
    for counts in (GOOD, GOOD, BAD, GOOD, NOTHING, GOOD):
        assert hear(it, counts, 1.0, covered=False) is None

    assert hear(it, GOOD, 1.0, covered=False)


def test_a_failed_last_resort_does_not_put_off_the_probe() -> None:
    """Else steady traffic would keep an open breaker open for ever."""
    it = opened()
    for now in range(1, 60):
        assert hear(it, BAD, float(now), covered=False) is None

    assert it.probe_at() == 60.0


def test_a_failed_last_resort_puts_off_the_probe_if_the_arm_asks() -> None:
    it = opened()
    it.record(admitted(it, 1.0, covered=False), BAD, 1.0, retry_after=120.0)

    assert it.probe_at() == 121.0


def test_a_failed_last_resort_opens_a_half_open_breaker() -> None:
    it = half_open()

    assert hear(it, BAD, 61.0, covered=False) == Transition(
        State.HALF_OPEN, State.OPEN, "trial_failed", 61.0
    )


def test_last_resorts_of_an_earlier_era_still_load_the_arm() -> None:
    it = opened(last_resort=1)
    held = admitted(it, 1.0, covered=False)
    assert it.tick(60.0)

    assert it.admit(60.0, safe=True, covered=False) is None
    it.record(held, BAD, 61.0)

    assert it.state is State.HALF_OPEN
    assert it.admit(61.0, safe=True, covered=False)


def test_without_last_resorts_a_lonely_arm_still_comes_back() -> None:
    it = half_open(last_resort=0)

    assert it.admit(1.0, safe=False, covered=False) is None
    for now in (61.0, 62.0, 63.0):
        hear(it, GOOD, now, covered=False)

    assert it.state is State.CLOSED


# Operators and rules.


def test_forced_open_asks_nobody_not_even_as_a_last_resort() -> None:
    it = breaker()

    assert it.force(State.FORCED_OPEN, 5.0) == Transition(
        State.CLOSED, State.FORCED_OPEN, "operator", 5.0
    )
    assert it.admit(5.0, safe=True, covered=False) is None
    assert it.tick(1e6) is None
    assert it.probe_due(1e6) is None
    assert it.probe_at() is None
    assert it.trip(6.0) is None


@pytest.mark.parametrize("state", [State.FORCED_CLOSED, State.METRICS_ONLY])
def test_a_breaker_told_not_to_refuse_only_counts(state: State) -> None:
    it = opened()
    it.force(state, 1.0)
    for _ in range(50):
        assert hear(it, BAD, 2.0) is None

    assert it.state is state
    assert it.snapshot(2.0).failures == 50
    assert it.trip(3.0) is None


def test_reset_closes_it_and_forgets() -> None:
    it = opened()

    assert it.reset(5.0) == Transition(State.OPEN, State.CLOSED, "operator", 5.0)
    for _ in range(4):
        assert hear(it, BAD, 6.0) is None


def test_resetting_a_closed_breaker_changes_no_state_but_forgets() -> None:
    it = breaker()
    straggler = admitted(it, 1.0)
    for _ in range(4):
        hear(it, BAD, 1.0)

    assert it.reset(2.0) is None
    assert it.record(straggler, BAD, 3.0) is None
    assert it.snapshot(3.0).failures == 0
    assert it.last is None


def test_only_an_operators_states_can_be_forced() -> None:
    it = breaker()

    assert it.force(State.FORCED_OPEN, 1.0)
    assert it.force(State.FORCED_OPEN, 2.0) is None
    with pytest.raises(ValueError, match="half_open"):
        it.force(State.HALF_OPEN, 3.0)


@pytest.mark.parametrize(
    ("make", "until"), [(breaker, 160.0), (half_open, 220.0)], ids=["closed", "half open"]
)
def test_other_evidence_opens_it(make: Callable[[], Breaker], until: float) -> None:
    it = make()

    change = it.trip(100.0)

    assert change
    assert (change.after, change.why) == (State.OPEN, "unhealthy")
    assert it.probe_at() == until
    assert it.trip(101.0) is None


def test_switched_off_in_the_rules_it_never_refuses() -> None:
    it = Breaker(BreakerConfig(enabled=False))
    for _ in range(50):
        hear(it, BAD, 1.0)

    assert it.state is State.METRICS_ONLY
    it.force(State.FORCED_OPEN, 2.0)
    it.reset(3.0)
    assert it.state is State.METRICS_ONLY


def test_new_rules_keep_what_was_counted() -> None:
    it = breaker()
    for _ in range(4):
        hear(it, BAD, 1.0)

    assert it.configure(BreakerConfig(failures=5, open_for=7.0), 2.0) is None
    assert hear(it, BAD, 3.0)
    assert it.probe_at() == 10.0


def test_new_rules_can_switch_it_off_and_on() -> None:
    it = opened()

    assert it.configure(BreakerConfig(enabled=False), 1.0) == Transition(
        State.OPEN, State.METRICS_ONLY, "rules", 1.0
    )
    assert it.configure(BreakerConfig(), 2.0) == Transition(
        State.METRICS_ONLY, State.CLOSED, "rules", 2.0
    )


@pytest.mark.parametrize("forced", [State.FORCED_OPEN, State.FORCED_CLOSED])
def test_new_rules_leave_an_operators_state_alone(forced: State) -> None:
    it = breaker()
    it.force(forced, 1.0)

    assert it.configure(BreakerConfig(enabled=False), 2.0) is None
    assert it.state is forced


def test_the_snapshot_tells_what_an_operator_asks() -> None:
    it = opened(now=10.0)
    seen = it.snapshot(25.0)

    assert (seen.state, seen.failures, seen.era) == (State.OPEN, 5, 1)
    assert seen.reopens_in == 45.0
    assert seen.last == Transition(State.CLOSED, State.OPEN, "failures", 10.0)
    assert not it.is_passing
    assert breaker().is_passing
    assert it.snapshot(1000.0).reopens_in == 0.0
    assert breaker().snapshot(0.0).reopens_in is None


# Rates.


def attempts(it: Breaker, marks: str, now: float = 0.0) -> list[str | None]:
    """`.` good, `F` failed, `s` slow: why each opened it, if it did."""
    changes = [
        it.record(admitted(it, now), BAD if mark == "F" else GOOD, now, None, 2.0 * (mark == "s"))
        for mark in marks
    ]
    return [change.why if change else None for change in changes]


def test_half_of_the_latest_attempts_failing_opens_it_though_never_two_in_a_row() -> None:
    it = breaker(failure_rate=50.0, min_volume=6, window=30.0)

    assert attempts(it, ".F.F.") == [None] * 5
    assert attempts(it, "F") == ["failure_rate"]


def test_most_of_the_latest_attempts_being_slow_opens_it_though_all_went_well() -> None:
    it = breaker(slow=1.0, slow_rate=80.0, min_volume=5, window=30.0)

    assert attempts(it, ".ssss")[-1] == "slow_rate"


def test_failures_in_a_row_come_first() -> None:
    it = breaker(failures=3, failure_rate=50.0, min_volume=3)

    assert attempts(it, "FFF")[-1] == "failures"


def test_once_it_closed_what_was_before_is_forgotten() -> None:
    it = breaker(failure_rate=50.0, min_volume=4, half_open=1, window=1000.0)
    attempts(it, ".FF.F")
    it.tick(60.0)
    probe = it.probe_due(60.0)
    assert probe
    it.probe_ended(probe, True, 60.0)
    hear(it, GOOD, 61.0)

    assert it.state is State.CLOSED
    assert attempts(it, "F", now=62.0) == [None]
    seen = it.snapshot(62.0).window
    assert seen
    assert seen.volume == 1


def test_where_an_operator_has_decided_rates_are_shown_and_open_nothing() -> None:
    it = breaker(failure_rate=50.0, min_volume=2)
    it.force(State.METRICS_ONLY, 0.0)

    assert attempts(it, "FFFF") == [None] * 4
    seen = it.snapshot(0.0).window
    assert seen
    assert (seen.volume, seen.failure_rate) == (4, 100.0)


def test_what_counts_nothing_is_no_attempt() -> None:
    it = breaker(failure_rate=50.0, min_volume=2)
    for _ in range(10):
        hear(it, NOTHING, 0.0)

    seen = it.snapshot(0.0).window
    assert seen
    assert seen.volume == 0


def test_without_a_rule_about_rates_there_is_no_window() -> None:
    assert breaker().snapshot(0.0).window is None


# Rests.


def failed_again(it: Breaker, now: float) -> float:
    """Its time comes, its probe fails; for how long it rests then."""
    assert it.tick(now)
    probe = it.probe_due(now)
    assert probe
    assert it.probe_ended(probe, False, now)
    rest = it.snapshot(now).reopens_in
    assert rest is not None
    return rest


def test_each_half_open_that_fails_doubles_the_rest() -> None:
    it, now, rests = opened(open_max=400.0), 60.0, list[float]()
    for _ in range(4):
        rests.append(failed_again(it, now))
        now += rests[-1]

    assert rests == [120.0, 240.0, 400.0, 400.0]
    assert it.snapshot(now).setbacks == 4


def closed_again(now: float) -> Breaker:
    """It failed once half open, then closed at `now`."""
    it = opened(half_open=1)
    failed_again(it, 60.0)
    it.tick(now)
    probe = it.probe_due(now)
    assert probe
    it.probe_ended(probe, True, now)
    assert hear(it, GOOD, now)
    return it


@pytest.mark.parametrize(("closed_for", "rest"), [(119.0, 120.0), (120.0, 60.0)])
def test_setbacks_are_forgiven_to_who_stays_closed_as_long_as_he_rested(
    closed_for: float, rest: float
) -> None:
    it = closed_again(now=1000.0)
    attempts(it, "FFFFF", now=1000.0 + closed_for)

    assert it.snapshot(1000.0 + closed_for).reopens_in == rest


def test_an_operator_forgives_setbacks() -> None:
    it = closed_again(now=1000.0)
    it.reset(1001.0)
    attempts(it, "FFFFF", now=1002.0)

    assert it.snapshot(1002.0).reopens_in == 60.0


def test_chance_spreads_the_replicas_that_opened_together() -> None:
    chances = iter([0.0, 1.0])
    one, other = (
        Breaker(BreakerConfig(failures=1), jitter=lambda: next(chances)) for _ in range(2)
    )
    for it in (one, other):
        hear(it, BAD, 0.0)

    assert one.probe_at() == 60.0
    assert other.probe_at() == pytest.approx(66.0)


# Slow trials.


def test_trials_that_went_well_but_slowly_open_it_again() -> None:
    it = half_open(slow=1.0, slow_rate=100.0, half_open=2)

    assert attempts(it, "ss", now=61.0) == [None, "trials_slow"]
    assert it.snapshot(61.0).setbacks == 1


def test_one_slow_trial_among_quick_ones_is_forgiven() -> None:
    it = half_open(slow=1.0, slow_rate=80.0)

    assert attempts(it, "s.s", now=61.0) == [None, None, "trials_passed"]


def test_a_slow_answer_is_better_than_none_where_nobody_else_could_give_one() -> None:
    it = opened(slow=1.0, slow_rate=1.0, half_open=1)
    change = it.record(admitted(it, 1.0, covered=False), GOOD, 1.0, None, 9.0)

    assert change
    assert change.why == "last_resort"


# Crowds.


def test_of_fifty_at_once_on_a_half_open_breaker_one_is_admitted() -> None:
    it = half_open(probed=False)

    assert [it.admit(60.0, safe=True, covered=True) for _ in range(50)] == [None] * 50
    probes = [probe for _ in range(50) if (probe := it.probe_due(60.0))]
    assert len(probes) == 1
    it.probe_ended(probes[0], True, 60.0)
    trials = [it.admit(61.0, safe=True, covered=True) for _ in range(50)]
    assert sum(trial is not None for trial in trials) == 1


def test_a_probe_that_was_given_up_makes_room_at_once() -> None:
    it = half_open(probed=False)
    cut = it.probe_due(60.0)
    assert cut
    assert it.probe_due(60.0) is None

    it.probe_cut(cut, 61.0)

    assert it.probe_at() == 61.0
    assert it.probe_due(61.0)
    it.probe_cut(cut, 62.0)
    assert it.probe_due(62.0) is None, "another one is under way now"


def test_changed_rules_about_rates_begin_a_window_or_end_it() -> None:
    it = breaker(failure_rate=50.0, min_volume=4)
    attempts(it, "F.F")

    it.configure(BreakerConfig(failure_rate=60.0, min_volume=4), 1.0)
    assert attempts(it, "F", now=1.0) == ["failure_rate"]
    it.configure(BreakerConfig(), 2.0)
    assert it.snapshot(2.0).window is None
