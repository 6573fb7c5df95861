"""What is done beside the path, for nobody who waits?  Harmless things, soon, and not too many."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final

from structlog.typing import FilteringBoundLogger

from backends.base import Errand
from proxy.errors import ProbeFailed, UpstreamFailed
from proxy.hedged import Start
from proxy.ports import Clock, Upstream
from proxy.relay import Sender

PATIENCE: Final = 2.0
"""Seconds that an errand has in all."""

AT_ONCE: Final = 64
"""Errands under way; what comes beyond is not done."""


class Errands:
    """Runs what backends hand to `BackendConfig.aside`.  `start` starts a task somebody holds."""

    def __init__(self, *, clock: Clock, log: FilteringBoundLogger, start: Start) -> None:
        self._clock = clock
        self._log = log
        self._start = start
        self._under_way = 0

    def __len__(self) -> int:
        return self._under_way

    def over(self, upstream: Upstream, arm: str) -> Callable[[Errand], None]:
        """The way for one arm's backend."""
        return partial(self._begin, upstream, arm)

    def _begin(self, upstream: Upstream, arm: str, errand: Errand) -> None:
        if self._under_way >= AT_ONCE:
            self._log.debug("errand_dropped", arm=arm, under_way=self._under_way)
            return
        self._under_way += 1
        task = self._start(self._run(upstream, arm, errand), f"errand {arm}")
        task.add_done_callback(self._ended)  # Also if it is cancelled before its first step.

    def _ended(self, _: object) -> None:
        self._under_way -= 1

    async def _run(self, upstream: Upstream, arm: str, errand: Errand) -> None:
        send = Sender(upstream, [], deadline=self._clock.now() + PATIENCE, linger=0.0)
        try:
            async with asyncio.timeout(PATIENCE):
                await errand(send)
        except (TimeoutError, ProbeFailed, UpstreamFailed) as failure:
            self._log.debug("errand_failed", arm=arm, why=str(failure) or "timeout")
