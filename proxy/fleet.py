"""Which connections to arms are in use?  Those of the rules in force, and older ones for a while.

An exchange that began under old rules may still send where those said.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from proxy.adapters.upstream import HttpUpstream
from proxy.ports import Clock
from proxy.wiring import Wiring

LOOK: Final = 0.05
"""Seconds between two looks whether the last late write has ended."""


class Fleet:
    """All upstreams that something may still be sent to."""

    def __init__(self, wiring: Wiring, clock: Clock) -> None:
        self._wiring = wiring
        self._clock = clock
        self._retired: list[HttpUpstream] = []
        self._hurried = False

    def retire(self, replaced: Iterable[HttpUpstream]) -> None:
        """Newer rules have replaced these."""
        for upstream in replaced:
            upstream.retire()
            self._retired.append(upstream)
        self._retired = [upstream for upstream in self._retired if upstream.busy]

    async def finish(self, until: float) -> None:
        """Let writes end that were late for their callers: to cut one may be to cancel it."""
        while not self._hurried and self._clock.now() < until:
            if not any(upstream.busy for upstream in self._all()):
                return
            await asyncio.sleep(LOOK)

    def hurry(self) -> None:
        """Let nobody wait for that any longer."""
        self._hurried = True

    async def aclose(self) -> None:
        """Close every connection."""
        for upstream in self._all():
            await upstream.aclose(0.0)

    def _all(self) -> list[HttpUpstream]:
        return [*self._wiring.upstreams.values(), *self._retired]
