"""How did the attempts of the last seconds go: how many, how many failed, how many were slow?"""

from __future__ import annotations

import math
from collections import deque
from typing import Final, NamedTuple

BUCKETS: Final = 10
"""Parts of a window.  It moves by one of them at a time, so it sees 90 to 100 % of its length."""


class Totals(NamedTuple):
    """What a window holds."""

    volume: int
    failed: int
    slow: int


class Window:
    """Attempts of the last `seconds`, in buckets: one costs the same however many there are."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._width = seconds / BUCKETS
        self._buckets: deque[tuple[int, list[int]]] = deque()  # its number, and its totals
        self._last = [0, 0, 0]
        self._ends = -math.inf  # when the last bucket does

    def count(self, now: float) -> None:
        """Take in an attempt that was neither failed nor slow."""
        if now >= self._ends:
            self._turn(now)
        self._last[0] += 1

    def count_bad(self, now: float, *, failed: bool, slow: bool) -> None:
        """Take in one that was."""
        self.count(now)
        self._last[1] += failed
        self._last[2] += slow

    def totals(self, now: float) -> Totals:
        """What it holds now."""
        oldest = int(now // self._width) - BUCKETS
        held = [totals for number, totals in self._buckets if number > oldest]
        return Totals(*(sum(column) for column in zip(*held, strict=True))) if held else _NONE

    def _turn(self, now: float) -> None:
        """Begin a bucket, and forget those that the window has left behind."""
        number = int(now // self._width)
        self._ends = (number + 1) * self._width
        self._last = [0, 0, 0]
        self._buckets.append((number, self._last))
        while self._buckets[0][0] <= number - BUCKETS:
            self._buckets.popleft()


_NONE: Final = Totals(0, 0, 0)
