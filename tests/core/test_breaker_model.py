"""The breaker against a model that recomputes everything from a log of what was heard."""

from __future__ import annotations

from dataclasses import dataclass, field

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
from proxy.core.model import Counts

CONFIG = BreakerConfig(
    failures=3, open_for=60.0, open_max=600.0, half_open=2, last_resort=2, probe_lease=10.0
)
OPERATORS = (State.FORCED_OPEN, State.FORCED_CLOSED, State.METRICS_ONLY)
COUNTS = st.sampled_from([Counts.SUCCESS, Counts.SUCCESS, Counts.FAILURE, Counts.NOTHING])
COVERED = st.sampled_from([True, True, True, False])
RESTS = st.sampled_from([None, None, None, 0.0, 100.0, 10_000.0])
PASSING = (State.CLOSED, State.FORCED_CLOSED, State.METRICS_ONLY)


def trailing(log: list[tuple[bool, float]], good: bool) -> list[tuple[bool, float]]:
    """The entries at the log's end that are all good, or all bad."""
    run: list[tuple[bool, float]] = []
    for entry in reversed(log):
        if entry[0] is not good:
            break
        run.append(entry)
    return run


@dataclass
class Model:
    """What the design says, in words of lists: slow, and without any counter."""

    state: State = State.CLOSED
    changes: int = 0
    log: list[tuple[bool, float]] = field(default_factory=list)  # good?, asked to rest until
    era_log: list[tuple[bool, float]] = field(default_factory=list)
    reopens: float = 0.0
    probes: list[float] = field(default_factory=list)  # this era's, by when each is lost
    passed_at: float | None = None
    trials: list[float] = field(default_factory=list)  # unreturned ones, by when each is lost
    safe_came: list[float] = field(default_factory=list)
    resorts_out: int = 0

    def change(self, state: State) -> None:
        self.state = state
        self.changes += 1
        self.era_log, self.probes, self.trials, self.safe_came = [], [], [], []
        self.passed_at = None
        if state in PASSING:
            self.log = []

    def open(self, now: float) -> None:
        asked = [until for _, until in trailing(self.log, good=False)]
        self.reopens = max([now + CONFIG.open_for, *asked])
        self.change(State.OPEN)

    def admits(self, now: float, safe: bool, covered: bool) -> Role | None:
        if self.state in PASSING:
            return Role.ROUTINE
        if self.state is State.FORCED_OPEN:
            return None
        if not covered:
            return Role.LAST_RESORT if self.resorts_out < CONFIG.last_resort else None
        if self.passed_at is None:
            return None
        quiet = all(now - at >= CONFIG.open_for for at in [self.passed_at, *self.safe_came])
        busy = any(now < lost for lost in self.trials)
        if safe:
            self.safe_came.append(now)
        return Role.TRIAL if (safe or quiet) and not busy else None

    def hears(self, good: bool, until: float, now: float) -> None:
        self.log.append((good, until))
        self.era_log.append((good, until))
        wins = len(trailing(self.era_log, good=True))
        losses = len(trailing(self.log, good=False))
        ill = {State.CLOSED: losses >= CONFIG.failures, State.HALF_OPEN: not good}
        if ill.get(self.state, False):
            self.open(now)
        elif self.state in (State.OPEN, State.HALF_OPEN) and wins >= CONFIG.half_open:
            self.change(State.CLOSED)
        elif self.state is State.OPEN and not good:
            asked = [until for _, until in trailing(self.log, good=False)]
            self.reopens = max([self.reopens, *asked])


