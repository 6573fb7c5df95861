"""How late is the event loop?  A pause is one late tick; overload is every tick late."""

from __future__ import annotations

from collections import deque

EVERY = 0.1
"""Seconds between two ticks."""

REMEMBERED = 5


class Lag:
    """The median of the last ticks' lateness: three of five must be late for it to rise.

    So neither one collection of garbage nor one stop of the whole machine reads as overload, and
    half a second after the last late tick it is over.
    """

    __slots__ = ("_ticks", "seconds")

    def __init__(self) -> None:
        self.seconds = 0.0
        self._ticks = deque([0.0] * REMEMBERED, maxlen=REMEMBERED)

    def tick(self, late: float) -> None:
        """A tick came so many seconds late; one that came early was in time."""
        self._ticks.append(max(0.0, late))
        self.seconds = sorted(self._ticks)[REMEMBERED // 2]
