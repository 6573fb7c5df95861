"""Two attempts at what only reads, the second begun late: whose answer comes first?"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

T = TypeVar("T")


class Start(Protocol):
    """Starts a task that somebody holds."""

    def __call__(self, work: Coroutine[Any, Any, T], name: str, /) -> asyncio.Task[T]: ...


@dataclass(frozen=True, slots=True)
class Race(Generic[T]):
    """How it ended: what each attempt came to; None for one that was let go, or never began.

    `hedged`: the second began.  `won`: its answer is the one that delivers.
    """

    first: T | None
    second: T | None
    hedged: bool
    won: bool


async def hedged(
    first: Coroutine[Any, Any, T],
    second: Callable[[], Coroutine[Any, Any, T] | None],
    *,
    after: float,
    delivers: Callable[[T], bool],
    drop: Callable[[T], Awaitable[None]],
    start: Start,
) -> Race[T]:
    """Run `first`; if it has no end after so many seconds, run beside it what `second` gives.

    `second` is asked at that moment, and may give None.  Whichever ends first and `delivers` wins,
    the first attempt if they end together; the other is cancelled, and `drop` lets go of what it
    may have come to all the same.  If neither delivers, both are waited for.
    """
    running = start(first, "attempt")
    pair = {running}
    try:
        await asyncio.wait(pair, timeout=after)
        work = None if running.done() else second()
        if work is None:
            return Race(await running, None, hedged=False, won=False)
        beside = start(work, "hedge")
        pair.add(beside)
        while waiting := {task for task in pair if not task.done()}:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if running.done() and delivers(said := running.result()):
                return Race(said, _failed(beside, delivers, drop, start), hedged=True, won=False)
            if beside.done() and delivers(said := beside.result()):
                return Race(_failed(running, delivers, drop, start), said, hedged=True, won=True)
        return Race(running.result(), beside.result(), hedged=True, won=False)
    except BaseException:
        for task in pair:
            start(_let_go(task, drop), "an attempt nobody waits for")
        raise


def _failed(
    loser: asyncio.Task[T],
    delivers: Callable[[T], bool],
    drop: Callable[[T], Awaitable[None]],
    start: Start,
) -> T | None:
    """What the other attempt came to, if it failed; else it is let go."""
    if loser.done() and not delivers(loser.result()):
        return loser.result()
    start(_let_go(loser, drop), "the slower attempt")
    return None


async def _let_go(task: asyncio.Task[T], drop: Callable[[T], Awaitable[None]]) -> None:
    """Cut an attempt; its permit and its connection go back as it ends."""
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled() and task.exception() is None:
        await drop(task.result())
