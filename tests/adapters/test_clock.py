"""The real clock."""

from __future__ import annotations

import asyncio
import time

from proxy.adapters.clock import LoopClock
from proxy.ports import Clock


async def test_it_counts_the_seconds_of_the_loops_timers() -> None:
    clock: Clock = LoopClock()
    loop = asyncio.get_running_loop()

    before = loop.time()
    now = clock.now()

    assert before <= now <= loop.time()


async def test_the_wall_is_utc_in_milliseconds() -> None:
    before = int(time.time() * 1000)
    told = LoopClock().wall_ms()

    assert before - 1 <= told <= int(time.time() * 1000) + 1
