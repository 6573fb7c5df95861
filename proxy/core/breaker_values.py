"""What a breaker is told and what it tells: its words, its rules, its permits."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """How the breaker treats its arm; the last three are an operator's."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    FORCED_OPEN = "forced_open"
    FORCED_CLOSED = "forced_closed"
    METRICS_ONLY = "metrics_only"


class Role(StrEnum):
    """Under which rule a permit was given."""

    ROUTINE = "routine"
    TRIAL = "trial"
    LAST_RESORT = "last_resort"
    PROBE = "probe"


@dataclass(frozen=True, slots=True, eq=False)
class Permit:
    """A breaker's leave for one attempt; it must always go back.

    `era` tells the changes of state that came before it: a result says nothing about a later era.
    """

    era: int
    role: Role


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
    """A breaker as operators see it."""

    state: State
    era: int
    failures: int  # in a row
    successes: int  # of the `half_open` that close it
    reopens_in: float | None  # seconds until it is tried again; None unless open
    probed: bool  # half open, and the synthetic probe passed
    last_resort: int  # such permits out at the moment
    last: Transition | None
