"""One task an arm: woken, replaced, ended."""

from __future__ import annotations

import asyncio

import pytest

from proxy.adapters.per_arm import Alarm, PerArm
from proxy.adapters.tasks import Tasks


class Sleeper:
    """A worker that counts how often it woke, and notes that it was ended."""

    def __init__(self) -> None:
        self.alarm = Alarm()
        self.woken = 0
        self.ended = False

    def wake(self) -> None:
        self.alarm.ring()

    async def run(self) -> None:
        try:
            while True:
                await self.alarm.sleep(None)
                self.woken += 1
        finally:
            self.ended = True


def crews() -> tuple[PerArm[Sleeper], Tasks]:
    tasks = Tasks(lambda name, error: pytest.fail(f"{name}: {error!r}"))
    return PerArm(tasks, "sleep"), tasks


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("patience", [0.0, -1.0])
async def test_what_is_due_already_does_not_sleep_and_uses_the_ring_up(patience: float) -> None:
    alarm = Alarm()
    alarm.ring()
    await alarm.sleep(patience)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(alarm.sleep(None), 0.001)


async def test_who_was_rung_for_while_awake_does_not_fall_asleep() -> None:
    alarm = Alarm()
    alarm.ring()
    async with asyncio.timeout(10):
        await alarm.sleep(None)


async def test_sleep_ends_by_itself() -> None:
    async with asyncio.timeout(10):
        await Alarm().sleep(0.001)


async def test_each_arm_has_a_task_that_says_what_it_is_for() -> None:
    crew, tasks = crews()
    crew.begin("mcp", Sleeper())

    assert "sleep mcp" in {task.get_name() for task in asyncio.all_tasks()}
    await crew.aclose()
    await tasks.aclose()


async def test_only_the_arm_that_is_meant_wakes() -> None:
    crew, tasks = crews()
    one, other = Sleeper(), Sleeper()
    crew.begin("mcp", one)
    crew.begin("webhook", other)
    await turns()
    crew.wake("mcp")
    crew.wake("nobody")
    await turns()

    assert (one.woken, other.woken) == (1, 0)
    assert crew.get("mcp") is one
    assert crew.get("nobody") is None
    await crew.aclose()
    await tasks.aclose()


async def test_an_arms_work_can_end_while_the_others_are_looked_at() -> None:
    crew, tasks = crews()
    for name in ("mcp", "webhook"):
        crew.begin(name, Sleeper())
    await turns()
    ended = []
    for name, worker in crew:
        crew.end(name)
        ended.append(worker)
    await turns()

    assert [worker.ended for worker in ended] == [True, True]
    assert [*crew] == []
    await tasks.aclose()


async def test_the_end_waits_for_all_and_may_come_twice() -> None:
    crew, tasks = crews()
    workers = [Sleeper(), Sleeper()]
    for name, worker in zip(("mcp", "webhook"), workers, strict=True):
        crew.begin(name, worker)
    await turns()
    await crew.aclose()
    await crew.aclose()

    assert [worker.ended for worker in workers] == [True, True]
    assert [worker for _, worker in crew] == workers, "what they know can still be asked"
    await tasks.aclose()
