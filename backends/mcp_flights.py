"""How does one piece of work serve everybody who waits for the same?"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

from proxy.errors import UpstreamFailed

_T = TypeVar("_T")

PATIENCE: Final = 0.25
"""Seconds that one waits for another's flight: its deadline may be much later than one's own."""

_ITS_OWN: Final = frozenset({"timeout", "full"})  # failures that need not be others' too


class Flights(Generic[_T]):
    """One flight per key; whoever comes meanwhile shares its end, be it a failure.

    If who leads it goes away, the next who waits takes over; if it takes long, each flies alone.
    """

    def __init__(self) -> None:
        self._under_way: dict[str, asyncio.Future[_T | UpstreamFailed]] = {}

    async def once(self, key: str, work: Callable[[], Awaitable[_T]]) -> _T:
        """The end of the flight under way, or of `work`; raises `UpstreamFailed` as it does."""
        while (flight := self._under_way.get(key)) is not None:
            await asyncio.wait({flight}, timeout=PATIENCE)
            if not flight.done():
                return await work()
            if not flight.cancelled():
                end = flight.result()
                if isinstance(end, UpstreamFailed):
                    if end.why in _ITS_OWN:
                        return await work()
                    # Of one's own: tracebacks grow with raising.
                    raise UpstreamFailed(end.why, end.detail, sent=end.sent)
                return end
        flight = self._under_way[key] = asyncio.get_running_loop().create_future()
        try:
            found = await work()
        except UpstreamFailed as failure:
            flight.set_result(failure)
            raise
        except BaseException:
            flight.cancel()
            raise
        finally:
            del self._under_way[key]
        flight.set_result(found)
        return found
