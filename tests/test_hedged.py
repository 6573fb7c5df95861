from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from proxy.adapters.tasks import Tasks
from proxy.hedged import Race, hedged

LONG = 60.0


class World:
    """Attempts that end when they are told to, and what became of each."""

    def __init__(self) -> None:
        self.crashes: list[BaseException] = []
        self.tasks = Tasks(lambda _, error: self.crashes.append(error))
        self.began: list[str] = []
        self.cut: list[str] = []
        self.dropped: list[str] = []
        self._ends: dict[str, asyncio.Future[str]] = {}

    def end(self, name: str, said: str) -> None:
        self._ends[name].set_result(said)

    async def attempt(self, name: str, *, stubborn: bool = False) -> str:
        """Its permit goes back whatever happens; a stubborn one answers even when it is cut."""
        self.began.append(name)
        self._ends[name] = asyncio.get_running_loop().create_future()
        try:
            return await self._ends[name]
        except asyncio.CancelledError:
            self.cut.append(name)
            if stubborn:
                return "too late"
            raise

    def race(
        self,
        *,
        after: float = 0.0,
        second: Callable[[], Coroutine[Any, Any, str] | None] | None = None,
        stubborn: bool = False,
    ) -> asyncio.Task[Race[str]]:
        async def drop(said: str) -> None:
            self.dropped.append(said)

        return asyncio.create_task(
            hedged(
                self.attempt("first", stubborn=stubborn),
                second or (lambda: self.attempt("second")),
                after=after,
                delivers=lambda said: said.startswith("good"),
                drop=drop,
                start=self.tasks.start,
            )
        )

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(30):
            while not condition():
                await asyncio.sleep(0)

    async def both(self) -> None:
        await self.until(lambda: len(self.began) == 2)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    await world.until(lambda: not len(world.tasks))
    assert not world.crashes


async def test_an_answer_in_time_needs_no_second_attempt(world: World) -> None:
    race = world.race(after=LONG)
    await world.until(lambda: world.began)
    world.end("first", "good 1")

    assert await race == Race("good 1", None, hedged=False, won=False)
    assert world.began == ["first"]


async def test_a_failure_in_time_is_left_to_the_rescue(world: World) -> None:
    """The one rescue per exchange: what follows is not for the hedge to say."""
    race = world.race(after=LONG)
    await world.until(lambda: world.began)
    world.end("first", "bad")

    assert await race == Race("bad", None, hedged=False, won=False)


async def test_the_second_wins_and_the_first_is_cut(world: World) -> None:
    race = world.race()
    await world.both()
    world.end("second", "good 2")

    assert await race == Race(None, "good 2", hedged=True, won=True)
    await world.until(lambda: world.cut)
    assert (world.cut, world.dropped) == (["first"], [])


async def test_the_first_wins_after_all_and_the_second_is_cut(world: World) -> None:
    race = world.race()
    await world.both()
    world.end("first", "good 1")

    assert await race == Race("good 1", None, hedged=True, won=False)
    await world.until(lambda: world.cut)
    assert world.cut == ["second"]


async def test_of_two_that_end_together_the_first_wins_and_nothing_is_left_open(
    world: World,
) -> None:
    race = world.race()
    await world.both()
    world.end("second", "good 2")
    world.end("first", "good 1")

    assert await race == Race("good 1", None, hedged=True, won=False)
    await world.until(lambda: world.dropped)
    assert (world.cut, world.dropped) == ([], ["good 2"])


async def test_what_answers_although_it_was_cut_is_let_go(world: World) -> None:
    race = world.race(stubborn=True)
    await world.both()
    world.end("second", "good 2")

    assert (await race).won
    await world.until(lambda: world.dropped)
    assert world.dropped == ["too late"]


@pytest.mark.parametrize(("failing", "other"), [("first", "second"), ("second", "first")])
async def test_one_that_fails_leaves_the_race_to_the_other(
    world: World, failing: str, other: str
) -> None:
    race = world.race()
    await world.both()
    world.end(failing, "bad")
    for _ in range(5):
        await asyncio.sleep(0)
    assert not race.done()
    world.end(other, "good")

    first, second = ("good", "bad") if other == "first" else ("bad", "good")
    assert await race == Race(first, second, hedged=True, won=other == "second")
    assert world.cut == []


async def test_if_both_fail_both_are_told_of(world: World) -> None:
    race = world.race()
    await world.both()
    world.end("second", "bad 2")
    world.end("first", "bad 1")

    assert await race == Race("bad 1", "bad 2", hedged=True, won=False)


async def test_without_leave_for_a_second_the_first_has_all_its_time(world: World) -> None:
    asked: list[bool] = []

    def refused() -> None:
        asked.append(True)

    race = world.race(second=refused)
    await world.until(lambda: asked)
    world.end("first", "good 1")

    assert await race == Race("good 1", None, hedged=False, won=False)


@pytest.mark.parametrize("hedge", [False, True])
async def test_a_caller_who_leaves_takes_both_with_him(world: World, hedge: bool) -> None:
    race = world.race(after=0.0 if hedge else LONG)
    await world.until(lambda: len(world.began) == 1 + hedge)
    race.cancel()
    with pytest.raises(asyncio.CancelledError):
        await race

    await world.until(lambda: len(world.cut) == 1 + hedge)
    assert sorted(world.cut) == ["first", "second"][: 1 + hedge]


async def test_a_bug_in_one_attempt_cuts_the_other_and_is_heard() -> None:
    world = World()

    async def crash() -> str:
        raise KeyError("a bug")

    race = world.race(second=crash)
    with pytest.raises(KeyError):
        await race
    await world.until(lambda: not len(world.tasks))
    assert world.cut == ["first"]
    assert [type(error) for error in world.crashes] == [KeyError]
