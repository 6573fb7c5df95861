"""What a breaker is told and what it tells: its words, its rules, its permits."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, TypeAlias

Why: TypeAlias = Literal[
    "failures",  # so many in a row
    "failure_rate",  # so many of the window
    "slow_rate",
    "unhealthy",  # active health says so
    "time_up",  # it has rested long enough
    "probe_failed",
    "trial_failed",
    "trials_slow",  # too many of them
    "trials_passed",
    "last_resort",  # it answered well where nobody else could
    "operator",
    "rules",
]
"""Why a breaker changed its state: a closed set."""


class State(StrEnum):
    """How the breaker treats its arm; the last three are an operator's."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    FORCED_OPEN = "forced_open"
    FORCED_CLOSED = "forced_closed"
    METRICS_ONLY = "metrics_only"


PASSING = frozenset({State.CLOSED, State.FORCED_CLOSED, State.METRICS_ONLY})
"""States in which every attempt passes."""

OPERATORS = frozenset({State.FORCED_OPEN, State.FORCED_CLOSED, State.METRICS_ONLY})
"""States that an operator may choose."""


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
    open_for: float = 60.0  # the first rest; each failed half-open doubles it
    open_max: float = 600.0  # bounds what doubling or an arm's Retry-After can make of it
    half_open: int = 3  # real successes, to close
    last_resort: int = 10  # at a time, while nobody else could answer; 0 = never
    probe_lease: float = 10.0  # after this a synthetic probe counts as lost
    window: float = 30.0  # in which the rates are taken
    min_volume: int = 20  # attempts in the window before a rate says anything
    failure_rate: float | None = None  # percent of the window, to open; None: no such rule
    slow: float | None = None  # an attempt that takes longer is slow; None: no such rule
    slow_rate: float = 80.0  # percent of the window, to open
    enabled: bool = True  # False = metrics_only

    def __post_init__(self) -> None:
        if min(self.failures, self.half_open, self.min_volume) < 1 or self.last_resort < 0:
            raise ValueError("failures, half_open and min_volume start at 1, last_resort at 0")
        times = (self.open_for, self.open_max, self.probe_lease, self.window)
        if min(*times, 1.0 if self.slow is None else self.slow) <= 0:
            raise ValueError("open_for, open_max, probe_lease, window and slow are above 0")
        rates = (self.slow_rate, 1 if self.failure_rate is None else self.failure_rate)
        if not all(0 < rate <= 100 for rate in rates):
            raise ValueError("rates are above 0 and up to 100")

    @property
    def rated(self) -> bool:
        """A rule asks what happened lately, not only what happened last."""
        return self.failure_rate is not None or self.slow is not None

    @property
    def resting(self) -> State:
        """The state in which nothing is wrong."""
        return State.CLOSED if self.enabled else State.METRICS_ONLY


@dataclass(frozen=True, slots=True)
class Transition:
    """A change of state.  `at` is clock seconds; `tool` is empty for an arm's own breaker."""

    before: State
    after: State
    why: Why
    at: float
    tool: str = ""


@dataclass(frozen=True, slots=True)
class Figures:
    """How the attempts in the window went; a rate is percent, None if no rule asks for it."""

    volume: int
    failure_rate: float | None
    slow_rate: float | None


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
    setbacks: int  # half-opens that failed, each of which doubled the rest
    window: Figures | None  # None without a rule that asks for a rate
    last: Transition | None
