"""Is the event loop in time?  A timer that knows when it should have rung."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from proxy.core.lag import EVERY, Lag


class LagWatch:
    """Measures by a clock of its own: the loop's stands still while it is busy."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._lag = Lag()
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0

    @property
    def seconds(self) -> float:
        """How late it is."""
        return self._lag.seconds

    def start(self) -> None:
        """Begin; on the loop that is measured."""
        self._due = self._now() + EVERY
        self._timer = asyncio.get_running_loop().call_later(EVERY, self._ring)

    def stop(self) -> None:
        """End; harmless a second time."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring(self) -> None:
        self._lag.tick(self._now() - self._due)
        self.start()
