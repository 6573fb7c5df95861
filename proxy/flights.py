"""Who waits for a result that somebody else will have?

One asks, its twins wait, all hear the same.  Whoever asks needs to know of none of them: a result
for which nobody waits costs one look into a dict.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from typing import Generic, TypeVar

from proxy.ports import Clock

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Flights(Generic[K, V]):
    """Results on their way, by key.  Every waiter has a future of its own.

    So one that is cancelled, or runs out of time, takes nobody with it.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiting: dict[K, dict[asyncio.Future[V | None], None]] = {}

    def __contains__(self, key: K) -> bool:
        """Whether anybody waits for this result."""
        return key in self._waiting

    def __len__(self) -> int:
        """The results that somebody waits for."""
        return len(self._waiting)

    def join(self, key: K) -> asyncio.Future[V | None]:
        """Wait from now on; whoever stops waiting before it is done must `leave`."""
        future: asyncio.Future[V | None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, {})[future] = None
        return future

    def leave(self, key: K, future: asyncio.Future[V | None]) -> None:
        """Wait no longer; harmless once the result has landed."""
        waiting = self._waiting.get(key)
        if waiting is not None and waiting.pop(future, future) is None and not waiting:
            del self._waiting[key]

    def land(self, key: K, value: V) -> int:
        """Give a result to all who wait for it, and forget them; how many heard it."""
        waiting = self._waiting.pop(key, None)
        if waiting is None:
            return 0
        heard = [future for future in waiting if not future.done()]
        for future in heard:
            future.set_result(value)
        return len(heard)

    async def wait(self, key: K, until: float) -> V | None:
        """The next result to land; None if none has by `until` (clock seconds)."""
        future = self.join(key)
        left = max(0.0, until - self._clock.now())
        timer = asyncio.get_running_loop().call_later(left, _give_up, future)
        try:
            return await future
        finally:
            timer.cancel()
            self.leave(key, future)


def _give_up(future: asyncio.Future[V | None]) -> None:
    if not future.done():
        future.set_result(None)
