"""The line before a full pool: order, bounds, and no holes."""

from __future__ import annotations

import asyncio

import pytest

from proxy.adapters.upstream.waiting import Waiting
from proxy.errors import UpstreamFailed

LATER = 100.0


async def heard(waiter: asyncio.Future[str]) -> str:
    return await asyncio.wait_for(waiter, 10)


def failure(waiter: asyncio.Future[str]) -> UpstreamFailed:
    error = waiter.exception()
    assert isinstance(error, UpstreamFailed)
    return error


async def test_who_came_first_is_served_first() -> None:
    line: Waiting[str] = Waiting(3)
    waiters = [line.join(LATER) for _ in range(3)]
    assert [line.serve(what) for what in "abc"] == [True] * 3
    assert [await heard(waiter) for waiter in waiters] == ["a", "b", "c"]
    assert not line.serve("d")


async def test_a_full_line_turns_away_at_once_and_unsent() -> None:
    line: Waiting[str] = Waiting(1)
    line.join(LATER)
    with pytest.raises(UpstreamFailed) as caught:
        line.join(LATER)
    assert (caught.value.why, caught.value.sent, len(line.line)) == ("full", False, 1)


async def test_without_room_nobody_waits() -> None:
    line: Waiting[str] = Waiting(0)
    with pytest.raises(UpstreamFailed):
        line.join(LATER)
    assert not line.line


async def test_who_got_something_useless_comes_next_even_into_a_full_line() -> None:
    line: Waiting[str] = Waiting(1)
    patient, again = line.join(LATER), line.join(LATER, first=True)
    line.serve("a")
    line.serve("b")
    assert (await heard(again), await heard(patient)) == ("a", "b")


async def test_who_leaves_makes_room_and_misses_nothing_that_others_get() -> None:
    line: Waiting[str] = Waiting(2)
    first, second = line.join(LATER), line.join(LATER)
    line.leave(first)
    third = line.join(LATER)
    assert [line.serve(what) for what in "ab"] == [True, True]
    assert (await heard(second), await heard(third)) == ("a", "b")
    line.leave(second)
    assert not first.done()


async def test_what_is_handed_out_passes_over_who_was_cancelled() -> None:
    line: Waiting[str] = Waiting(2)
    first, second = line.join(LATER), line.join(LATER)
    first.cancel()
    assert line.serve("a")
    assert await heard(second) == "a"
    assert not line.line


async def test_time_ends_for_each_on_its_own() -> None:
    line: Waiting[str] = Waiting(4)
    late, soon, cancelled = line.join(9.0), line.join(5.0), line.join(5.0)
    cancelled.cancel()
    line.expire(4.9)
    assert len(line.line) == 3
    line.expire(5.0)
    assert (failure(soon).why, failure(soon).sent, len(line.line)) == ("full", False, 1)
    assert line.turned_away == 2
    line.serve("a")
    assert await heard(late) == "a"


async def test_a_closing_pool_tells_everybody_who_waits() -> None:
    line: Waiting[str] = Waiting(2)
    waiters = [line.join(LATER) for _ in range(2)]
    line.dismiss("connect", "closed")
    assert [failure(waiter).why for waiter in waiters] == ["connect", "connect"]
    assert not line.line
