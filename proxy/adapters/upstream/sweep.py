"""One coarse timer for every deadline of every pool: no request arms a timer of its own."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from proxy.ports import Clock

TICK: Final = 0.025


class Swept(Protocol):
    """What has deadlines."""

    def sweep(self, now: float) -> bool:
        """Act on deadlines that have passed; False if nothing is left to watch."""


class Sweep:
    """Visits those that asked for it every `tick` seconds; sleeps when nobody does."""

    def __init__(self, clock: Clock, *, tick: float = TICK) -> None:
        self._clock = clock
        self._tick = tick
        self._watched: set[Swept] = set()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def running(self) -> bool:
        """A timer is armed."""
        return self._timer is not None

    def watch(self, swept: Swept) -> None:
        """Visit `swept` until it says that nothing is left."""
        self._watched.add(swept)
        if self._timer is None:
            self._arm()

    def forget(self, swept: Swept) -> None:
        """Visit `swept` no more."""
        self._watched.discard(swept)
        if not self._watched and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._tick, self._visit)

    def _visit(self) -> None:
        self._timer = None
        now = self._clock.now()
        for swept in tuple(self._watched):
            if not self._more(swept, now):
                self._watched.discard(swept)
        if self._watched:
            self._arm()

    def _more(self, swept: Swept, now: float) -> bool:
        """Visit one; whatever goes wrong with it, the deadlines of the others stand."""
        try:
            return swept.sweep(now)
        except Exception as error:
            asyncio.get_running_loop().call_exception_handler(
                {"message": "a sweep failed", "exception": error}
            )
            return True
