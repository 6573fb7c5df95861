"""Tasks that somebody holds."""

from __future__ import annotations

import asyncio
import gc

import pytest

from proxy.adapters.tasks import Tasks


class Heard:
    def __init__(self) -> None:
        self.crashes: list[tuple[str, BaseException]] = []

    def __call__(self, name: str, error: BaseException) -> None:
        self.crashes.append((name, error))


async def forever() -> None:
    await asyncio.Event().wait()


async def test_a_task_has_a_name_and_gives_its_result() -> None:
    async def work() -> int:
        return 7

    task = Tasks(Heard()).start(work(), "adding up")

    assert task.get_name() == "adding up"
    assert await task == 7


async def test_a_task_that_nobody_else_holds_is_not_lost() -> None:
    tasks, reached = Tasks(Heard()), asyncio.Event()

    async def work() -> None:
        await asyncio.sleep(0)
        reached.set()

    tasks.start(work(), "lonely")
    gc.collect()

    await reached.wait()


async def test_a_task_is_let_go_once_it_ended() -> None:
    tasks = Tasks(Heard())
    task = tasks.start(asyncio.sleep(0), "short")
    assert len(tasks) == 1

    await asyncio.wait([task])
    await asyncio.sleep(0)

    assert len(tasks) == 0


async def test_an_exception_that_nobody_expected_is_told() -> None:
    heard = Heard()
    error = RuntimeError("a bug")

    async def work() -> None:
        raise error

    task = Tasks(heard).start(work(), "broken")
    await asyncio.wait([task])
    await asyncio.sleep(0)

    assert heard.crashes == [("broken", error)]


async def test_closing_cancels_and_waits_and_tells_nothing() -> None:
    heard, ended = Heard(), []
    tasks = Tasks(heard)

    async def work() -> None:
        try:
            await forever()
        finally:
            await asyncio.sleep(0)
            ended.append(True)

    task = tasks.start(work(), "long")
    await asyncio.sleep(0)
    await tasks.aclose()

    assert task.cancelled()
    assert ended == [True]
    assert heard.crashes == []


async def test_what_is_started_while_closing_is_cancelled_too() -> None:
    tasks = Tasks(Heard())
    late: list[asyncio.Task[None]] = []

    async def work() -> None:
        try:
            await forever()
        finally:
            late.append(tasks.start(forever(), "late"))

    tasks.start(work(), "long")
    await asyncio.sleep(0)
    await tasks.aclose()

    assert late[0].cancelled()


async def test_a_task_may_close_its_own_holder() -> None:
    tasks = Tasks(Heard())
    task = tasks.start(tasks.aclose(), "closer")

    await task


async def test_a_task_that_fails_while_it_is_cancelled_is_told() -> None:
    heard = Heard()
    tasks = Tasks(heard)

    async def work() -> None:
        try:
            await forever()
        except asyncio.CancelledError:
            raise ValueError("while cleaning up") from None

    task = tasks.start(work(), "messy")
    await asyncio.sleep(0)
    await tasks.aclose()

    with pytest.raises(ValueError, match="cleaning"):
        task.result()
    assert [name for name, _ in heard.crashes] == ["messy"]
