from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from proxy.adapters.clock import LoopClock
from proxy.flights import Flights

SOON = 0.01
FAR = 30.0


class Answer:
    """Something that can be pointed at weakly."""


def flights() -> Flights[str, Answer]:
    return Flights(LoopClock())


def later(seconds: float) -> float:
    return LoopClock().now() + seconds


async def turn() -> None:
    """Let everybody who can run do so once."""
    await asyncio.sleep(0)


async def waiters(
    of: Flights[str, Answer], count: int, *, key: str = "k"
) -> list[asyncio.Task[Answer | None]]:
    tasks = [asyncio.create_task(of.wait(key, later(FAR))) for _ in range(count)]
    await turn()
    return tasks


async def test_all_who_wait_hear_the_same() -> None:
    sky, answer = flights(), Answer()
    tasks = await waiters(sky, 3)

    assert sky.land("k", answer) == 3

    assert await asyncio.gather(*tasks) == [answer] * 3


async def test_a_result_for_which_nobody_waits_leaves_nothing_behind() -> None:
    sky = flights()

    assert sky.land("k", Answer()) == 0
    assert len(sky) == 0
    assert "k" not in sky


async def test_who_comes_after_a_landing_waits_for_the_next() -> None:
    sky, second = flights(), Answer()
    sky.land("k", Answer())
    (task,) = await waiters(sky, 1)

    sky.land("k", second)

    assert await task is second


async def test_every_key_has_its_own_waiters() -> None:
    sky, one, two = flights(), Answer(), Answer()
    (first,) = await waiters(sky, 1, key="a")
    (second,) = await waiters(sky, 1, key="b")

    sky.land("b", two)
    sky.land("a", one)

    assert await first is one
    assert await second is two


@pytest.mark.parametrize("left", [SOON, 0.0, -1.0])
async def test_a_waiter_gives_up_at_its_own_time(left: float) -> None:
    sky, answer = flights(), Answer()
    (patient,) = await waiters(sky, 1)

    assert await sky.wait("k", later(left)) is None
    assert "k" in sky

    sky.land("k", answer)
    assert await patient is answer


async def test_a_cancelled_waiter_takes_nobody_with_it() -> None:
    sky, answer = flights(), Answer()
    first, second, third = await waiters(sky, 3)

    second.cancel()
    await asyncio.wait({second})
    assert second.cancelled()
    sky.land("k", answer)

    assert await first is answer
    assert await third is answer


async def test_a_waiter_cancelled_in_the_very_turn_of_the_landing_takes_nobody_with_it() -> None:
    sky, answer = flights(), Answer()
    first, second = await waiters(sky, 2)

    first.cancel()
    assert sky.land("k", answer) == 1

    assert await second is answer
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_a_landing_in_the_very_turn_of_a_time_out_is_heard() -> None:
    sky, answer = flights(), Answer()
    task = asyncio.create_task(sky.wait("k", later(0.0)))
    await turn()
    asyncio.get_running_loop().call_soon(sky.land, "k", answer)  # just before the timer

    assert await task is answer


@pytest.mark.parametrize("end", ["landed", "late", "cancelled"])
async def test_nothing_is_held_once_everybody_has_gone(end: str) -> None:
    sky = flights()
    task = asyncio.create_task(sky.wait("k", later(SOON if end == "late" else FAR)))
    await turn()

    if end == "landed":
        sky.land("k", Answer())
    elif end == "cancelled":
        task.cancel()
    await asyncio.wait({task})

    assert len(sky) == 0


async def test_whoever_joined_by_hand_can_leave() -> None:
    sky = flights()
    one, two = sky.join("k"), sky.join("k")

    sky.leave("k", one)
    assert "k" in sky
    sky.leave("k", one)
    sky.leave("k", two)

    assert len(sky) == 0


async def test_a_straggler_does_not_leave_in_place_of_a_newcomer() -> None:
    sky, answer = flights(), Answer()
    old = sky.join("k")
    sky.land("k", answer)
    new = sky.join("k")

    sky.leave("k", old)
    sky.land("k", answer)

    assert new.result() is answer


async def test_a_result_is_freed_with_its_last_reader() -> None:
    """By reference counts alone: garbage of a thousand calls a second must not pile up."""
    sky = flights()
    gc.disable()
    try:
        answer = Answer()
        gone = weakref.ref(answer)
        (task,) = await waiters(sky, 1)
        sky.land("k", answer)
        del answer
        await task
        del task
        await turn()

        assert gone() is None
    finally:
        gc.enable()
