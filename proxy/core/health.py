"""Is an arm well, judged by probes alone, and when is it probed next?"""

from __future__ import annotations

from dataclasses import dataclass

SPREAD = 0.1
"""Share of the interval by which a probe may come earlier or later: replicas must not march."""

FIRST_WITHIN = 10.0
"""Seconds in which the first probe falls, or the interval, if that is shorter."""


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """One probe of one arm.  `detail` is for operators: a cause, never an answer's text."""

    ok: bool
    at_wall_ms: int
    ms: float
    detail: str = ""


@dataclass(frozen=True, slots=True)
class HealthConfig:
    """What ops set; `every` is seconds."""

    every: float = 10.0
    healthy_after: int = 2
    unhealthy_after: int = 3

    def __post_init__(self) -> None:
        if self.every <= 0 or self.healthy_after < 1 or self.unhealthy_after < 1:
            raise ValueError("every is above 0, the thresholds start at 1")


class Health:
    """One arm's health.  `well` is None until enough is known to say.

    Wherever it asks for `jitter`, that is a number from 0 to 1, anew each time.
    """

    def __init__(self, config: HealthConfig, now: float, *, jitter: float) -> None:
        self.config = config
        self.well: bool | None = None
        # Replicas start together, and would probe together ever after.
        self.due_at = now + jitter * min(config.every, FIRST_WITHIN)
        self._run_of: bool | None = None  # what the latest probes all said
        self._run = 0

    def heard(self, ok: bool, now: float, *, jitter: float) -> bool:
        """Take a probe's result and set when the next is due; True if `well` changed.

        The first good probe is believed at once: a fresh start need not prove itself.
        """
        self.postpone(now, jitter=jitter)
        self._run = self._run + 1 if ok is self._run_of else 1
        self._run_of = ok
        if self.well is ok or self._run < self._needed(ok):
            return False
        self.well = ok
        return True

    def postpone(self, now: float, *, jitter: float) -> None:
        """Probe again after the interval: this probe could say nothing."""
        self.due_at = now + self.config.every * (1 + SPREAD * (2 * jitter - 1))

    def configure(self, config: HealthConfig, now: float, *, jitter: float) -> None:
        """Go on under changed rules; what is known stays, and replicas stay apart."""
        if config.every != self.config.every:
            self.due_at = min(self.due_at, now + config.every * jitter)
        self.config = config

    def _needed(self, ok: bool) -> int:
        if not ok:
            return self.config.unhealthy_after
        return 1 if self.well is None else self.config.healthy_after
