"""The loop's punctuality, on both loops, against a clock that the test pushes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import uvloop

from proxy.adapters.lag import LagWatch
from proxy.core.lag import REMEMBERED


def pytest_asyncio_loop_factories(config: object, item: object) -> dict[str, Callable[[], Any]]:
    return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


class Pushed:
    """The real clock; each look at it may find it further on."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self.pushing = 0.0
        self.looks = 0

    def __call__(self) -> float:
        self.looks += 1
        self.ahead += self.pushing if self.looks % 2 == 0 else 0.0  # on the look when it rings
        return time.monotonic() + self.ahead


async def looked(clock: Pushed, times: int) -> None:
    seen = clock.looks
    async with asyncio.timeout(30):
        while clock.looks < seen + times:
            await asyncio.sleep(0.01)


async def test_a_loop_that_is_late_every_time_reads_late_and_recovers() -> None:
    clock = Pushed()
    lag = LagWatch(clock)
    lag.start()
    await looked(clock, 2)
    assert lag.seconds < 0.7
    clock.pushing = 0.7
    await looked(clock, 2 * REMEMBERED)
    assert lag.seconds >= 0.7
    clock.pushing = 0.0
    await looked(clock, 2 * REMEMBERED)
    assert lag.seconds < 0.7
    lag.stop()


async def test_it_ends_when_it_is_told_to() -> None:
    clock = Pushed()
    lag = LagWatch(clock)
    lag.stop()
    lag.start()
    lag.stop()
    lag.stop()
    seen = clock.looks
    await asyncio.sleep(0.25)
    assert clock.looks == seen
