"""Whether an arm may be asked: a breaker as a pure state machine.

Closed, it counts failures in a row.  Open, it asks nobody until `open_for` is over.  Half open,
first a synthetic probe, then `half_open` real exchanges, one after another, decide.  An
exchange that no other arm could answer instead is not held back so strictly: up to
`last_resort` of them at a time go to the arm even while it is open.

Each method that can change the state returns the `Transition`, for the caller to tell.  An
`era` passes with each change: results of permits from an earlier era say nothing about now.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from proxy.core.model import Counts


class State(StrEnum):
    """How the breaker treats its arm; the last three are an operator's."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    FORCED_OPEN = "forced_open"
    FORCED_CLOSED = "forced_closed"
    METRICS_ONLY = "metrics_only"


_PASSING = frozenset({State.CLOSED, State.FORCED_CLOSED, State.METRICS_ONLY})
_OPERATORS = frozenset({State.FORCED_OPEN, State.FORCED_CLOSED, State.METRICS_ONLY})


@dataclass(frozen=True, slots=True)
class BreakerConfig:
    """What ops set.  Times are seconds; raises `ValueError` for what could never work."""

    failures: int = 5  # in a row, to open
    open_for: float = 60.0
    open_max: float = 600.0  # the longest rest that an arm's Retry-After can ask for
    half_open: int = 3  # real successes, to close
    last_resort: int = 10  # at a time, while nobody else could answer; 0 = never
    probe_lease: float = 10.0  # after this a synthetic probe counts as lost
    enabled: bool = True  # False = metrics_only

    def __post_init__(self) -> None:
        if self.failures < 1 or self.half_open < 1 or self.last_resort < 0:
            raise ValueError("failures and half_open start at 1, last_resort at 0")
        if min(self.open_for, self.open_max, self.probe_lease) <= 0:
            raise ValueError("open_for, open_max and probe_lease are above 0")

    @property
    def resting(self) -> State:
        """The state in which nothing is wrong."""
        return State.CLOSED if self.enabled else State.METRICS_ONLY


class Role(StrEnum):
    """Under which rule a permit was given."""

    ROUTINE = "routine"
    TRIAL = "trial"
    LAST_RESORT = "last_resort"
    PROBE = "probe"


@dataclass(frozen=True, slots=True, eq=False)
class Permit:
    """Leave for one attempt.  Goes back through `record`, a probe's through `probe_ended`."""

    era: int
    role: Role


