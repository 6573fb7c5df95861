"""Who holds the tasks that run beside the path?  The only place that starts any."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")


class Tasks:
    """Holds each task until it ends: the loop itself would let it vanish half way.

    `crashed(name, error)` hears of every exception that ends one.
    """

    def __init__(self, crashed: Callable[[str, BaseException], None]) -> None:
        self._crashed = crashed
        self._held: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._held)

    def start(self, work: Coroutine[Any, Any, _T], name: str) -> asyncio.Task[_T]:
        """Run `work` beside everything else."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._held.add(task)
        task.add_done_callback(self._ended)
        return task

    async def aclose(self) -> None:
        """Cancel what still runs, whatever it starts meanwhile too, and wait for its end."""
        own = asyncio.current_task()
        while running := [task for task in self._held if task is not own]:
            for task in running:
                task.cancel()
            await asyncio.wait(running)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._held.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._crashed(task.get_name(), error)
