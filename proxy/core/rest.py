"""How long is an arm left alone?  Longer each time it fails again as soon as it is tried."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from proxy.core.breaker_values import BreakerConfig

SPREAD: Final = 0.1
"""Part of a rest that chance may add to it: replicas that opened together must not march."""

_DOUBLINGS: Final = 64  # More would be no longer rest, but no number either.

Jitter = Callable[[], float]
"""A number from 0 to 1, anew each time."""


def calm() -> float:
    """For whoever has no company to march with."""
    return 0.0


class Rest:
    """One breaker's rests: doubled by setbacks, prolonged on request, spread by chance.

    A setback is a half-open that failed.  They are forgiven once the breaker has stayed closed for
    as long as the last of them made it rest.
    """

    def __init__(self, jitter: Jitter) -> None:
        self.setbacks = 0
        self._jitter = jitter
        self._not_before = 0.0  # the arm asked (Retry-After) to be left alone until then

    def ask(self, now: float, retry_after: float | None, config: BreakerConfig) -> float:
        """Note what a failing arm asked for; until when it wants to be left alone."""
        if retry_after is not None:
            self._not_before = max(self._not_before, now + min(retry_after, config.open_max))
        return self._not_before

    def withdraw(self) -> None:
        """It answered: what it asked for before is out of date."""
        self._not_before = 0.0

    def forgive(self) -> None:
        """Back to the first, shortest rest."""
        self.setbacks = 0

    def begin(self, now: float, config: BreakerConfig, *, closed_for: float | None) -> float:
        """Rest from now on; until when.  Never shorter than its length, or what was asked for.

        `closed_for` is how many seconds it was closed before; None: it was tried, and failed.
        """
        if closed_for is None:
            self.setbacks += 1
        elif closed_for >= self._length(config):
            self.setbacks = 0
        rest = max(self._length(config), self._not_before - now)
        return now + rest * (1 + SPREAD * self._jitter())

    def _length(self, config: BreakerConfig) -> float:
        """Seconds, before chance and requests."""
        longest = max(config.open_max, config.open_for)
        return min(config.open_for * 2.0 ** min(self.setbacks, _DOUBLINGS), longest)
