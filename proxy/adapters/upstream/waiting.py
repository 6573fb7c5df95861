"""Who is next when a connection comes free?  First come, first served, and nobody for long."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Generic, TypeVar

from proxy.errors import UpstreamFailed

T = TypeVar("T")


class Waiting(Generic[T]):
    """A line of at most `room`; who stands in it hears what he waits for, or that it is full.

    Who leaves, in whatever way, leaves no hole: his place goes at once.
    """

    def __init__(self, room: int) -> None:
        self.line: OrderedDict[asyncio.Future[T], float] = OrderedDict()  # until when each stands
        self.turned_away = 0  # how many got nothing, ever
        self._room = room

    def join(self, until: float, *, first: bool = False) -> asyncio.Future[T]:
        """Stand in line until `until`; raises `UpstreamFailed` if there is no room.

        `first`: it was his turn before, what he got was of no use; there is always room for him.
        """
        if len(self.line) >= self._room and not first:
            raise self.full("every connection is in use, every place in the queue taken")
        waiter: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.line[waiter] = until
        if first:
            self.line.move_to_end(waiter, last=False)
        return waiter

    def serve(self, what: T) -> bool:
        """Hand it to the first in line; False if nobody stands there."""
        while self.line:
            waiter, _ = self.line.popitem(last=False)
            if not waiter.done():  # Else its task was cancelled, and has not run since.
                waiter.set_result(what)
                return True
        return False

    def leave(self, waiter: asyncio.Future[T]) -> None:
        """Wait no more; harmless for one that was served."""
        self.line.pop(waiter, None)

    def expire(self, now: float) -> None:
        """Tell those whose time is up."""
        for waiter in [waiter for waiter, until in self.line.items() if until <= now]:
            self._tell(waiter, self.full("no connection came free in time"))

    def dismiss(self, why: str, detail: str) -> None:
        """Tell everybody that nothing will come."""
        for waiter in tuple(self.line):
            self._tell(waiter, UpstreamFailed(why, detail, sent=False))

    def full(self, detail: str) -> UpstreamFailed:
        """What one hears who gets nothing; counted."""
        self.turned_away += 1
        return UpstreamFailed("full", detail, sent=False)

    def _tell(self, waiter: asyncio.Future[T], failure: UpstreamFailed) -> None:
        del self.line[waiter]
        if not waiter.done():
            waiter.set_exception(failure)
