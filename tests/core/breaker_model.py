"""What a breaker must do, said a second time: slowly, from lists of all that happened."""

from __future__ import annotations

from dataclasses import dataclass, field

from proxy.core.breaker import BreakerConfig, Role, State
from proxy.core.model import Counts

PASSING = (State.CLOSED, State.FORCED_CLOSED, State.METRICS_ONLY)


@dataclass(eq=False)
class Leave:
    """A permit as the model knows it."""

    role: Role
    era: int
    lost_at: float


@dataclass
class Heard:
    """One attempt that counted."""

    good: bool
    at: float
    until: float  # to which the arm asked to be left alone
    slow: bool
    role: Role


@dataclass
class Opening:
    """How a rest began: after a half-open, or so long a time closed; and under which rules."""

    closed_for: float | None
    config: BreakerConfig


def run(log: list[Heard], *, good: bool) -> list[Heard]:
    """The attempts at the log's end that were all good, or all bad."""
    found: list[Heard] = []
    for one in reversed(log):
        if one.good is not good:
            break
        found.append(one)
    return found


def length(config: BreakerConfig, setbacks: int) -> float:
    """Seconds that an arm rests after so many half-opens that failed."""
    longest = max(config.open_max, config.open_for)
    rest = min(config.open_for, longest)
    for _ in range(setbacks):
        rest = min(rest * 2, longest)
    return rest