class BreakerAgainstModel(RuleBasedStateMachine):
    permits: Bundle[tuple[Permit, int, float]] = Bundle("permits")
    probes: Bundle[tuple[Permit, int, int]] = Bundle("probes")

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.breaker = Breaker(CONFIG)
        self.model = Model()
        self.out: list[Permit] = []

    def expect(self, before: State, change: Transition | None) -> None:
        if before is self.model.state:
            assert change is None
        else:
            assert change is not None
            assert (change.before, change.after) == (before, self.model.state)
            assert change.at == self.now
            assert self.breaker.last is change

    @rule(seconds=st.sampled_from([0.5, 1.0, 9.5, 10.0, 30.0, 60.0, 700.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(target=permits, safe=st.booleans(), covered=COVERED)
    def admit(self, safe: bool, covered: bool) -> tuple[Permit, int, float]:
        permit = self.breaker.admit(self.now, safe=safe, covered=covered)
        role = self.model.admits(self.now, safe, covered)
        assert (permit.role if permit else None) is role
        if permit is None:
            return (Permit(-1, Role.ROUTINE), -1, 0.0)  # a permit of no era: heard by nobody
        lost_at = self.now + 60.0
        if role is Role.TRIAL:
            self.model.trials = [lost_at]  # a lost one that this replaces holds nothing any more
        if role is Role.LAST_RESORT:
            self.model.resorts_out += 1
        self.out.append(permit)
        return (permit, self.model.changes, lost_at)

    @rule(given=consumes(permits), counts=COUNTS, retry_after=RESTS)
    def give_back(
        self, given: tuple[Permit, int, float], counts: Counts, retry_after: float | None
    ) -> None:
        permit, era, lost_at = given
        before = self.model.state
        change = self.breaker.record(permit, counts, self.now, retry_after)
        if permit in self.out:
            self.out.remove(permit)
        if permit.role is Role.LAST_RESORT:
            self.model.resorts_out -= 1
        if era == self.model.changes:
            if permit.role is Role.TRIAL and lost_at in self.model.trials:
                self.model.trials.remove(lost_at)
            if counts is not Counts.NOTHING:
                rest = 0.0 if retry_after is None else self.now + min(retry_after, 600.0)
                self.model.hears(counts is Counts.SUCCESS, rest, self.now)
        self.expect(before, change)

    @precondition(lambda self: self.model.state is State.OPEN)
    @rule()
    def tick(self) -> None:
        before = self.model.state
        if before is State.OPEN and self.now >= self.model.reopens:
            self.model.change(State.HALF_OPEN)
        self.expect(before, self.breaker.tick(self.now))

    @precondition(lambda self: self.model.state is State.HALF_OPEN)
    @rule(target=probes)
    def lease_a_probe(self) -> tuple[Permit, int, int]:
        wanted = self.model.state is State.HALF_OPEN and self.model.passed_at is None
        due = wanted and all(self.now >= lost for lost in self.model.probes)
        permit = self.breaker.probe_due(self.now)
        assert (permit is not None) is due
        if permit is None:
            return (Permit(-1, Role.PROBE), -1, 0)
        self.model.probes.append(self.now + CONFIG.probe_lease)
        return (permit, self.model.changes, len(self.model.probes))

    @rule(given=consumes(probes), ok=st.booleans())
    def a_probe_ends(self, given: tuple[Permit, int, int], ok: bool) -> None:
        permit, era, serial = given
        before = self.model.state
        current = era == self.model.changes and serial == len(self.model.probes)
        if current and self.model.passed_at is None:
            if ok:
                self.model.passed_at = self.now
            else:
                self.model.open(self.now)
        self.expect(before, self.breaker.probe_ended(permit, ok, self.now))

    @initialize(steps=st.sampled_from([0, 1, 2, 2, 3, 3, 3]))
    def begin(self, steps: int) -> None:
        """Closed, open, half open or being tried: rare states deserve as many examples."""
        if steps:
            self.unhealthy()
            self.now += CONFIG.open_for * (steps > 1)
            self.tick()
        if steps > 2:
            permit, era, serial = self.lease_a_probe()
            self.a_probe_ends((permit, era, serial), ok=True)

    @rule(safe=st.booleans(), covered=COVERED, counts=COUNTS, retry_after=RESTS)
    def a_whole_exchange(
        self, safe: bool, covered: bool, counts: Counts, retry_after: float | None
    ) -> None:
        self.give_back(self.admit(safe, covered), counts, retry_after)

    @precondition(lambda self: self.model.state is State.CLOSED)
    @rule()
    def unhealthy(self) -> None:
        before = self.model.state
        self.model.open(self.now)
        self.expect(before, self.breaker.trip(self.now))

    @rule(wants=st.sampled_from([None] * 12 + [*OPERATORS, State.CLOSED]))
    def an_operator_acts(self, wants: State | None) -> None:
        """Seldom, or little else would be seen."""
        if wants is None:
            return
        before = self.model.state
        self.model.change(wants)
        if wants is State.CLOSED:
            self.expect(before, self.breaker.reset(self.now))
        else:
            self.expect(before, self.breaker.force(wants, self.now))

    @invariant()
    def they_agree(self) -> None:
        seen = self.breaker.snapshot(self.now)
        assert seen.state is self.breaker.state is self.model.state
        assert seen.era == self.model.changes
        assert seen.failures == len(trailing(self.model.log, good=False))
        assert seen.probed is (self.model.passed_at is not None)
        assert seen.last_resort == self.model.resorts_out <= CONFIG.last_resort
        if self.model.state is State.OPEN:
            assert seen.reopens_in == max(0.0, self.model.reopens - self.now)

    def teardown(self) -> None:
        """Wherever it stands and whatever was lost: a healthy arm gets its traffic back."""
        breaker, now = self.breaker, self.now
        if breaker.state is State.FORCED_OPEN:
            breaker.reset(now)
        for _ in range(3 * CONFIG.half_open + 3):
            look = breaker.probe_at()
            now = max(now, look) if look is not None else now + 60.0
            breaker.tick(now)
            if probe := breaker.probe_due(now):
                breaker.probe_ended(probe, True, now)
            if permit := breaker.admit(now, safe=False, covered=True):
                breaker.record(permit, Counts.SUCCESS, now)
        assert breaker.state in PASSING


TestBreakerAgainstModel = BreakerAgainstModel.TestCase
TestBreakerAgainstModel.settings = settings(max_examples=400, stateful_step_count=25, deadline=None)
