"""The real clock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest
import uvloop

from proxy.adapters.clock import LoopClock
from proxy.ports import Clock


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_it_counts_the_seconds_of_the_loops_timers(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """Deadlines of the clock meet timers of the loop; uvloop's own time is a millisecond coarse."""

    async def compare() -> tuple[float, float, float]:
        clock: Clock = LoopClock()
        before = clock.now()
        await asyncio.sleep(0)
        return before, asyncio.get_running_loop().time(), clock.now()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        before, loop_time, after = runner.run(compare())

    assert before - 0.01 <= loop_time <= after + 0.01


def test_durations_under_a_millisecond_can_be_told() -> None:
    clock = LoopClock()
    seen = {clock.now() for _ in range(1000)}

    assert len(seen) > 1
    assert max(seen) - min(seen) < 1


async def test_the_wall_is_utc_in_milliseconds() -> None:
    before = int(time.time() * 1000)
    told = LoopClock().wall_ms()

    assert before - 1 <= told <= int(time.time() * 1000) + 1
