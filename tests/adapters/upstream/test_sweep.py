"""The one timer: it runs while there is something to watch, and only then."""

from __future__ import annotations

import asyncio

from proxy.adapters.upstream.sweep import Sweep
from tests.adapters.upstream.origin import LoopClock, until


class Swept:
    def __init__(self, visits: int, *, broken: bool = False) -> None:
        self.left = visits
        self.broken = broken
        self.seen: list[float] = []

    def sweep(self, now: float) -> bool:
        self.seen.append(now)
        self.left -= 1
        if self.broken:
            raise RuntimeError("broken")
        return self.left > 0


async def test_it_visits_until_nothing_is_left_and_rests() -> None:
    sweep = Sweep(LoopClock(), tick=0.001)
    assert not sweep.running
    short, long = Swept(1), Swept(3)
    sweep.watch(short)
    sweep.watch(long)
    sweep.watch(long)
    await until(lambda: not sweep.running)
    assert (len(short.seen), len(long.seen)) == (1, 3)
    assert long.seen == sorted(long.seen)


async def test_it_can_be_woken_again() -> None:
    sweep = Sweep(LoopClock(), tick=0.001)
    for _ in range(2):
        swept = Swept(1)
        sweep.watch(swept)
        await until(lambda swept=swept: bool(swept.seen))  # type: ignore[misc]
        assert not sweep.running


async def test_forgetting_the_last_one_stops_the_timer() -> None:
    sweep = Sweep(LoopClock(), tick=60.0)
    one, other = Swept(1), Swept(1)
    sweep.watch(one)
    sweep.watch(other)
    sweep.forget(one)
    assert sweep.running
    sweep.forget(other)
    sweep.forget(other)
    assert not sweep.running


async def test_one_that_fails_does_not_stop_the_deadlines_of_the_others() -> None:
    sweep = Sweep(LoopClock(), tick=0.001)
    told: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    broken, sound = Swept(9, broken=True), Swept(3)
    sweep.watch(broken)
    sweep.watch(sound)
    await until(lambda: len(sound.seen) >= 3)
    sweep.forget(broken)
    await until(lambda: not sweep.running)
    assert told
