"""Small real classes that stand in for the world in tests."""

from __future__ import annotations


class FakeClock:
    """A clock that moves only when told to."""

    def __init__(self, now: float = 1000.0, wall_ms: int = 1_767_225_600_000) -> None:
        self._now = now
        self._wall_ms = wall_ms

    def now(self) -> float:
        return self._now

    def wall_ms(self) -> int:
        return self._wall_ms

    def advance(self, seconds: float) -> None:
        self._now += seconds
        self._wall_ms += round(seconds * 1000)
