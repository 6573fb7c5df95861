"""Whether an arm may be asked: a breaker as a pure state machine.

Closed, it opens on failures in a row, or, where the rules ask for it, on the part of the latest
attempts that failed or were slow.  Open, it asks nobody until its rest is over.  Half open,
first a synthetic probe, then `half_open` real exchanges, one after another, decide.  An
exchange that no other arm could answer instead is not held back so strictly: up to
`last_resort` of them at a time go to the arm even while it is open.

Each method that can change the state returns the `Transition`, for its caller to tell.
"""

from __future__ import annotations

import math

from proxy.core.breaker_values import (
    OPERATORS,
    PASSING,
    BreakerConfig,
    Permit,
    Role,
    Snapshot,
    State,
    Transition,
    Why,
)
from proxy.core.model import Counts
from proxy.core.rates import Rates
from proxy.core.rest import Jitter, Rest, calm
from proxy.core.trials import Trials

__all__ = ["Breaker", "BreakerConfig", "Permit", "Role", "Snapshot", "State", "Transition"]

_SUCCESS = Counts.SUCCESS  # Bound once: reading a member of an enumeration is slow in Python 3.11.


class Breaker:
    """One breaker.  Decides, never acts; `now` is seconds that never go back.

    `jitter()` gives a number from 0 to 1, anew each time.  `tool` is the one that it is for; empty:
    for a whole arm.
    """

    def __init__(self, config: BreakerConfig, *, jitter: Jitter = calm, tool: str = "") -> None:
        self.config = config
        self.tool = tool
        self.state = config.resting
        self.era = 0
        self.last: Transition | None = None
        self._since = -math.inf  # when the present state began
        self._failures = 0
        self._successes = 0
        self._reopens_at = 0.0
        self._rest = Rest(jitter)
        self._rates = Rates.of(config)
        self._trials: Trials | None = None  # while half open
        self._resorts: set[Permit] = set()  # outlives an era: they still load the arm
        # One permit serves every exchange of a passing era: nothing is allocated per request.
        self._routine: Permit | None = Permit(0, Role.ROUTINE)

    @property
    def is_passing(self) -> bool:
        """It lets every attempt pass."""
        return self._routine is not None

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
        return self._trials.admit(now, safe=safe) if self._trials is not None else None

    def record(
        self,
        permit: Permit,
        counts: Counts,
        now: float,
        retry_after: float | None = None,
        seconds: float = 0.0,
    ) -> Transition | None:
        """Take a permit back with what its attempt showed, and how many `seconds` it took.

        `retry_after` is the rest in seconds that a failing arm asked for.
        """
        if permit is self._routine and counts is _SUCCESS:  # what nearly every attempt brings
            if self._failures:
                self._well()
            if self._rates is None or (why := self._rates.hear(now, seconds, False)) is None:
                return None
            return self._broke(why, now)
        self._resorts.discard(permit)
        if self._trials is not None:
            self._trials.release(permit)
        if permit.era != self.era or counts is Counts.NOTHING:
            return None
        if counts is _SUCCESS:
            return self._succeeded(permit, now, seconds)
        return self._failed(now, retry_after, seconds)

    def tick(self, now: float) -> Transition | None:
        """Let an open breaker whose time is up become half open."""
        if self.state is not State.OPEN or now < self._reopens_at:
            return None
        return self._enter(State.HALF_OPEN, now, "time_up")

    def probe_at(self) -> float | None:
        """When `tick` and `probe_due` are worth the next call; None: not before a change."""
        if self.state is State.OPEN:
            return self._reopens_at
        if self._trials is not None and not self._trials.probed:
            return self._trials.probe_at
        return None

    def probe_due(self, now: float) -> Permit | None:
        """Lease the synthetic probe: one at a time, a lost one makes room for the next."""
        return self._trials.probe_due(now) if self._trials is not None else None

    def probe_ended(self, permit: Permit, ok: bool, now: float) -> Transition | None:
        """Take a probe's result; that of one already replaced, or of an earlier era, is void."""
        if self._trials is None or not self._trials.is_current(permit):
            return None
        if not ok:
            return self._open(now, "probe_failed")
        self._trials.probe_passed(now)
        return None

    def probe_cut(self, permit: Permit, now: float) -> None:
        """Take a probe back that was given up before it could say anything."""
        if self._trials is not None and self._trials.is_current(permit):
            self._trials.probe_at = now

    def trip(self, now: float, why: Why = "unhealthy") -> Transition | None:
        """Open it on other evidence than attempts; leaves an operator's state alone."""
        if self.state is State.CLOSED or self.state is State.HALF_OPEN:
            return self._open(now, why)
        return None

    def force(self, state: State, now: float) -> Transition | None:
        """Put it into a state of the operator's; raises `ValueError` for any other."""
        if state not in OPERATORS:
            raise ValueError(f"{state} is not an operator's state")
        return self._enter(state, now, "operator")

    def reset(self, now: float) -> Transition | None:
        """Back to automatic, with nothing counted."""
        self._rest.forgive()
        return self._enter(self.config.resting, now, "operator")

    def configure(self, config: BreakerConfig, now: float) -> Transition | None:
        """Go on under changed rules; what is counted and what an operator forced stays."""
        switched = config.enabled is not self.config.enabled
        self.config, self._rates = config, Rates.of(config, self._rates)
        if not switched or self.state in (State.FORCED_OPEN, State.FORCED_CLOSED):
            return None
        return self._enter(config.resting, now, "rules")

    def snapshot(self, now: float) -> Snapshot:
        """What an operator may want to know."""
        is_open = self.state is State.OPEN
        return Snapshot(
            state=self.state,
            era=self.era,
            failures=self._failures,
            successes=self._successes,
            reopens_in=max(0.0, self._reopens_at - now) if is_open else None,
            probed=self._trials is not None and self._trials.probed,
            last_resort=len(self._resorts),
            setbacks=self._rest.setbacks,
            window=self._rates.figures(now) if self._rates is not None else None,
            last=self.last,
        )

    def _admit_last_resort(self) -> Permit | None:
        if len(self._resorts) >= self.config.last_resort:
            return None
        self._resorts.add(permit := Permit(self.era, Role.LAST_RESORT))
        return permit

    def _well(self) -> None:
        """It answered: its run of failures is over, and what it asked for with them."""
        self._failures = 0
        self._rest.withdraw()

    def _succeeded(self, permit: Permit, now: float, seconds: float) -> Transition | None:
        """A trial or a last resort went well; a passing breaker's permits never come here."""
        self._well()
        self._successes += 1
        trials = self._trials if permit.role is Role.TRIAL else None
        if trials is not None and seconds > (self.config.slow or math.inf):
            trials.slow += 1
        if self._successes < self.config.half_open:
            return None
        if trials is None:
            return self._enter(State.CLOSED, now, "last_resort")
        if trials.slow and trials.slow * 100 >= self.config.slow_rate * self._successes:
            return self._open(now, "trials_slow")
        return self._enter(State.CLOSED, now, "trials_passed")

    def _failed(self, now: float, retry_after: float | None, seconds: float) -> Transition | None:
        self._failures += 1
        self._successes = 0
        not_before = self._rest.ask(now, retry_after, self.config)
        if self.state is State.HALF_OPEN:
            return self._open(now, "trial_failed")
        if self.state is State.OPEN:  # A last resort: only a Retry-After prolongs the rest.
            self._reopens_at = max(self._reopens_at, not_before)
            return None
        why = self._rates.hear(now, seconds, True) if self._rates is not None else None
        return self._broke("failures" if self._failures >= self.config.failures else why, now)

    def _broke(self, why: Why | None, now: float) -> Transition | None:
        """A rule is broken, if any; where an operator has decided, nothing follows from it."""
        return self._open(now, why) if why is not None and self.state is State.CLOSED else None

    def _open(self, now: float, why: Why) -> Transition | None:
        """Open, and set when to look again: the only place that decides how long."""
        closed_for = None if self.state is State.HALF_OPEN else now - self._since
        self._reopens_at = self._rest.begin(now, self.config, closed_for=closed_for)
        return self._enter(State.OPEN, now, why)

    def _enter(self, state: State, now: float, why: Why) -> Transition | None:
        """Begin an era: the only place that changes the state; None if it stays the same."""
        before, self.state = self.state, state
        passing, config = state in PASSING, self.config
        self.era += 1
        self._successes = 0
        self._since = now
        self._trials = None
        if state is State.HALF_OPEN:
            lease, patience = config.probe_lease, config.open_for
            self._trials = Trials(self.era, now, probe_lease=lease, patience=patience)
        self._routine = Permit(self.era, Role.ROUTINE) if passing else None
        if passing:
            self._well()
            if self._rates is not None:
                self._rates.clear()
        if before is state:
            return None
        self.last = Transition(before, state, why, now, self.tool)
        return self.last
