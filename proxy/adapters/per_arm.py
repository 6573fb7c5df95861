"""Who does something for each arm from time to time?  One task an arm, which sleeps in between."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

from proxy.adapters.tasks import Tasks


class Alarm:
    """Ends a task's sleep: at a time, or before."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """Let nobody sleep any longer; who is awake does not fall asleep the next time."""
        self._rung.set()

    async def sleep(self, patience: float | None) -> None:
        """For so many seconds, or until `ring`; None: until `ring`."""
        if patience is None or patience > 0:
            try:
                async with asyncio.timeout(patience):
                    await self._rung.wait()
            except TimeoutError:
                pass
        self._rung.clear()


class Worker(Protocol):
    """What one task runs."""

    def wake(self) -> None:
        """Look again what is to be done: the arm's breaker has changed."""

    async def run(self) -> None:
        """For ever, until cancelled."""


_W = TypeVar("_W", bound=Worker)


class PerArm(Generic[_W]):
    """The workers by their arm; `what` names their tasks."""

    def __init__(self, tasks: Tasks, what: str) -> None:
        self._tasks = tasks
        self._what = what
        self._workers: dict[str, _W] = {}
        self._running: dict[str, asyncio.Task[None]] = {}

    def __iter__(self) -> Iterator[tuple[str, _W]]:
        """Arms and workers, as they are now: they may be ended meanwhile."""
        return iter(list(self._workers.items()))

    def get(self, arm: str) -> _W | None:
        """Who works for that arm."""
        return self._workers.get(arm)

    def begin(self, arm: str, worker: _W) -> None:
        """Have `worker` work for an arm that has none."""
        self._workers[arm] = worker
        self._running[arm] = self._tasks.start(worker.run(), f"{self._what} {arm}")

    def end(self, arm: str) -> None:
        """Let nobody work for that arm any longer."""
        del self._workers[arm]
        self._running.pop(arm).cancel()

    def wake(self, arm: str) -> None:
        """Call it whenever the breaker of `arm` has changed."""
        worker = self._workers.get(arm)
        if worker is not None:
            worker.wake()

    async def aclose(self) -> None:
        """End all work; what is known stays to be asked.  Harmless a second time."""
        running = [*self._running.values()]
        self._running = {}
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
