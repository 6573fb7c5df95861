"""How does one piece of work serve everybody who waits for the same?"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from proxy.errors import UpstreamFailed

_T = TypeVar("_T")


class Flights(Generic[_T]):
    """At most one flight per key; whoever comes meanwhile shares its end, be it a failure.

    If who leads it goes away, the next who waits takes over.
    """

    def __init__(self) -> None:
        self._under_way: dict[str, asyncio.Future[_T | UpstreamFailed]] = {}

    async def once(self, key: str, work: Callable[[], Awaitable[_T]]) -> _T:
        """The end of the flight under way, or of `work`; raises `UpstreamFailed` as it does."""
        while (flight := self._under_way.get(key)) is not None:
            await asyncio.wait({flight})
            if not flight.cancelled():
                end = flight.result()
                if isinstance(end, UpstreamFailed):  # Of one's own: tracebacks grow with raising.
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
