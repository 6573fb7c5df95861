from __future__ import annotations

import asyncio

import pytest

from backends import mcp_flights
from backends.mcp_flights import Flights
from proxy.errors import UpstreamFailed


class Work:
    """Work that ends when told, and counts who began it."""

    def __init__(self) -> None:
        self.begun = 0
        self.end: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def __call__(self) -> str:
        self.begun += 1
        return await asyncio.shield(self.end)


async def begun(work: Work) -> None:
    while not work.begun:
        await asyncio.sleep(0)


async def test_who_waits_for_the_same_shares_one_flight() -> None:
    flights: Flights[str] = Flights()
    work, other = Work(), Work()
    waiting = asyncio.gather(*(flights.once("a", work) for _ in range(5)), flights.once("b", other))
    await begun(work)
    work.end.set_result("done")
    other.end.set_result("else")

    assert await waiting == ["done"] * 5 + ["else"]
    assert (work.begun, other.begun) == (1, 1)


async def test_the_next_who_asks_begins_a_flight_of_his_own() -> None:
    flights: Flights[str] = Flights()
    work = Work()
    work.end.set_result("done")

    assert [await flights.once("a", work) for _ in range(2)] == ["done"] * 2
    assert work.begun == 2


async def test_a_failure_is_everybodys_who_waits_and_nobody_elses() -> None:
    flights: Flights[str] = Flights()
    work = Work()
    waiting = asyncio.gather(*(flights.once("a", work) for _ in range(3)), return_exceptions=True)
    await begun(work)
    work.end.set_exception(UpstreamFailed("connect", "nobody", sent=False))

    failures = await waiting
    assert len({id(each) for each in failures}) == 3
    assert all(isinstance(each, UpstreamFailed) and not each.sent for each in failures)
    assert work.begun == 1


async def test_who_waits_takes_over_from_a_leader_who_leaves() -> None:
    flights: Flights[str] = Flights()
    work = Work()
    leader = asyncio.gather(flights.once("a", work), asyncio.sleep(0))
    await begun(work)
    follower = asyncio.gather(flights.once("a", work), asyncio.sleep(0))
    await asyncio.sleep(0)
    leader.cancel()
    while work.begun < 2:
        await asyncio.sleep(0)
    work.end.set_result("done")

    assert (await follower)[0] == "done"
    with pytest.raises(asyncio.CancelledError):
        await leader


async def test_a_follower_who_leaves_disturbs_nobody() -> None:
    flights: Flights[str] = Flights()
    work = Work()
    leader = asyncio.gather(flights.once("a", work), asyncio.sleep(0))
    await begun(work)
    follower = asyncio.gather(flights.once("a", work), asyncio.sleep(0))
    await asyncio.sleep(0)
    follower.cancel()
    work.end.set_result("done")

    assert (await leader)[0] == "done"
    assert work.begun == 1


async def test_who_has_waited_long_enough_flies_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever leads may have a much later deadline."""
    monkeypatch.setattr(mcp_flights, "PATIENCE", 0.001)
    flights: Flights[str] = Flights()
    stuck, work = Work(), Work()
    work.end.set_result("done")
    leader = asyncio.gather(flights.once("a", stuck), asyncio.sleep(0))
    await begun(stuck)

    assert await flights.once("a", work) == "done"

    stuck.end.set_result("late")
    assert (await leader)[0] == "late"


@pytest.mark.parametrize("why", ["timeout", "full"])
async def test_that_the_leaders_time_is_up_need_not_end_others(why: str) -> None:
    flights: Flights[str] = Flights()
    leading, work = Work(), Work()
    work.end.set_result("done")
    leader = asyncio.gather(flights.once("a", leading), return_exceptions=True)
    await begun(leading)
    follower = asyncio.gather(flights.once("a", work), asyncio.sleep(0))
    await asyncio.sleep(0)
    leading.end.set_exception(UpstreamFailed(why, "its own", sent=False))

    assert (await follower)[0] == "done"
    assert isinstance((await leader)[0], UpstreamFailed)
