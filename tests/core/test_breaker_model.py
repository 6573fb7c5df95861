"""The breaker against a model that recomputes everything from lists of what was heard."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    precondition,
    rule,
)

from proxy.core.breaker import Breaker, BreakerConfig, Permit, Role, State, Transition
from proxy.core.breaker_values import OPERATORS, PASSING
from proxy.core.model import Counts
from tests.core.breaker_model import Leave, Model

CONFIG = BreakerConfig(
    failures=3,
    open_for=60.0,
    open_max=240.0,
    half_open=2,
    last_resort=2,
    probe_lease=10.0,
    window=40.0,
    min_volume=4,
    failure_rate=50.0,
    slow=1.0,
    slow_rate=75.0,
)
CONFIGS = [
    CONFIG,
    BreakerConfig(failures=2, open_max=240.0, half_open=1, last_resort=2),
    BreakerConfig(failures=9, open_max=600.0, half_open=2, last_resort=2, window=40.0,
                  min_volume=2, failure_rate=25.0),
    BreakerConfig(failures=9, half_open=3, last_resort=2, window=80.0, min_volume=2, slow=1.0),
    BreakerConfig(failures=3, half_open=2, last_resort=0, enabled=False, window=40.0, slow=1.0),
]  # fmt: skip
COUNTS = st.sampled_from([Counts.SUCCESS, Counts.SUCCESS, Counts.FAILURE, Counts.NOTHING])
COVERED = st.sampled_from([True, True, True, False])
RESTS = st.sampled_from([None, None, None, 0.0, 100.0, 10_000.0])
SECONDS = st.sampled_from([0.1, 1.0, 2.0])
NOBODYS = Permit(-1, Role.ROUTINE), Leave(Role.ROUTINE, -1, 0.0)


class BreakerAgainstModel(RuleBasedStateMachine):
    permits: Bundle[tuple[Permit, Leave]] = Bundle("permits")
    probes: Bundle[tuple[Permit, int, int]] = Bundle("probes")

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.model = Model(CONFIG)
        self.breaker = Breaker(CONFIG, jitter=lambda: self.model.jitter)

    def expect(self, before: State, why: str | None, change: Transition | None) -> None:
        if why is None:
            assert change is None
            assert before is self.model.state
        else:
            assert change == Transition(before, self.model.state, why, self.now)  # type: ignore[arg-type]
            assert self.breaker.last is change

    @rule(seconds=st.sampled_from([0.5, 3.5, 10.0, 36.0, 39.0, 60.0, 700.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(jitter=st.sampled_from([0.0, 0.5, 1.0]))
    def chance_turns(self, jitter: float) -> None:
        self.model.jitter = jitter

    @rule(target=permits, safe=st.booleans(), covered=COVERED)
    def admit(self, safe: bool, covered: bool) -> tuple[Permit, Leave]:
        leave = self.model.admit(self.now, safe=safe, covered=covered)
        permit = self.breaker.admit(self.now, safe=safe, covered=covered)
        assert (permit.role if permit else None) is (leave.role if leave else None)
        return (permit, leave) if permit and leave else NOBODYS

    @rule(given=consumes(permits), counts=COUNTS, rest=RESTS, seconds=SECONDS)
    def give_back(
        self, given: tuple[Permit, Leave], counts: Counts, rest: float | None, seconds: float
    ) -> None:
        before, (permit, leave) = self.model.state, given
        why = self.model.take_back(leave, counts, self.now, rest, seconds)
        self.expect(before, why, self.breaker.record(permit, counts, self.now, rest, seconds))

    @rule(safe=st.booleans(), covered=COVERED, counts=COUNTS, rest=RESTS, seconds=SECONDS)
    def a_whole_exchange(
        self, safe: bool, covered: bool, counts: Counts, rest: float | None, seconds: float
    ) -> None:
        self.give_back(self.admit(safe, covered), counts, rest, seconds)

    @precondition(lambda self: self.model.state in PASSING)
    @rule(attempts=st.lists(st.tuples(st.booleans(), SECONDS), min_size=2, max_size=8))
    def a_crowd(self, attempts: list[tuple[bool, float]]) -> None:
        """Rates want volume."""
        for good, seconds in attempts:
            counts = Counts.SUCCESS if good else Counts.FAILURE
            self.a_whole_exchange(True, True, counts, None, seconds)

    @precondition(lambda self: self.model.state is State.CLOSED)
    @rule(many=st.integers(1, 6), counts=COUNTS, seconds=SECONDS)
    def it_slows_down(self, many: int, counts: Counts, seconds: float) -> None:
        """Until one more attempt shows whether that is too much."""
        for _ in range(many):
            self.a_whole_exchange(True, True, Counts.SUCCESS, None, 2.0)
        self.a_whole_exchange(True, True, counts, None, seconds)

    @precondition(lambda self: self.model.state is State.OPEN)
    @rule(trials=st.lists(SECONDS, min_size=1, max_size=3), counts=COUNTS)
    def its_time_comes(self, trials: list[float], counts: Counts) -> None:
        """A rest to its end, a good probe, trials: mostly it closes again."""
        self.now = max(self.now, self.model.reopens)
        self.tick()
        self.a_probe_ends(self.lease_a_probe(), ok=True)
        for seconds in trials:
            self.a_whole_exchange(True, True, Counts.SUCCESS, None, seconds)
        self.a_whole_exchange(True, True, counts, None, 0.1)

    @precondition(lambda self: self.model.state is State.OPEN)
    @rule()
    def tick(self) -> None:
        before = self.model.state
        self.expect(before, self.model.tick(self.now), self.breaker.tick(self.now))

    @precondition(lambda self: self.model.state is State.HALF_OPEN)
    @rule(target=probes)
    def lease_a_probe(self) -> tuple[Permit, int, int]:
        return self.leased()

    def leased(self) -> tuple[Permit, int, int]:
        number = self.model.lease(self.now)
        permit = self.breaker.probe_due(self.now)
        assert (permit is not None) is (number is not None)
        if permit is None or number is None:
            return (Permit(-1, Role.PROBE), -1, 0)
        return (permit, self.model.era, number)

    @rule(given=consumes(probes), ok=st.booleans())
    def a_probe_ends(self, given: tuple[Permit, int, int], ok: bool) -> None:
        before, (permit, era, number) = self.model.state, given
        why = self.model.probe_ended(era, number, ok, self.now)
        self.expect(before, why, self.breaker.probe_ended(permit, ok, self.now))

    @rule(target=probes, given=consumes(probes))
    def a_probe_is_given_up(self, given: tuple[Permit, int, int]) -> tuple[Permit, int, int]:
        """And the next one goes at once, if one is due."""
        permit, era, number = given
        self.model.probe_cut(era, number, self.now)
        self.breaker.probe_cut(permit, self.now)
        return self.leased()

    @initialize(steps=st.sampled_from([0, 1, 2, 2, 3, 3, 3]), setbacks=st.integers(0, 3))
    def begin(self, steps: int, setbacks: int) -> None:
        """Closed, open, half open or being tried: rare states deserve as many examples."""
        if not steps:
            return
        self.unhealthy()
        for _ in range(setbacks):
            self.now = self.model.reopens
            self.tick()
            self.a_probe_ends(self.lease_a_probe(), ok=False)
        self.now = max(self.now, self.model.reopens) if steps > 1 else self.now
        self.tick()
        if steps > 2:
            self.a_probe_ends(self.lease_a_probe(), ok=True)

    @precondition(lambda self: self.model.state in (State.CLOSED, State.HALF_OPEN))
    @rule(rarely=st.sampled_from([True, False, False, False]))
    def unhealthy(self, rarely: bool = True) -> None:
        if rarely:
            before = self.model.state
            self.expect(before, self.model.trip(self.now), self.breaker.trip(self.now))

    @rule(wants=st.sampled_from([None] * 20 + [*sorted(OPERATORS), State.CLOSED]))
    def an_operator_acts(self, wants: State | None) -> None:
        """Seldom, or little else would be seen."""
        before = self.model.state
        if wants is State.CLOSED:
            self.expect(before, self.model.operate(None, self.now), self.breaker.reset(self.now))
        elif wants is not None:
            why = self.model.operate(wants, self.now)
            self.expect(before, why, self.breaker.force(wants, self.now))

    @rule(wants=st.sampled_from([None] * 12 + [*range(len(CONFIGS))]))
    def the_rules_change(self, wants: int | None) -> None:
        if wants is not None:
            before, config = self.model.state, CONFIGS[wants]
            why = self.model.configure(config, self.now)
            self.expect(before, why, self.breaker.configure(config, self.now))

    @invariant()
    def they_agree(self) -> None:
        model, seen = self.model, self.breaker.snapshot(self.now)
        assert seen.state is self.breaker.state is model.state
        assert seen.era == model.era
        assert seen.setbacks == model.setbacks
        assert seen.probed is (model.passed_at is not None)
        assert seen.last_resort == len(model.resorts)
        assert self.breaker.is_passing is model.passing
        if model.state is State.OPEN:
            assert seen.reopens_in == max(0.0, model.reopens - self.now)
        held = model.held(self.now)
        assert (seen.window is not None) is model.config.rated
        if seen.window is not None:
            assert seen.window.volume == len(held)
            if model.config.slow is not None and held:
                slow = 100 * sum(one.slow for one in held) / len(held)
                assert abs((seen.window.slow_rate or 0.0) - slow) < 1e-9

    def teardown(self) -> None:
        """Wherever it stands and whatever was lost: a healthy arm gets its traffic back."""
        breaker, now = self.breaker, self.now
        if breaker.state is State.FORCED_OPEN:
            breaker.reset(now)
        for _ in range(20):
            look = breaker.probe_at()
            now = max(now, look) if look is not None else now + 60.0
            breaker.tick(now)
            if probe := breaker.probe_due(now):
                breaker.probe_ended(probe, True, now)
            if permit := breaker.admit(now, safe=False, covered=True):
                breaker.record(permit, Counts.SUCCESS, now)
        assert breaker.state in PASSING


TestBreakerAgainstModel = BreakerAgainstModel.TestCase
TestBreakerAgainstModel.settings = settings(max_examples=300, stateful_step_count=25, deadline=None)
