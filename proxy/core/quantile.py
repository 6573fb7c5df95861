"""Below what do so many of the values lie?  A streaming estimate in bounded memory.

Buckets whose bounds grow by a constant factor, so that the answer is never more than 5 % off,
however the values are spread: the sketch of Masson, Rim and Lee (DDSketch, VLDB 2019), over a
fixed range.  Counts are halved from time to time, so that what is long past weighs little.
"""

from __future__ import annotations

from math import ceil, log

ACCURACY = 0.05
LOWEST, HIGHEST = 0.001, 60.0
"""Seconds.  What is below or above counts as that."""

REMEMBERED = 2000
"""Values after which all counts are halved: the last thousand or two decide."""

_GAMMA = (1 + ACCURACY) / (1 - ACCURACY)
_PER_LOG = 1 / log(_GAMMA)
_BASE = ceil(log(LOWEST) * _PER_LOG)
_BUCKETS = ceil(log(HIGHEST) * _PER_LOG) - _BASE + 1
_MIDDLE = 2 / (_GAMMA + 1)  # of a bucket, by its upper bound: what is 5 % off from both ends


class Quantile:
    """The value that `part` (0 to 1) of what was added lies below."""

    __slots__ = ("_counts", "_part", "_weight", "count")

    def __init__(self, part: float) -> None:
        self.count = 0  # how many were added, ever
        self._part = part
        self._counts = [0.0] * _BUCKETS
        self._weight = 0.0

    def add(self, value: float) -> None:
        """Count one value."""
        bucket = ceil(log(value) * _PER_LOG) - _BASE if value > LOWEST else 0
        self._counts[bucket if bucket < _BUCKETS else -1] += 1.0
        self.count += 1
        self._weight += 1.0
        if self._weight >= REMEMBERED:
            self._counts = [count / 2 for count in self._counts]
            self._weight = sum(self._counts)

    def value(self) -> float:
        """The estimate, at most 5 % off; 0 of nothing."""
        above = self._weight * (1 - self._part)
        for bucket in range(_BUCKETS - 1, -1, -1):
            above -= self._counts[bucket]
            if above < 0:
                return float(_GAMMA ** (bucket + _BASE) * _MIDDLE)
        return 0.0
