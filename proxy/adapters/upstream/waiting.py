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
        self._room = room
        self._line: OrderedDict[asyncio.Future[T], float] = OrderedDict()  # until when each stands

    def __len__(self) -> int:
        return len(self._line)

    def join(self, until: float, *, first: bool = False) -> asyncio.Future[T]:
        """Stand in line until `until`; raises `UpstreamFailed` if there is no room.

        `first`: it was his turn before, what he got was of no use; there is always room for him.
        """
        if len(self._line) >= self._room and not first:
            detail = "every connection is in use, every place in the queue taken"
            raise UpstreamFailed("full", detail, sent=False)
        waiter: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._line[waiter] = until
        if first:
            self._line.move_to_end(waiter, last=False)
        return waiter

    def serve(self, what: T) -> bool:
        """Hand it to the first in line; False if nobody stands there."""
        while self._line:
            waiter, _ = self._line.popitem(last=False)
            if not waiter.done():  # Else its task was cancelled, and has not run since.
                waiter.set_result(what)
                return True
        return False

    def leave(self, waiter: asyncio.Future[T]) -> None:
        """Wait no more; harmless for one that was served."""
        self._line.pop(waiter, None)

    def expire(self, now: float) -> None:
        """Tell those whose time is up."""
        for waiter in [waiter for waiter, until in self._line.items() if until <= now]:
            detail = "no connection came free in time"
            self._tell(waiter, UpstreamFailed("full", detail, sent=False))

    def dismiss(self, why: str, detail: str) -> None:
        """Tell everybody that nothing will come."""
        for waiter in tuple(self._line):
            self._tell(waiter, UpstreamFailed(why, detail, sent=False))

    def _tell(self, waiter: asyncio.Future[T], failure: UpstreamFailed) -> None:
        del self._line[waiter]
        if not waiter.done():
            waiter.set_exception(failure)