@dataclass(frozen=True, slots=True)
class Transition:
    """A change of state.

    `why`, a closed set: failures, unhealthy, time_up, probe_failed, trial_failed, trials_passed,
    last_resort, operator, rules.  `at` is clock seconds.
    """

    before: State
    after: State
    why: str
    at: float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A breaker as operators see it.  `reopens_in` is seconds, None unless open."""

    state: State
    era: int
    failures: int  # in a row
    successes: int  # of the `half_open` that close it
    reopens_in: float | None
    probed: bool  # half open, and the synthetic probe passed
    last_resort: int  # permits out at the moment
    last: Transition | None


class Breaker:
    """One arm's breaker.  Decides, never acts; `now` is seconds that never go back."""

    def __init__(self, config: BreakerConfig) -> None:
        self.config = config
        self.state = config.resting
        self.era = 0
        self.last: Transition | None = None
        self._failures = 0
        self._successes = 0
        self._not_before = 0.0  # the arm asked (Retry-After) to be left alone until then
        self._reopens_at = 0.0
        self._probe: Permit | None = None  # the latest one given
        self._probe_lost_at = 0.0
        self._probed = False
        self._trial: Permit | None = None
        self._trial_lost_at = 0.0
        self._safe_at = 0.0  # when the latest exchange fit for a trial came
        self._resorts: set[Permit] = set()  # outlives an era: they still load the arm
        # One permit serves all exchanges of a passing era: nothing is allocated per request.
        self._routine: Permit | None = Permit(0, Role.ROUTINE)

    def admit(self, now: float, *, safe: bool, covered: bool) -> Permit | None:
        """Allow one attempt, or None: do not ask this arm.

        `safe`: nothing is lost if it fails half way (effect read or idempotent, or an event or
        inbound).  `covered`: another arm could answer instead.
        """
        if self._routine is not None:
            return self._routine
        if self.state is State.FORCED_OPEN:
            return None
        if not covered and self.config.last_resort:
            return self._admit_last_resort()
        if self.state is State.HALF_OPEN and self._probed:
            return self._admit_trial(now, safe=safe)
        return None

    def record(
        self, permit: Permit, counts: Counts, now: float, retry_after: float | None = None
    ) -> Transition | None:
        """Take a permit back with what its attempt showed.

        `retry_after` is the rest in seconds that a failing arm asked for.
        """
        if permit.role is not Role.ROUTINE:
            self._release(permit)
        if permit.era != self.era or counts is Counts.NOTHING:
            return None
        if counts is Counts.SUCCESS:
            return self._succeeded(permit, now)
        return self._failed(permit, now, retry_after)

    def tick(self, now: float) -> Transition | None:
        """Let an open breaker whose time is up become half open."""
        if self.state is not State.OPEN or now < self._reopens_at:
            return None
        return self._enter(State.HALF_OPEN, now, "time_up")

    def probe_at(self) -> float | None:
        """When `tick` and `probe_due` are worth the next call; None: not before a change."""
        if self.state is State.OPEN:
            return self._reopens_at
        if self.state is State.HALF_OPEN and not self._probed:
            return self._probe_lost_at
        return None

    def probe_due(self, now: float) -> Permit | None:
        """Lease the synthetic probe: one at a time, a lost one makes room for the next."""
        if self.state is not State.HALF_OPEN or self._probed or now < self._probe_lost_at:
            return None
        self._probe = Permit(self.era, Role.PROBE)
        self._probe_lost_at = now + self.config.probe_lease
        return self._probe

    def probe_ended(self, permit: Permit, ok: bool, now: float) -> Transition | None:
        """Take a probe's result; that of one already replaced, or of an earlier era, is void."""
        if permit is not self._probe or self._probed:
            return None
        if not ok:
            return self._open(now, "probe_failed")
        self._probed = True
        self._safe_at = now
        return None

    def trip(self, now: float, why: str = "unhealthy") -> Transition | None:
        """Open it on other evidence than attempts; leaves an operator's state alone."""
        if self.state not in (State.CLOSED, State.HALF_OPEN):
            return None
        return self._open(now, why)

    def force(self, state: State, now: float) -> Transition | None:
        """Put it into a state of the operator's; raises `ValueError` for any other."""
        if state not in _OPERATORS:
            raise ValueError(f"{state} is not an operator's state")
        return self._enter(state, now, "operator") if state is not self.state else None

    def reset(self, now: float) -> Transition | None:
        """Back to automatic, with nothing counted."""
        return self._rest(now, "operator")

    def configure(self, config: BreakerConfig, now: float) -> Transition | None:
        """Go on under changed rules; what is counted and what an operator forced stays."""
        switched = config.enabled is not self.config.enabled
        self.config = config
        if not switched or self.state in (State.FORCED_OPEN, State.FORCED_CLOSED):
            return None
        return self._rest(now, "rules")

    def snapshot(self, now: float) -> Snapshot:
        """What an operator may want to know."""
        is_open = self.state is State.OPEN
        return Snapshot(
            state=self.state,
            era=self.era,
            failures=self._failures,
            successes=self._successes,
            reopens_in=max(0.0, self._reopens_at - now) if is_open else None,
            probed=self._probed,
            last_resort=len(self._resorts),
            last=self.last,
        )

    def _admit_last_resort(self) -> Permit | None:
        if len(self._resorts) >= self.config.last_resort:
            return None
        permit = Permit(self.era, Role.LAST_RESORT)
        self._resorts.add(permit)
        return permit

    def _admit_trial(self, now: float, *, safe: bool) -> Permit | None:
        """One at a time; a write only if nothing safer came for `open_for`."""
        patience = self.config.open_for
        fit = safe or now - self._safe_at >= patience
        if safe:
            self._safe_at = now
        if not fit or (self._trial is not None and now < self._trial_lost_at):
            return None
        # A trial may be a long stream, or lost: it must not keep the arm half open for ever.
        self._trial = Permit(self.era, Role.TRIAL)
        self._trial_lost_at = now + max(patience, self.config.probe_lease)
        return self._trial

    def _release(self, permit: Permit) -> None:
        self._resorts.discard(permit)
        if permit is self._trial:
            self._trial = None

    def _succeeded(self, permit: Permit, now: float) -> Transition | None:
        self._failures = 0
        self._not_before = 0.0
        if self._routine is not None:
            return None
        self._successes += 1
        if self._successes < self.config.half_open:
            return None
        why = "trials_passed" if permit.role is Role.TRIAL else "last_resort"
        return self._enter(State.CLOSED, now, why)

    def _failed(self, permit: Permit, now: float, retry_after: float | None) -> Transition | None:
        self._failures += 1
        self._successes = 0
        if retry_after is not None:
            asked = now + min(retry_after, self.config.open_max)
            self._not_before = max(self._not_before, asked)
        if self.state is State.HALF_OPEN:
            return self._open(now, "trial_failed")
        if self.state is State.CLOSED and self._failures >= self.config.failures:
            return self._open(now, "failures")
        if self.state is State.OPEN:  # a last resort: only a Retry-After prolongs the rest.
            self._reopens_at = max(self._reopens_at, self._not_before)
        return None

    def _open(self, now: float, why: str) -> Transition:
        """Open, and set when to look again.  The only place that decides how long."""
        self._reopens_at = max(now + self.config.open_for, self._not_before)
        return self._enter(State.OPEN, now, why)

    def _rest(self, now: float, why: str) -> Transition | None:
        before = self.state
        change = self._enter(self.config.resting, now, why)
        if change.after is before:
            return None
        return change

    def _enter(self, state: State, now: float, why: str) -> Transition:
        """Change the state; the only place that does."""
        change = Transition(self.state, state, why, now)
        self.state = state
        self.era += 1
        self._successes = 0
        self._probe, self._probe_lost_at, self._probed = None, now, False
        self._trial = None
        if state in _PASSING:
            self._failures = 0
            self._not_before = 0.0
        self._routine = Permit(self.era, Role.ROUTINE) if state in _PASSING else None
        if change.before is not state:
            self.last = change
        return change
