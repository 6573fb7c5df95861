"""What a proxy adds to an answer's time, at a rate that leaves everything mostly idle."""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import dataclass
from typing import cast

import uvloop

from tests.bench.process import Broken


@dataclass(frozen=True, slots=True)
class Spread:
    """Milliseconds."""

    p50: float
    p90: float
    p99: float

    @classmethod
    def of(cls, seconds: list[float]) -> Spread:
        """The spread of many times in seconds."""
        cuts = statistics.quantiles(seconds, n=100)
        return cls(*(round(cuts[at - 1] * 1000, 4) for at in (50, 90, 99)))


class Lane(asyncio.Protocol):
    """A connection that has one request under way at a time."""

    def __init__(self, ending: bytes) -> None:
        self._ending = ending
        self._seen = b""
        self._done: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ready."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Part of the answer."""
        self._seen += data
        if self._seen.endswith(self._ending) and self._done is not None:
            good, self._seen = self._seen.startswith(b"HTTP/1.1 200 "), b""
            if good:
                self._done.set_result(None)
            else:
                self._done.set_exception(Broken("an answer was not 200"))

    def connection_lost(self, error: Exception | None) -> None:
        """The peer closed."""
        if self._done is not None and not self._done.done():
            self._done.set_exception(Broken("a connection was closed in mid-answer"))

    async def ask(self, request: bytes) -> float:
        """Seconds from the first byte sent to the last byte received."""
        self._done = asyncio.get_running_loop().create_future()
        before = time.perf_counter()  # uvloop's own clock counts whole milliseconds.
        self._transport.write(request)
        await self._done
        return time.perf_counter() - before

    def close(self) -> None:
        """Hang up."""
        self._transport.close()


def measure(port: int, requests: list[bytes], *, rate: float, ending: bytes) -> list[float]:
    """Send `requests` at `rate` a second, whatever the answers take; seconds of each.

    Raises `Broken` if an answer was not 200.
    """
    return uvloop.run(_measure(port, requests, rate, ending))


async def _measure(port: int, requests: list[bytes], rate: float, ending: bytes) -> list[float]:
    loop = asyncio.get_running_loop()
    lanes = [
        (await loop.create_connection(lambda: Lane(ending), "127.0.0.1", port))[1] for _ in range(8)
    ]
    idle: asyncio.Queue[Lane] = asyncio.Queue()
    for lane in lanes:
        idle.put_nowait(lane)

    async def one(request: bytes) -> float:
        lane = await idle.get()
        try:
            return await lane.ask(request)
        finally:
            idle.put_nowait(lane)

    begins = loop.time()
    asked = []
    for number, request in enumerate(requests):
        await asyncio.sleep(max(begins + number / rate - loop.time(), 0.0))
        asked.append(asyncio.ensure_future(one(request)))
    try:
        return list(await asyncio.gather(*asked))
    finally:
        for lane in lanes:
            lane.close()
