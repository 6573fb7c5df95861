"""A real sidecar between real sockets, for the examples of one property: started once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import uvloop

from tests.functional.conftest import World
from tests.functional.kit import Sidecar

T = TypeVar("T")


class Stage:
    """`run` what is asked of the sidecar, example after example."""

    def __init__(self, folder: Path, **sections: Any) -> None:
        self._folder, self._sections = folder, sections
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._stack = contextlib.AsyncExitStack()
        self.world: World
        self.sidecar: Sidecar

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    def __enter__(self) -> Stage:
        self.run(self._open())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.run(self._stack.aclose())
        finally:
            self._runner.close()

    async def _open(self) -> None:
        self.world = World(self._folder, self._stack)
        for origin in (self.world.mcp, self.world.webhook):
            self._stack.push_async_callback(origin.stop)
            await origin.listen()
        self.sidecar = await self.world.sidecar(**self._sections)
