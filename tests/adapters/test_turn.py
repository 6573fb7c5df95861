from __future__ import annotations

import asyncio
from typing import Any

from proxy.adapters.turn import Turn


class Note:
    """Writes its name, or fails."""

    def __init__(self, name: str, log: list[str], failure: Exception | None = None) -> None:
        self.name = name
        self.log = log
        self.failure = failure

    def write_out(self) -> None:
        if self.failure:
            raise self.failure
        self.log.append(self.name)


async def test_all_of_a_turn_is_written_in_order_after_everything_that_could_run() -> None:
    turn = Turn()
    log: list[str] = []
    loop = asyncio.get_running_loop()
    loop.call_soon(lambda: turn.add(Note("first", log)))
    loop.call_soon(lambda: turn.add(Note("second", log)))
    loop.call_soon(log.append, "work")

    await asyncio.sleep(0)
    before = list(log)
    await asyncio.sleep(0)

    assert (before, log) == (["work"], ["work", "first", "second"])


async def test_the_next_turn_has_an_end_of_its_own() -> None:
    turn = Turn()
    log: list[str] = []
    for name in ("one", "two"):
        turn.add(Note(name, log))
        await asyncio.sleep(0)
        assert log[-1] == name


async def test_a_write_that_fails_is_told_and_keeps_nobody_from_writing() -> None:
    turn = Turn()
    log: list[str] = []
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    turn.add(Note("broken", log, RuntimeError("odd")))
    turn.add(Note("whole", log))

    await asyncio.sleep(0)

    assert log == ["whole"]
    assert [str(context["exception"]) for context in told] == ["odd"]
