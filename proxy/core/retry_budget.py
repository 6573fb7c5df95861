"""How often may a request be asked a second time?  Part of what was asked, never a storm.

A failing arm that is asked twice by everybody has twice the load when it can bear it least.  So
what is asked again, retries on the same arm and hedges, is at most a part of all requests of the
last seconds, as in Finagle's `RetryBudget` (a leaky window of 10 s, 20 %) and Envoy's
`retry_budget` (20 %, at least 3).  The one rescue of an exchange is outside of it: it leaves the
arm that fails.
"""

from __future__ import annotations

WINDOW = 10
"""Seconds, in slots of one."""

MINIMUM = 3
"""In a window however few were asked: else a quiet arm could never ask again."""


class RetryBudget:
    """What one arm was asked, and asked again, in the last seconds."""

    __slots__ = ("_again", "_asked", "_slot", "_total_again", "_total_asked")

    def __init__(self) -> None:
        self._asked = [0] * WINDOW
        self._again = [0] * WINDOW
        self._total_asked = 0
        self._total_again = 0
        self._slot = 0

    def asked(self, now: float) -> None:
        """Count a first attempt."""
        slot = int(now)
        if slot != self._slot:
            self._turn(slot)
        self._asked[slot % WINDOW] += 1
        self._total_asked += 1

    def take(self, now: float, ratio: float) -> bool:
        """Leave to ask once more, counted if given; `ratio` is the part (0 to 1) that may be."""
        slot = int(now)
        if slot != self._slot:
            self._turn(slot)
        if ratio <= 0 or self._total_again >= max(MINIMUM, ratio * self._total_asked):
            return False
        self._again[slot % WINDOW] += 1
        self._total_again += 1
        return True

    def _turn(self, slot: int) -> None:
        """Forget what is older than the window."""
        gone = min(max(slot - self._slot, 0), WINDOW)
        for old in range(slot - gone + 1, slot + 1):
            place = old % WINDOW
            self._total_asked -= self._asked[place]
            self._total_again -= self._again[place]
            self._asked[place] = self._again[place] = 0
        self._slot = slot