@dataclass
class Model:
    """One breaker.  `jitter` is what chance will say next."""

    config: BreakerConfig
    jitter: float = 0.0
    state: State = State.CLOSED
    era: int = 0
    since: float = float("-inf")
    log: list[Heard] = field(default_factory=list)  # since it last began to pass
    era_log: list[Heard] = field(default_factory=list)
    window: list[Heard] = field(default_factory=list)
    openings: list[Opening] = field(default_factory=list)  # since an operator's last reset
    reopens: float = 0.0
    probes: list[float] = field(default_factory=list)  # this era's, by when each is lost
    passed_at: float | None = None
    trial: Leave | None = None
    safe_came: list[float] = field(default_factory=list)
    resorts: list[Leave] = field(default_factory=list)

    # What follows from the lists.

    @property
    def passing(self) -> bool:
        return self.state in PASSING

    @property
    def setbacks(self) -> int:
        count = 0
        for opening in self.openings:
            if opening.closed_for is None:
                count += 1
            elif opening.closed_for >= length(opening.config, count):
                count = 0
        return count

    def held(self, now: float) -> list[Heard]:
        """What the window holds: the present tenth, and the nine before it."""
        tenth = self.config.window / 10
        return [one for one in self.window if one.at // tenth > now // tenth - 10]

    def broken_rate(self, one: Heard, now: float) -> str | None:
        config, held = self.config, self.held(now)
        if len(held) < config.min_volume:
            return None
        failed = sum(100 for each in held if not each.good) / len(held)
        slow = sum(100 for each in held if each.slow) / len(held)
        if not one.good and config.failure_rate is not None and failed >= config.failure_rate:
            return "failure_rate"
        if one.slow and config.slow is not None and slow >= config.slow_rate:
            return "slow_rate"
        return None

    # What happens.

    def enter(self, state: State, now: float) -> None:
        self.state = state
        self.era += 1
        self.since = now
        self.era_log, self.probes, self.safe_came = [], [], []
        self.passed_at = self.trial = None
        if state in PASSING:
            self.log, self.window = [], []

    def open(self, now: float) -> None:
        tried = self.state is State.HALF_OPEN
        self.openings.append(Opening(None if tried else now - self.since, self.config))
        rest = length(self.config, self.setbacks)
        asked = max([0.0, *(one.until - now for one in run(self.log, good=False))])
        self.reopens = now + max(rest, asked) * (1 + 0.1 * self.jitter)
        self.enter(State.OPEN, now)

    def admit(self, now: float, *, safe: bool, covered: bool) -> Leave | None:
        if self.passing:
            return Leave(Role.ROUTINE, self.era, 0.0)
        if self.state is State.FORCED_OPEN:
            return None
        if not covered and self.config.last_resort:
            if len(self.resorts) >= self.config.last_resort:
                return None
            self.resorts.append(Leave(Role.LAST_RESORT, self.era, 0.0))
            return self.resorts[-1]
        if self.passed_at is None:
            return None
        patience, lease = self.config.open_for, self.config.probe_lease
        quiet = all(now - at >= patience for at in [self.passed_at, *self.safe_came])
        if safe:
            self.safe_came.append(now)
        if not (safe or quiet) or (self.trial is not None and now < self.trial.lost_at):
            return None
        self.trial = Leave(Role.TRIAL, self.era, now + max(patience, lease))
        return self.trial

    def take_back(
        self, leave: Leave, counts: Counts, now: float, rest: float | None, seconds: float
    ) -> str | None:
        """Why the state changed, if it did."""
        if leave in self.resorts:
            self.resorts.remove(leave)
        if leave is self.trial:
            self.trial = None
        if leave.era != self.era or counts is Counts.NOTHING:
            return None
        slow = self.config.slow is not None and seconds > self.config.slow
        until = 0.0 if rest is None else now + min(rest, self.config.open_max)
        one = Heard(counts is Counts.SUCCESS, now, until, slow, leave.role)
        self.log.append(one)
        self.era_log.append(one)
        return self.passed(one, now) if self.passing else self.tried(one, now)

    def passed(self, one: Heard, now: float) -> str | None:
        """An attempt of a breaker that lets all of them pass."""
        why = None
        if self.config.rated:
            self.window.append(one)
            why = self.broken_rate(one, now)
        if not one.good and len(run(self.log, good=False)) >= self.config.failures:
            why = "failures"
        if why is None or self.state is not State.CLOSED:
            return None
        self.open(now)
        return why

    def tried(self, one: Heard, now: float) -> str | None:
        """A trial or a last resort."""
        wins = run(self.era_log, good=True)
        if not one.good:
            if self.state is State.HALF_OPEN:
                self.open(now)
                return "trial_failed"
            self.reopens = max(self.reopens, *(each.until for each in run(self.log, good=False)))
        elif len(wins) >= self.config.half_open:
            slow = [win for win in wins if win.slow and win.role is Role.TRIAL]
            too_slow = len(slow) * 100 >= self.config.slow_rate * len(wins)
            if one.role is Role.TRIAL and slow and too_slow:
                self.open(now)
                return "trials_slow"
            self.enter(State.CLOSED, now)
            return "trials_passed" if one.role is Role.TRIAL else "last_resort"
        return None

    def tick(self, now: float) -> str | None:
        if self.state is not State.OPEN or now < self.reopens:
            return None
        self.enter(State.HALF_OPEN, now)
        return "time_up"

    def lease(self, now: float) -> int | None:
        """The number of the probe, if one is due."""
        if self.state is not State.HALF_OPEN or self.passed_at is not None:
            return None
        if any(now < lost for lost in self.probes):
            return None
        self.probes.append(now + self.config.probe_lease)
        return len(self.probes)

    def is_current(self, era: int, number: int) -> bool:
        return era == self.era and number == len(self.probes) and self.passed_at is None

    def probe_ended(self, era: int, number: int, ok: bool, now: float) -> str | None:
        if not self.is_current(era, number):
            return None
        if ok:
            self.passed_at = now
            return None
        self.open(now)
        return "probe_failed"

    def probe_cut(self, era: int, number: int, now: float) -> None:
        if self.is_current(era, number):
            self.probes = [min(lost, now) for lost in self.probes]

    def trip(self, now: float) -> str | None:
        if self.state not in (State.CLOSED, State.HALF_OPEN):
            return None
        self.open(now)
        return "unhealthy"

    def operate(self, state: State | None, now: float) -> str | None:
        """None: back to automatic."""
        before = self.state
        if state is None:
            self.openings = []
        self.enter(self.config.resting if state is None else state, now)
        return "operator" if self.state is not before else None

    def configure(self, config: BreakerConfig, now: float) -> str | None:
        was, self.config = self.config, config
        if not config.rated or (config.window, config.slow) != (was.window, was.slow):
            self.window = []
        if config.enabled is was.enabled or self.state in (State.FORCED_OPEN, State.FORCED_CLOSED):
            return None
        before = self.state
        self.enter(config.resting, now)
        return "rules" if self.state is not before else None
