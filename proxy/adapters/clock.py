"""What time is it?  Seconds that never go back, and the wall's."""

from __future__ import annotations

import time


class LoopClock:
    """Fits the `Clock` port.

    The loop's timers count the same seconds (CLOCK_MONOTONIC), but uvloop tells them in whole
    milliseconds, as of the beginning of its turn: too coarse for durations of half of one.
    """

    now = staticmethod(time.monotonic)
    """Seconds that never go back.  A plain C function: it is asked many times per call."""

    def wall_ms(self) -> int:
        """Milliseconds since 1970, UTC."""
        return time.time_ns() // 1_000_000
